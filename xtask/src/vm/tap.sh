#!/bin/sh
# Runs in the machine: a guest of QEMU's with a persistent tap device of an unprivileged user. The fence is in monitor mode
# at first, which is the control: the guest reaches the host. Then it enforces its policy.
set -eu
port=8080
guest=/opt/qfence/guest

fail() {
    echo "$1"
    for file in /tmp/tap.stderr /tmp/tap.console /tmp/tap.out; do
        echo "--- $file"
        tail -n 40 "$file" || :
    done
    exit 1
}

# await WHAT SECONDS COMMAND...: waits until the command succeeds.
await() {
    what=$1 tenths=$(($2 * 10))
    shift 2
    while [ "$tenths" -gt 0 ]; do
        if "$@" >/dev/null 2>&1; then
            return
        fi
        sleep 0.1
        tenths=$((tenths - 1))
    done
    fail "waited in vain: $what"
}

# An internet in another namespace, and the guest's network: forwarded, and translated by nftables.
ip netns add wide
ip link add wan type veth peer name wan netns wide
ip link set wan up
ip -n wide link set wan up
ip -n wide link set lo up
ip addr add 10.9.0.2/24 dev wan
ip addr add fd09::2/64 dev wan nodad
ip -n wide addr add 10.9.0.1/24 dev wan
ip -n wide addr add fd09::1/64 dev wan nodad
ip -n wide addr add 203.0.113.5/32 dev lo
ip -n wide addr add 2001:db8:5::5/128 dev lo
ip route add 203.0.113.5 via 10.9.0.1
ip route add 2001:db8:5::5 via fd09::1
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
nft 'table inet out { chain post { type nat hook postrouting priority 100; oifname wan masquerade; }; }'
modprobe tun
ip tuntap add mode tap user nobody name qemu
ip link set qemu up
ip addr add 192.168.122.1/24 dev qemu
ip addr add fd00:122::1/64 dev qemu nodad
echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range
ip netns exec wide sysctl -q -w net.ipv4.ping_group_range='0 2147483647'
probe --serve tcp/$port udp/$port >/tmp/tap.host &
host_services=$!
ip netns exec wide probe --serve tcp/$port udp/$port >/tmp/tap.wide &
wide_services=$!
for services in /tmp/tap.host /tmp/tap.wide; do
    await services 60 grep -q serving $services
done
before=$(nft list tables; tc qdisc show; ls /sys/fs/bpf)

mkfifo /tmp/tap.in
: >/tmp/tap.console
chmod 666 /tmp/tap.console
qfence-user exec --name tap --user nobody --monitor --log /tmp/tap.log --log-format json -- \
    qemu-system-x86_64 -accel tcg -nodefaults -no-user-config -display none -no-reboot -m 192 \
    -kernel $guest/vmlinuz -initrd $guest/initramfs.cpio \
    -append 'console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check nokaslr' \
    -netdev tap,id=n0,ifname=qemu,script=no,downscript=no \
    -device virtio-net-pci,netdev=n0,romfile=,mac=02:00:00:00:00:10 \
    -chardev file,id=console,path=/tmp/tap.console -serial chardev:console \
    -chardev stdio,id=control,signal=off -serial chardev:control \
    </tmp/tap.in >/tmp/tap.out 2>/tmp/tap.stderr &
fence=$!
exec 9>/tmp/tap.in
await 'the guest boots' 300 grep -q '^@ready' /tmp/tap.out
echo "the guest has booted: $(cut -d ' ' -f 1 /proc/uptime) s after the machine"

number=0
# ask COMMAND: runs a command in the guest; its output is in /tmp/tap.answer.
ask() {
    number=$((number + 1))
    lines=$(wc -l </tmp/tap.out)
    echo "$number $1" >&9
    await "the guest: $1" 300 grep -q "^@done $number" /tmp/tap.out
    tail -n +$((lines + 1)) /tmp/tap.out | tr -d '\r' >/tmp/tap.answer
}

to() {
    for address; do printf 'tcp/%s/%s udp-connected/%s/%s ping/%s ' $address $port $address $port $address; done
}
host=$(to 192.168.122.1 fd00:122::1 10.9.0.2 fd09::2)
internet=$(to 203.0.113.5 2001:db8:5::5)

# expect WHAT PATTERN COUNT PROBES: this many probes have an ending or error of this pattern, and there are no others.
expect() {
    ask "probe --timeout-ms 5000 $4"
    all=$(grep -c '"ending"' /tmp/tap.answer || :)
    as_expected=$(grep '"ending"' /tmp/tap.answer | grep -c "$2" || :)
    echo "$1: $as_expected of $all"
    if [ "$all" -ne "$3" ] || [ "$as_expected" -ne "$all" ]; then
        cat /tmp/tap.answer
        fail "expected: $3"
    fi
}

ask 'ip addr flush dev eth0; ip -6 route flush dev eth0; ip addr add 192.168.122.10/24 dev eth0;
    ip route add default via 192.168.122.1; ip -6 addr add fd00:122::10/64 dev eth0;
    ip -6 route add default via fd00:122::1'
expect 'in monitor mode the host is reached' '"reached"' 12 "$host"
echo "at the device: $(tc filter show dev qemu ingress | grep -c qfence) filter of traffic control, $(nft list tables | grep -c qfence) table of nftables"
qfence-user set tap --enforce
expect 'in the fence the host is refused' '"ECONNREFUSED"\|"EHOSTUNREACH"\|"EACCES"\|"timeout"\|"sent"\|"failed"' 12 "$host"
expect 'in the fence the internet is reached' '"reached"' 6 "$internet"
await 'refusals are on record' 60 grep -q '"rule":"deny host".*"interface":"qemu"\|"interface":"qemu".*"rule":"deny host"' /tmp/tap.log
echo "refusals on record: $(grep -c '"verdict":"denied"' /tmp/tap.log)"

exec 9>&-
kill "$fence"
await 'the fence ends' 60 sh -c "! kill -0 $fence"
wait "$fence" || :
kill "$host_services" "$wide_services"
after=$(nft list tables; tc qdisc show; ls /sys/fs/bpf)
if [ "$before" != "$after" ]; then
    printf '%s\n--- before\n%s\n' "$after" "$before"
    fail 'the fence left something behind'
fi
ip link del qemu
echo 'a guest with a tap device is fenced in this machine'
