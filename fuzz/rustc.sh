#!/bin/sh
# Compiles a crate of this workspace for libFuzzer. `cargo xtask fuzz` passes this script to cargo as
# RUSTC_WORKSPACE_WRAPPER. The flags are those of cargo-fuzz without a sanitizer; none needs a nightly compiler.
# Optimising takes seconds, and tries several times as many inputs. Crates of third parties are compiled without these
# flags, once for fuzzing and all other uses.
set -eu
case " $* " in
    # Cargo's queries of the compiler, and build scripts.
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
