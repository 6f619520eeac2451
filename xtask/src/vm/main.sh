#!/bin/sh
# Runs the commands in the machine as root, one after the other, with markers between their outputs on the serial line for
# output.
terminal=$(cat /opt/qfence/terminal)
exec >"$terminal" 2>&1 </dev/null
stty -F "$terminal" raw -echo
export PATH="/opt/qfence/bin:$PATH" HOME=/root LANG=C.UTF-8
# No terminal is at the other end of the serial line.
export TERM=dumb
echo '@qfence-vm ready'
for command in /opt/qfence/commands/*; do
    sh "$command"
    echo "@qfence-vm status $?"
done
# Switches off without a shutdown: changes of the disk are lost anyway.
echo o >/proc/sysrq-trigger
