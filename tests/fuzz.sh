#!/bin/sh
# Runs every target of tests/fuzz for SECONDS each, on top of its committed corpus.
#
#   tests/fuzz.sh SECONDS
#
# Always: bounded in time, every target gets its turn, and one finding fails the whole. What is found stays in
# tests/fuzz/artifacts, and the last line says how to repeat it.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:?usage: tests/fuzz.sh SECONDS}

# Sanitizers are an unstable flag; this lets the pinned compiler take it, so that no second toolchain is needed.
export RUSTC_BOOTSTRAP=1
# A directory of its own: the flags differ from all other builds, which would otherwise undo each other.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/fuzz"
# Only our crates are instrumented, see there.
export RUSTC_WRAPPER="$PWD/tests/fuzz/rustc.sh"
# No address sanitizer: our code is safe Rust but for two places, and instrumenting the Wasm engine for it takes a
# quarter of an hour on two cores. What is looked for is panics, hangs and broken promises; debug assertions are on.
flags="--fuzz-dir tests/fuzz --sanitizer none"
targets=$(cargo fuzz list --fuzz-dir tests/fuzz)
# shellcheck disable=SC2086 # two words
cargo fuzz build $flags
failed=
for target in $targets; do
    echo "== $target for $seconds s"
    # New inputs go to a scratch directory: the committed corpus grows by decision, not by running.
    found=$(mktemp -d)
    # shellcheck disable=SC2086 # two words
    cargo fuzz run $flags "$target" "$found" "tests/fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=10 -print_final_stats=1 || failed="$failed $target"
    rm -rf "$found"
done
if [ -n "$failed" ]; then
    echo "fuzzing found something in:$failed" >&2
    echo "repeat it with: RUSTC_BOOTSTRAP=1 cargo fuzz run $flags TARGET tests/fuzz/artifacts/TARGET/FILE" >&2
    exit 1
fi
echo "nothing found in: $(echo $targets)"
