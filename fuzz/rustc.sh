#!/bin/sh
# Compiles a crate of this workspace for libFuzzer; `cargo xtask fuzz` names it to cargo as RUSTC_WORKSPACE_WRAPPER.
# The flags are those of cargo-fuzz, without a sanitizer, and none of them needs a nightly compiler. They optimise: that takes
# seconds, and several times as many inputs are tried. Crates of others are compiled without them, once for fuzzing and
# all else.
set -eu
case " $* " in
    # What cargo asks a compiler about, and what runs while others are built.
    *" --crate-name ___ "* | *" --crate-name build_script_build "*) exec "$@" ;;
    *" --crate-name "*) ;;
    *) exec "$@" ;;
esac
exec "$@" \
    -Copt-level=1 \
    -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cdebug-assertions=on \
    -Coverflow-checks=on
