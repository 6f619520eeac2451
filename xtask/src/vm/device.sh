#!/bin/sh
# Runs in the machine: a guest on the other end of a veth pair, whose host's end is fenced. Debian 12's kernel has neither links
# for devices nor for netfilter: filters of traffic control and a table of nftables take their place. What a kernel has, doctor
# says. The fence is in monitor mode at first, which is the control: the guest reaches the host. Then it enforces its policy.
set -eu
# Not the port of other tests, whose services are still there.
port=8090

fail() {
    echo "$1"
    for file in /tmp/device.stderr /tmp/outcomes; do
        echo "--- $file"
        tail -n 40 "$file" || :
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
    fail "waited in vain: $what"
}

# An internet and a guest, each in a namespace of its own. What the guest sends to the internet is translated.
for there in wide guest; do
    ip netns add $there
    ip -n $there link set lo up
    ip netns exec $there sysctl -q -w net.ipv4.ping_group_range='0 2147483647'
done
ip link add wan type veth peer name eth0 netns wide
ip link add box0 type veth peer name eth0 netns guest
for here in wan box0; do ip link set $here up; done
for there in wide guest; do ip -n $there link set eth0 up; done
ip addr add 10.9.0.2/24 dev wan
ip addr add fd09::2/64 dev wan nodad
ip -n wide addr add 10.9.0.1/24 dev eth0
ip -n wide addr add fd09::1/64 dev eth0 nodad
ip addr add 192.168.122.1/24 dev box0
ip addr add fd00:122::1/64 dev box0 nodad
ip -n guest addr add 192.168.122.10/24 dev eth0
ip -n guest addr add fd00:122::10/64 dev eth0 nodad
ip -n guest route add default via 192.168.122.1
ip -n guest route add default via fd00:122::1
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
nft 'table inet out { chain post { type nat hook postrouting priority 100; oifname wan masquerade; }; }'
probe --serve tcp/$port udp/$port >/tmp/device.host &
host_services=$!
ip netns exec wide probe --serve tcp/$port udp/$port >/tmp/device.wide &
wide_services=$!
for services in /tmp/device.host /tmp/device.wide; do
    await "$services" grep -q serving $services
done
left() {
    nft list tables
    tc qdisc show
    # The directories of qfence stay.
    find /sys/fs/bpf -mindepth 2
}
before=$(left)

qfence-user exec --name device --user nobody --device box0 --monitor --log /tmp/device.log --log-format json -- \
    sh -c 'echo started; exec sleep 600' >/tmp/device.out 2>/tmp/device.stderr &
fence=$!
await 'the fence starts' grep -q started /tmp/device.out

to() {
    for address; do echo "tcp/$address/$port ping/$address"; done
}
datagrams() {
    for address; do echo "udp-connected/$address/$port"; done
}
# The service answers datagrams by the address that is nearest to the guest.
host=$(to 192.168.122.1 fd00:122::1 10.9.0.2 fd09::2; datagrams 192.168.122.1 fd00:122::1)
internet=$(to 10.9.0.1 fd09::1; datagrams 10.9.0.1 fd09::1)

# expect WHAT COUNT PATTERN PROBES...: so many probes of the guest have an outcome of this pattern, and no other has.
expect() {
    what=$1 count=$2 pattern=$3
    shift 3
    ip netns exec guest probe --timeout-ms 3000 "$@" >/tmp/outcomes
    as_expected=$(grep -c "$pattern" /tmp/outcomes || :)
    echo "$what: $as_expected of $(wc -l </tmp/outcomes)"
    if [ "$as_expected" -ne "$count" ] || [ "$(wc -l </tmp/outcomes)" -ne "$count" ]; then
        fail "not $count"
    fi
}
# The lists are split into words on purpose.
# shellcheck disable=SC2086
{
    expect 'in monitor mode the guest reaches the host' 10 '"reached"' $host
    qfence-user set device --enforce
    # The socket of a ping is told of no error.
    expect 'in the fence it is refused' 10 '"ECONNREFUSED"\|"EHOSTUNREACH"\|"EACCES"\|"ping/.*"sent"' $host
    expect 'in the fence it reaches the internet' 6 '"reached"' $internet
}
filters=$(tc filter show dev box0 ingress | grep -c 'qfence' || :)
tables=$(nft list tables | grep -c 'inet qfence' || :)
echo "filters of traffic control: $filters, tables of nftables: $tables"
qfence-user doctor >/tmp/doctor || :
expected=1
if grep -q 'attach to a device (tcx)' /tmp/doctor; then
    expected=0
fi
if [ "$filters" -ne $expected ]; then
    fail "filters: not $expected"
fi
expected=1
if grep -q 'packets from guests.*the program loads' /tmp/doctor; then
    expected=0
fi
if [ "$tables" -ne $expected ]; then
    fail "tables: not $expected"
fi
if qfence-user ps | grep -q UNFENCED; then
    fail 'a layer is missing'
fi
await 'a refusal is on record' grep -q '"rule":"deny host"' /tmp/device.log

kill "$fence"
wait "$fence" || :
after=$(left)
if [ "$before" != "$after" ]; then
    printf '%s\n--- before\n%s\n' "$after" "$before"
    fail 'the fence left something behind'
fi
kill "$host_services" "$wide_services"
ip link del wan
ip link del box0
ip netns del wide
ip netns del guest
nft 'delete table inet out'
echo 'a guest is fenced by its device in this machine'
