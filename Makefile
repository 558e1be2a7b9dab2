# Everything a person or CI does to this tree. Each target first installs what it needs (tests/setup.sh says what).

# What `make bench` runs: one suite of tests/perf, or all of them.
SUITE = all
# How long `make fuzz` spends on each target.
SECONDS = 30
# What `make run` hands to the filter runner, and `make bench` to a suite; see `make run ARGS=--help`, `make bench SUITE=proxy ARGS=--help`.
ARGS =

# Where tools lie that a fresh shell may not find: rustup's, those that tests/setup.sh fetched, and Go's own place.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/weir/go/bin:$(PATH):/usr/local/go/bin
SETUP = @tests/setup.sh
# The crates that are filters: every folder of filters/ but those that build them or that they share.
FILTERS = $(filter-out bundle cel matching wasm32,$(patsubst filters/%/Cargo.toml,%,$(wildcard filters/*/Cargo.toml)))

.DEFAULT_GOAL = help
.PHONY: help setup run install test corpus lint bench fuzz doc clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install all that the targets below need, and say what
	$(SETUP) rust wasm go node netns prometheus registry lint fuzz
	@echo "setup: everything is here"

run: ## Start a proxy with the standard sample, something behind it, and live counters (ARGS=another.yaml)
	$(SETUP) rust wasm
	@cargo run -q --release -p weir-proxy --example demo -- $(ARGS)

install: ## Build `weir`, and put it where cargo puts programs (~/.cargo/bin)
	$(SETUP) rust wasm
	cargo install --locked --quiet --path sdk/cli

test: ## Run every test, and print how many passed and failed
	$(SETUP) rust wasm go node netns prometheus registry
	@tests/count.sh cargo test --workspace --no-fail-fast

corpus: ## Hold the controller against what Istio itself answered (WEIR_CORPUS=folder)
	$(SETUP) rust wasm
	cargo test -p weir-corpus

lint: ## Check formatting, lints, documentation, licences and banned crates
	$(SETUP) lint wasm
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@# The part of a filter that only wasm32 compiles; Debian's compiler brings no clippy for it.
	@if [ -d "$$(rustc --print sysroot)/lib/rustlib/wasm32-unknown-unknown/lib" ]; then set -x; \
	    cargo clippy $(FILTERS:%=-p weir-filter-%) --target wasm32-unknown-unknown -- -D warnings; fi
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --quiet
	cargo deny --log-level error check bans licenses sources

bench: ## Measure, one figure a line (SUITE=wasm|filters|proxy|sdk|all; ARGS=... for proxy)
	$(SETUP) rust wasm $(if $(filter proxy all,$(SUITE)),peers)
	cargo build --release -p weir-perf $(if $(filter proxy all,$(SUITE)),-p weir-proxy) $(if $(filter sdk,$(SUITE)),-p weir-cli)
	@# The program that was just built: `cargo run` of one package chooses other features, and builds it all again.
	@$(or $(CARGO_TARGET_DIR),target)/release/weir-perf $(SUITE) $(ARGS)

fuzz: ## Fuzz each target for a while (SECONDS=30)
	$(SETUP) fuzz
	@tests/fuzz.sh $(SECONDS)

doc: ## Build the API documentation, and say where it is
	$(SETUP) rust wasm
	cargo doc --workspace --no-deps

clean: ## Remove what the targets built (not what they installed)
	cargo clean
