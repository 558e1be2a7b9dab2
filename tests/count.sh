#!/bin/bash
# Runs a `cargo test` command as it is, then adds up what it said: `N passed, N failed` alone on the last line.
#
# Always: fails when the command failed or any test did, and when nothing ran at all, because no tests is no proof.
set -uo pipefail

log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}

awk -v status="$status" '
    # A harness killed half-way prints no result; its tests are then not counted, and the status tells.
    /^test result: / {
        for (i = 2; i <= NF; i++) {
            if ($i == "passed;") passed += $(i - 1)
            if ($i == "failed;") failed += $(i - 1)
            if ($i == "ignored;") skipped += $(i - 1)
        }
    }
    /^test .* \.\.\. FAILED$/ { names[++count] = $2 }
    END {
        print ""
        for (i = 1; i <= count; i++) print "failed: " names[i]
        if (status != 0 && failed == 0) print "the command ended with status " status " though no test failed: see above"
        if (passed + failed == 0) print "no test ran"
        printf "%d passed, %d failed%s\n", passed, failed, skipped ? ", " skipped " skipped" : ""
        exit (status != 0 || failed != 0 || passed == 0)
    }' "$log"
