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
targets=$(cargo fuzz list --fuzz-dir tests/fuzz)
cargo fuzz build --fuzz-dir tests/fuzz
failed=
for target in $targets; do
    echo "== $target for $seconds s"
    # New inputs go to a scratch directory: the committed corpus grows by decision, not by running.
    found=$(mktemp -d)
    cargo fuzz run --fuzz-dir tests/fuzz "$target" "$found" "tests/fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=10 -print_final_stats=1 || failed="$failed $target"
    rm -rf "$found"
done
if [ -n "$failed" ]; then
    echo "fuzzing found something in:$failed" >&2
    echo "repeat it with: RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir tests/fuzz TARGET tests/fuzz/artifacts/TARGET/FILE" >&2
    exit 1
fi
echo "nothing found in: $(echo $targets)"
