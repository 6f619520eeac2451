#!/bin/sh
# Runs in the machine: tests that its journal and a syslog daemon read the lines that `--log` sends.
set -eu

fail() {
    echo "$1"
    shift
    for file; do
        echo "--- $file"
        cat "$file"
    done
    exit 1
}

# await WHAT COMMAND...: waits until the command succeeds.
await() {
    what=$1
    shift
    for _ in $(seq 600); do
        if "$@" >/dev/null 2>&1; then
            return
        fi
        sleep 0.1
    done
    fail "waited in vain: $what" /tmp/syslog /tmp/said
}

# has FILE TEXT: fails unless a line of the file contains the text.
has() {
    grep -qF -- "$2" "$1" || fail "no $2 in" "$1"
}

socket=/run/qfence-syslog
cat >/tmp/rsyslog.conf <<END
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="$socket" UseSpecialParser="off" ParseHostname="on" RateLimit.Interval="0")
template(name="parts" type="string"
         string="%app-name%|%syslogseverity-text%|%structured-data%|%msg%\n")
action(type="omfile" file="/tmp/syslog" template="parts")
END
start_syslog() {
    rsyslogd -n -f /tmp/rsyslog.conf -i /tmp/rsyslog.pid &
    syslog=$!
    await 'rsyslogd listens' test -S $socket
}

: >/tmp/syslog
start_syslog
mkfifo /tmp/orders
qfence-user exec --name sinks --user nobody --log journald --log "syslog:$socket" \
    --log json:/tmp/json -- sh </tmp/orders >/tmp/said 2>&1 &
fence=$!
exec 3>/tmp/orders
try() {
    echo "probe $*" >&3
}

try tcp/127.0.0.1/22
await 'the file has it' grep -q '"port":22,' /tmp/json
await 'the journal has it' sh -c 'journalctl QFENCE_PORT=22 | grep -q denied'
await 'syslog has it' grep -q 'port="22"' /tmp/syslog

journalctl QFENCE_FENCE=sinks -o json >/tmp/journal
for field in '"QFENCE_DESTINATION":"127.0.0.1"' '"QFENCE_PROTOCOL":"tcp"' '"QFENCE_RULE":"deny host"' \
    '"QFENCE_KIND":"attempt"' '"QFENCE_SEQ":"1"' '"QFENCE_TOTAL":"1"' '"QFENCE_UID":"65534"' \
    '"QFENCE_V":"1"' '"PRIORITY":"5"' '"SYSLOG_IDENTIFIER":"qfence"' 'sinks denied tcp 127.0.0.1:22 connect4'; do
    has /tmp/journal "$field"
done
# The control: the journal filters by fields.
if journalctl -q QFENCE_FENCE=another | grep -q .; then
    fail 'the journal has lines of a fence that never existed'
fi

has /tmp/syslog 'qfence|notice|[qfence@32473 '
has /tmp/syslog ' destination="127.0.0.1"'
has /tmp/syslog ' rule="deny host"'
has /tmp/syslog 'sinks denied tcp 127.0.0.1:22 connect4 pid '
echo 'the journal and syslog have an attempt, by its fields'

# A daemon that was restarted gets lines again.
kill $syslog
wait $syslog || :
rm -f $socket
start_syslog
try tcp/127.0.0.1/23
await 'syslog has it' grep -q 'port="23"' /tmp/syslog
systemctl restart systemd-journald
try tcp/127.0.0.1/24
await 'the journal has it' sh -c 'journalctl QFENCE_PORT=24 | grep -q denied'
echo 'both get lines again after a restart'

# A daemon that stalls blocks neither the command nor the file, and the lines that it did not get are reported.
kill -STOP $syslog
for tens in $(seq 3000 10 5990); do
    try --timeout-ms 1 $(for ones in 0 1 2 3 4 5 6 7 8 9; do echo "udp/127.0.0.1/$((tens + ones))"; done)
done
echo 'echo all of them' >&3
await 'the command is not blocked' grep -q 'all of them' /tmp/said
echo 'exit 0' >&3
exec 3>&-
wait $fence || fail 'the fence failed' /tmp/said
told=$(tail -n 1 /tmp/json | sed 's/.*"total"://; s/}.*//')
[ "$told" -eq 3003 ] || fail "the file has $told attempts, not 3003" /tmp/json
has /tmp/said "of 3003 refusals are not in the log syslog:$socket"
if grep -q 'not in the log /tmp/json\|not in the log journald' /tmp/said; then
    fail 'the other logs were blocked' /tmp/said
fi
kill -CONT $syslog
kill $syslog
echo 'a daemon that stalls blocks nobody, and its lost lines are reported'
