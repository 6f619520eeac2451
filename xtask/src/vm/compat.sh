#!/bin/sh
# Runs in the machine with an aarch64 processor: 32-bit ARM programs in a fence. Their system calls have numbers of their own,
# which the filter must know: the kernel runs no eBPF program for the options that they set. The control comes first.
set -eu
program=/tmp/compat

# words NUMBER...: prints them as bytes, the lowest first.
words() {
    for word; do
        # shellcheck disable=SC2059 # the inner printf makes the format
        printf "$(printf '\\%03o\\%03o\\%03o\\%03o' $((word & 255)) $((word >> 8 & 255)) $((word >> 16 & 255)) $((word >> 24)))"
    done
}

# setter OPTION: makes a program that sets an option of level SOL_SOCKET to 1. Its status is the error, or 0.
setter() {
    {
        # The header of an ELF file for the EABI of ARM, and of its one segment.
        words 0x464c457f 0x00010101 0 0 0x00280002 1 0x10054 52 0 0x05000000 0x00200034 1 0
        words 1 0 0x10000 0x10000 144 144 5 0x1000
        words 0xe3a00002 0xe3a01002 0xe3a02000 # mov r0, #AF_INET; mov r1, #SOCK_DGRAM; mov r2, #0
        words 0xe3007119 0xef000000            # movw r7, #socket; svc #0
        words 0xe3a01001 $((0xe3a02000 | $1))  # mov r1, #SOL_SOCKET; mov r2, #OPTION
        words 0xe28f3014 0xe3a04004            # adr r3, one; mov r4, #4
        words 0xe3007126 0xef000000            # movw r7, #setsockopt; svc #0
        words 0xe2600000                       # rsb r0, r0, #0
        words 0xe3a07001 0xef000000            # mov r7, #exit; svc #0
        words 1                                # one: .word 1
    } >$program
    chmod 755 $program
}

# expect WHAT STATUS COMMAND...: the command has this status.
expect() {
    what=$1 expected=$2
    shift 2
    status=0
    "$@" 2>/tmp/said || status=$?
    echo "$what: status $status"
    if [ "$status" -ne "$expected" ]; then
        echo "and not $expected"
        cat /tmp/said
        exit 1
    fi
}
fence='qfence-user exec --name compat --user nobody --log none'
broadcast=6 keepalive=9 eperm=1
# The list is split into words on purpose.
# shellcheck disable=SC2086
{
    setter $broadcast
    expect 'without the fence a 32-bit program sets SO_BROADCAST' 0 $program
    expect 'in the fence it is refused' $eperm $fence -- $program
    expect 'with --allow-compat-sockopt it is not' 0 $fence --allow-compat-sockopt -- $program
    expect 'with --strict=syscalls it is not started' 125 $fence --strict=syscalls -- $program
    setter $keepalive
    expect 'in the fence it sets SO_KEEPALIVE' 0 $fence -- $program
}
echo '32-bit programs are fenced in this machine'
