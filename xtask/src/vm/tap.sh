#!/bin/sh
# Runs in the machine: two guests under QEMU, each with two tap devices of an unprivileged user. One device of each guest is
# routed, the other is in a bridge whose network the host serves by DHCP, DNS and router advertisements. The guest `free` has
# no fence, which is the control: it reaches all of the host. The guest `kept` has one: `exec` finds its devices in QEMU's
# arguments. Both run at the same time, so they also show that a neighbour of a fenced guest is left alone.
#
# The guests run by KVM, for which this machine's processor is emulated with AMD's virtualization: an emulation within the
# emulation would take ten times as long. They get a kernel that need not decompress itself, which QEMU starts by its note for
# PVH.
#
# Emulated virtualization can let a guest fail in a way that resets its processor. QEMU then boots the guest again. That is
# printed, with the processor's state, and the guest's visit begins anew, three times at most. If QEMU ends, the test fails.
set -eu
port=8091
# A port of the internet that the host redirects to its own.
redirected=8099
work=/tmp/tap

fail() {
    echo "$1"
    for file in $work/*.ended $work/*.stderr $work/*.console $work/*.said $work/*.resets $work/dnsmasq $work/outcomes; do
        echo "--- $file"
        tail -n 40 "$file" || :
    done
    echo '--- memory, and the last messages of the kernel'
    free -m
    dmesg | tail -n 20
    exit 1
}

# say WHAT: prints it, and for how many seconds the machine has run.
say() {
    echo "[$(cut -d. -f1 /proc/uptime) s] $1"
}

# was_reset: whether the guest $guest, if this is a visit of it, has booted again since the visit began.
boots=
was_reset() {
    [ -n "$boots" ] && [ "$(booted)" -ne "$boots" ]
}
# booted: prints how often the guest $guest has booted.
booted() {
    grep -c '^@ready' $work/$guest.said || :
}

# await WHAT COMMAND...: waits until the command succeeds. The limit, half an hour or more, is for what hangs.
await() {
    awaited=$1
    shift
    for turn in $(seq 1800); do
        if "$@" >/dev/null 2>&1; then
            return
        fi
        for ended in $work/*.ended; do
            if [ -e "$ended" ]; then
                fail "QEMU has ended ($ended: status $(cat "$ended")), before: $awaited"
            fi
        done
        was_reset && return
        if [ $((turn % 60)) -eq 0 ]; then
            say "waiting: $awaited"
        fi
        sleep 1
    done
    fail "waited in vain: $awaited"
}

modprobe kvm_amd
chmod 666 /dev/kvm
# The guests' files, which every user can read.
mkdir -p $work/root/bin $work/root/lib/modules $work/root/proc $work/root/sys $work/root/dev $work/root/tmp $work/root/etc
version=$(uname -r)
# The kernel's header says where its compressed image is (Documentation/arch/x86/boot.rst: setup_sects, payload_offset,
# payload_length). The last four bytes are its size.
perl -e 'undef $/; $_ = <>; my ($sectors) = unpack("x497 C"); my ($offset, $length) = unpack("x584 V V");
    print substr($_, ($sectors + 1) * 512 + $offset, $length - 4)' "/boot/vmlinuz-$version" |
    lz4 -dc >$work/vmlinux
find "/lib/modules/$version" '(' -name 'virtio*.ko' -o -name '*failover.ko' ')' -exec cp '{}' $work/root/lib/modules/ ';'
cp "$(command -v probe)" /bin/busybox $work/root/bin/
for command in cat echo grep insmod ip nslookup poweroff rm sh sleep stty udhcpc; do
    ln -s busybox $work/root/bin/$command
done
cp /opt/qfence/guest-init $work/root/init
cat >$work/root/lease <<'END'
#!/bin/sh
if [ "$1" = bound ]; then
    ip addr add "$ip/24" dev "$interface"
    ip route add default via "$router"
fi
END
chmod 755 $work/root/lease
(cd $work/root && find . | cpio --quiet -o -H newc) >$work/initramfs

# An internet in a namespace of its own. What the guests send there is translated.
ip netns add wide
ip -n wide link set lo up
ip link add wan type veth peer name eth0 netns wide
ip link set wan up
ip -n wide link set eth0 up
ip addr add 10.9.0.2/24 dev wan
ip addr add fd09::2/64 dev wan nodad
ip -n wide addr add 10.9.0.1/24 dev eth0
ip -n wide addr add fd09::1/64 dev eth0 nodad
ip link add virbr0 type bridge
ip link set virbr0 up
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
# network DEVICE NUMBER: gives the host its addresses there.
network() {
    ip addr add 192.168."$2".1/24 dev "$1"
    ip addr add fd00:"$2"::1/64 dev "$1" nodad
    ip addr add fe80::"$2"/64 dev "$1" nodad
}
network virbr0 123
# taps GUEST NUMBER: makes its devices, GUEST0 with the network of this number, and GUEST1 in the bridge.
taps() {
    for tap in "$1"0 "$1"1; do
        ip tuntap add mode tap user nobody name $tap
        ip link set $tap up
    done
    ip link set "$1"1 master virbr0
    network "$1"0 "$2"
    echo 1 >/proc/sys/net/ipv4/conf/"$1"0/route_localnet
}
taps free 121
taps kept 122
nft "table inet out {
    chain pre {
        type nat hook prerouting priority -100;
        iifname { free0, kept0, virbr0 } tcp dport $redirected redirect to :$port;
    }
    chain post { type nat hook postrouting priority 100; oifname wan masquerade; }
}"
probe --serve tcp/$port udp/$port >$work/host &
host_services=$!
ip netns exec wide probe --serve tcp/$port udp/$port >$work/wide &
wide_services=$!
for services in $work/host $work/wide; do
    await "$services" grep -q serving $services
done
dnsmasq --keep-in-foreground --conf-file=/dev/null --pid-file --no-resolv --no-hosts --bind-dynamic --user=root \
    --interface=virbr0 --except-interface=lo --no-ping --dhcp-range=192.168.123.100,192.168.123.199,255.255.255.0,12h \
    --dhcp-range=fd00:123::,ra-only,64 --dhcp-authoritative --enable-ra --ra-param=virbr0,high,10 \
    --dhcp-leasefile=$work/leases --log-facility=$work/dnsmasq --address=/www.example/10.9.0.1 \
    --address=/six.example/fd09::1 &
dnsmasq=$!
await 'dnsmasq serves' grep -q 'router advertisement' $work/dnsmasq
left() {
    nft list tables
    tc qdisc show
    # The directories of qfence stay.
    find /sys/fs/bpf -mindepth 2
}

append='console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check nokaslr cryptomgr.notests'
# boot GUEST NUMBER COMMAND...: runs QEMU by the command. It reads what the guest is to do from a pipe.
boot() {
    name=$work/$1 number=$2 guest=$1
    shift 2
    "$@" qemu-system-x86_64 -accel kvm -cpu host -m 128 -nodefaults -no-user-config -display none \
        -d cpu_reset,guest_errors -D "$name.resets" -kernel $work/vmlinux -initrd $work/initramfs -append "$append" \
        -netdev tap,id=n0,ifname="$guest"0,script=no,downscript=no \
        -device virtio-net-pci,netdev=n0,mac=52:54:00:12:"$number":00,romfile= \
        -netdev tap,id=n1,ifname="$guest"1,script=no,downscript=no \
        -device virtio-net-pci,netdev=n1,mac=52:54:00:12:"$number":01,romfile= \
        -chardev file,id=console,path="$name.console",append=on -serial chardev:console \
        -chardev stdio,id=orders,signal=off -serial chardev:orders \
        <"$name.orders" >>"$name.said" 2>"$name.stderr" 3>&- 4>&- && status=0 || status=$?
    echo $status >"$name.ended"
}
for guest in free kept; do
    mkfifo $work/$guest.orders
    : >$work/$guest.console
    : >$work/$guest.said
    : >$work/$guest.resets
    chmod 666 $work/$guest.orders $work/$guest.console $work/$guest.resets
done
# Open for reading too: so neither side waits for the other to open it, and no end of one QEMU ends the script.
exec 3<>$work/free.orders 4<>$work/kept.orders
before=$(left)
boot kept 22 qfence-user exec --name tap --user nobody --log $work/log --log-format json -- &
kept=$!
# Nothing slows the start of the fence, which has time limits.
await 'the fenced QEMU runs' test -s $work/kept.resets
boot free 21 setpriv --reuid nobody --regid nogroup --clear-groups -- &
free=$!
say 'two guests boot, one of them in a fence'
for guest in free kept; do
    await "the guest $guest boots" grep -q '^@ready' $work/$guest.said
    say "the guest $guest has booted: its kernel ran for $(sed -n 's/^@ready //p' $work/$guest.said)"
done

# order COMMAND: has the guest $guest run a command of one line, which must succeed, and leaves its output in $work/told. Ends
# the visit with $again if the guest was reset.
order() {
    number=$((number + 1))
    said=$(wc -l <$work/$guest.said)
    case $guest in
    free) echo "$number $1" >&3 ;;
    kept) echo "$number $1" >&4 ;;
    esac
    await "the guest $guest: $1" grep -q "^@done $number " $work/$guest.said
    if was_reset; then
        exit $again
    fi
    tail -n +$((said + 1)) $work/$guest.said | tr -d '\r' | grep -v '^@done' >$work/told || :
    grep -q "^@done $number 0" $work/$guest.said || fail "the guest $guest fails: $1"
}

# expect WHAT COUNT PATTERN: so many probes have an outcome of this pattern, and no other has.
expect() {
    cp $work/told $work/outcomes
    as_expected=$(grep -c "$3" $work/outcomes || :)
    say "$guest, $1: $as_expected of $(wc -l <$work/outcomes)"
    if [ "$as_expected" -ne "$2" ] || [ "$(wc -l <$work/outcomes)" -ne "$2" ]; then
        fail "not $2"
    fi
}
# answered WHAT COUNT PATTERN PROBES...: the same of probes that are answered; each waits for a minute.
answered() {
    what=$1 count=$2 pattern=$3
    shift 3
    order "probe --timeout-ms 60000 $*"
    expect "$what" "$count" "$pattern"
}
# silent WHAT COUNT PATTERN PROBES...: the same of probes without an answer. They are made at the same time.
silent() {
    what=$1 count=$2 pattern=$3
    shift 3
    order "n=0; for p in $*; do n=\$((n + 1)); probe --timeout-ms 5000 \$p >/tmp/\$n & done; wait; cat /tmp/*; rm /tmp/*"
    expect "$what" "$count" "$pattern"
}

to() {
    method=$1
    shift
    for address; do echo "$method/$address/$port"; done
}
pings() {
    for address; do echo "ping/$address"; done
}
internet="$(to tcp 10.9.0.1 fd09::1) $(to udp 10.9.0.1 fd09::1) $(pings 10.9.0.1 fd09::1)"

# The lists are split into words on purpose.
# shellcheck disable=SC2086
free_reaches() {
    where=$1
    shift
    answered "$where: it reaches the internet" 6 '"reached"' $internet
    answered "$where: it reaches the host by TCP" $(($# + 1)) '"reached"' $(to tcp "$@") tcp/10.9.0.1/$redirected
    answered "$where: by UDP" $# '"reached"' $(to udp "$@")
    answered "$where: by ping" $# '"reached"' $(pings "$@")
}
# shellcheck disable=SC2086
kept_reaches() {
    where=$1
    shift
    answered "$where: it reaches the internet" 6 '"reached"' $internet
    answered "$where: the host refuses TCP" $# '"ECONNREFUSED"' $(to tcp "$@")
    answered "$where: the host refuses UDP" $# '"EHOSTUNREACH"\|"EACCES"' $(to udp-connected "$@")
    # The socket of a ping is told of no error, and layer 2 answers nothing.
    silent "$where: the host is not pinged, nor reached by its translation" $(($# + 1)) \
        '"sent"\|"timeout"\|"failed"\|"ETIMEDOUT"\|"EHOSTUNREACH"\|"EACCES"' $(pings "$@") tcp/10.9.0.1/$redirected
}

# routed NETWORK: what the guest reaches by its first card.
routed() {
    # The host accepts 127.0.0.1 from a device with route_localnet; the guest's route leads there.
    order 'ip addr del 127.0.0.1/8 dev lo; echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet; ip link set eth0 up'
    order "ip addr add 192.168.$1.10/24 dev eth0; ip addr add fd00:$1::10/64 dev eth0"
    order "ip route add default via 192.168.$1.1; ip -6 route add default via fd00:$1::1 dev eth0"
    order "ip route add 127.0.0.1 via 192.168.$1.1 dev eth0 onlink"
    ${guest}_reaches 'routed' $hosts fe80::"$1"%eth0 127.0.0.1
    order 'ip link set eth0 down; ip addr flush dev eth0'
}
# bridged: what it reaches by its second card.
bridged() {
    order 'ip link set eth1 up; udhcpc -i eth1 -n -q -t 100 -T 3 -s /lease'
    # An advertisement comes within ten seconds.
    order 'until ip -6 route | grep -q "^default via fe80::"; do sleep 1; done; ip addr; ip route; ip -6 route'
    for part in 192.168.123.1 'inet6 fd00:123:' 'default via fe80:'; do
        grep -q "$part" $work/told || fail "by DHCP and router advertisements the guest has no $part: $(cat $work/told)"
    done
    for gateway in 192.168.123.1 fd00:123::1; do
        # It fails, because a name has an address of one family only.
        for name in www six; do
            order "nslookup $name.example $gateway || true"
            grep -q 'Address.*10\.9\.0\.1\|Address.*fd09::1' $work/told || fail "$gateway gives no address of $name"
        done
    done
    say "$guest, bridged: it has addresses by DHCP and router advertisements, and resolves names"
    ${guest}_reaches 'bridged' $hosts fe80::123%eth1
}
# visit GUEST NETWORK: what it reaches by both. It is in a process of its own, which ends with $again if the guest was reset.
again=75
visit() {
    guest=$1
    hosts="192.168.$2.1 fd00:$2::1 192.168.123.1 fd00:123::1 10.9.0.2 fd09::2"
    for attempt in 1 2 3 4; do
        number=$((attempt * 1000))
        {
            boots=$(booted)
            routed "$2"
            bridged
        } &
        wait $! && status=0 || status=$?
        if [ $status -ne $again ]; then
            return $status
        fi
        say "the guest $guest was reset"
        tail -n 5 $work/$guest.console
        tail -n 60 $work/$guest.resets
    done
    fail "the guest $guest was reset too often"
}
visit free 121
visit kept 122

filters=$(for tap in kept0 kept1; do tc filter show dev $tap ingress; done | grep -c qfence || :)
tables=$(nft list tables | grep -c 'inet qfence' || :)
say "filters of traffic control: $filters, tables of nftables: $tables"
if [ "$filters" -ne 2 ] || [ "$tables" -ne 1 ]; then
    fail 'a layer is missing'
fi
await 'a refusal is on record' grep -q '"interface":"kept1".*"rule":"deny host"\|"rule":"deny host".*"interface":"kept1"' \
    $work/log

# The guests switch themselves off.
echo '0 poweroff -f' >&3
echo '0 poweroff -f' >&4
exec 3>&- 4>&-
wait "$free"
wait "$kept"
for guest in free kept; do
    [ "$(cat $work/$guest.ended)" -eq 0 ] || fail "the QEMU of the guest $guest fails"
done
after=$(left)
if [ "$before" != "$after" ]; then
    printf '%s\n--- before\n%s\n' "$after" "$before"
    fail 'the fence left something behind'
fi
kill "$host_services" "$wide_services" "$dnsmasq"
for device in wan free0 free1 kept0 kept1 virbr0; do ip link del $device; done
ip netns del wide
nft 'delete table inet out'
echo 'a guest of QEMU with tap devices is fenced in this machine, and its neighbour is not'
