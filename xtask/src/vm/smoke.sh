#!/bin/sh
# Runs in the machine: tests `exec`. The control comes first: without the fence, the attempts must arrive.
set -eu
port=8080
fence='qfence-user exec --name smoke --user nobody --log /tmp/refusals --log-format json --'

echo "$(. /etc/os-release && echo "$PRETTY_NAME"), kernel $(uname -r), $(systemctl --version | head -1)"
stat -f -c 'cgroups: %T' /sys/fs/cgroup

# An internet in another namespace, connected by a veth pair.
ip netns add internet
ip link add eth0 type veth peer name eth0 netns internet
ip link set eth0 up
ip -n internet link set eth0 up
ip -n internet link set lo up
ip addr add 192.0.2.10/24 dev eth0
ip addr add 2001:db8:1::10/64 dev eth0 nodad
ip -n internet addr add 192.0.2.1/24 dev eth0
ip -n internet addr add 2001:db8:1::1/64 dev eth0 nodad
probe --serve tcp/$port udp/$port >/tmp/host &
ip netns exec internet probe --serve tcp/$port udp/$port >/tmp/internet &
for services in /tmp/host /tmp/internet; do
    timeout 60 sh -c "until grep -q serving $services; do sleep 0.1; done"
done

# Allows ping sockets to users of all groups.
echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range

to() {
    for address; do echo "tcp/$address/$port udp/$address/$port"; done
}
host=$(to 127.0.0.1 ::1 192.0.2.10 2001:db8:1::10 0.0.0.0 ::ffff:127.0.0.1)
pings='ping/127.0.0.1 ping/::1 ping/192.0.2.10 ping/2001:db8:1::10'
internet="ping/192.0.2.1 ping/2001:db8:1::1 $(to 192.0.2.1 2001:db8:1::1)"

# expect WHAT OUTCOME COMMAND...: every attempt must have this outcome.
expect() {
    what=$1 outcome=$2
    shift 2
    # The lists are split into words on purpose.
    "$@" >/tmp/outcomes
    all=$(wc -l </tmp/outcomes)
    as_expected=$(grep -c "$outcome" /tmp/outcomes || :)
    echo "$what: $as_expected of $all"
    if [ "$all" -eq 0 ] || [ "$as_expected" -ne "$all" ]; then
        cat /tmp/outcomes
        exit 1
    fi
}
# Before Linux 5.18 the error of a refused call is always EPERM, which qfence says.
refused='"ECONNREFUSED"'
$fence true 2>/tmp/said
if grep -q 'cannot set the error of a refused call' /tmp/said; then
    refused='"EPERM"'
fi
# shellcheck disable=SC2086
{
    expect 'without the fence the host is reached' '"reached"' probe $host $pings
    expect 'without the fence the internet is reached' '"reached"' probe $internet
    expect "in the fence the host is refused with $refused" "$refused" $fence probe $host
    # A ping over IPv6 fails without an error: the packet is dropped.
    expect 'in the fence the host is not pinged' '"failed"\|"sent"' $fence probe $pings
    expect 'in the fence the internet is reached' '"reached"' $fence probe $internet
}
echo "refusals on record: $(grep -c '"rule":"deny host"' /tmp/refusals)"

# Other programs, which need more of the stack.
if ! qfence-user exec --name smoke --user nobody --log none -vv -- probe tcp/192.0.2.10/$port ping/192.0.2.10 \
    >/tmp/outcomes 2>/tmp/traces || ! grep -q 'trace: connect4: ::ffff:192.0.2.10 port 8080 .* refused' /tmp/traces ||
    ! grep -q 'trace: egress: ::ffff:192.0.2.10 port 0 .* refused' /tmp/traces; then
    echo 'the programs with traces do not work:'
    cat /tmp/outcomes /tmp/traces
    exit 1
fi

status=0
$fence sh -c 'exit 42' || status=$?
if [ "$status" -ne 42 ]; then
    echo "the exit status of a command is $status, and not 42"
    exit 1
fi
# Here qfence changes its own OOM score and gives the command the former one, which many containers do not allow.
if qfence-user exec --name smoke --user nobody --log none --strict -- cat /proc/self/oom_score_adj \
    >/tmp/outcomes 2>/tmp/said; then
    if ! cmp /tmp/outcomes /proc/self/oom_score_adj; then
        echo 'with --strict the OOM score of a command is not that of the caller'
        exit 1
    fi
    echo 'with --strict a command starts'
elif grep -q 'this kernel cannot close' /tmp/said; then
    echo 'this kernel has not all that --strict closes'
else
    echo 'with --strict no command starts:'
    cat /tmp/said
    exit 1
fi
left=$(ls -d /sys/fs/bpf/qfence/smoke /run/qfence/smoke.json 2>/dev/null || :; find /sys/fs/cgroup -path '*/qfence/smoke')
if [ -n "$left" ]; then
    echo "left behind: $left"
    exit 1
fi
echo 'qfence works in this machine'
