#!/bin/sh
# The compiler for fuzzing: Weir's own crates and the YAML parser are instrumented, the compiler and runtime below them are not.
#
# Always: the same crates, built faster, and coverage that means our code. cargo-fuzz can only instrument everything.
crate=
previous=
for argument do
    [ "$previous" = --crate-name ] && crate=$argument
    previous=$argument
done
case "$crate" in
    weir_* | saphyr_parser | hostcalls | http1 | maps | model_yaml | modules | properties | wasi) exec "$@" ;;
esac
for argument do
    shift
    case "$argument" in
        -Cpasses=sancov-module | -Cllvm-args=-sanitizer-coverage* | -Ccodegen-units=1) ;;
        *) set -- "$@" "$argument" ;;
    esac
done
exec "$@"
