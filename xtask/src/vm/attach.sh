#!/bin/sh
# Runs in the machine: a fence is attached to a process that runs. Its TCP connection to the host ends, its UDP sockets are
# refused at once, whether they are connected or not, and its sockets to the internet go on. Then a guest of libvirt, which is
# no more than a process in a cgroup with the name of a guest's: it gets no tap device from outside, if the kernel runs programs
# of the security module BPF.
set -eu
# Not the ports of other tests, whose services are still there.
tcp=8095
udp=8096

fail() {
    echo "$1"
    for file in /tmp/attach.*; do
        echo "--- $file"
        tail -n 40 "$file" || :
    done
    exit 1
}

# await WHAT COMMAND...: waits until the command succeeds.
await() {
    what=$1
    shift
    for _ in $(seq 1800); do
        if "$@" >/dev/null 2>&1; then
            return
        fi
        sleep 0.1
    done
    fail "waited in vain: $what"
}

ip netns add away
ip link add here0 type veth peer name eth0 netns away
ip link set here0 up
ip -n away link set eth0 up
ip -n away link set lo up
ip addr add 198.18.0.2/24 dev here0
ip -n away addr add 198.18.0.1/24 dev eth0
for address in 2 1; do
    case $address in
    1) within='ip netns exec away' ;;
    *) within= ;;
    esac
    # shellcheck disable=SC2086
    $within probe --serve echo-tcp/$tcp echo-udp/$udp >/tmp/attach.serve$address &
    await 'the servers listen' grep -q serving /tmp/attach.serve$address
done

# A process with sockets of each kind to the host and to the internet, in a cgroup of its own.
place=/sys/fs/cgroup/attached
mkdir $place
mkfifo /tmp/attach-lines
set --
for address in 198.18.0.2 198.18.0.1; do
    set -- "$@" tcp/$address/$tcp udp/$address/$udp sendto/$address/$udp
done
# shellcheck disable=SC2016
sh -c 'echo $$ >"$0"/cgroup.procs; exec probe --hold "$@"' $place "$@" </tmp/attach-lines >/tmp/attach.held &
held=$!
exec 3>/tmp/attach-lines
await 'the sockets are there' grep -q holding /tmp/attach.held

# ask: what each socket does now, in /tmp/attach.now.
asked=0
ask() {
    asked=$((asked + 1))
    : >/tmp/attach.now
    before=$(wc -l </tmp/attach.held)
    echo >&3
    await 'the process answers' sh -c "[ \$(grep -c asked /tmp/attach.held) -ge $asked ]"
    tail -n +$((before + 1)) /tmp/attach.held >/tmp/attach.now
}
# The machine is emulated and slow: the first answers may be late.
all_stand() {
    ask
    [ "$(grep -c stands /tmp/attach.now)" -eq 6 ]
}
await 'control: all sockets work' all_stand
echo 'without a fence all six sockets work'

before=$(wc -l </tmp/attach.held)
qfence-user attach --cgroup attached --name attached --log json:/tmp/attach.record >/tmp/attach.said 2>&1 &
supervisor=$!
await 'the fence is in force' grep -q 'the fence attached is in force' /tmp/attach.said
await 'the connection to the host ends' grep -q "^tcp/198.18.0.2/$tcp ended ECONNABORTED" /tmp/attach.held
others_stand() {
    ask
    [ "$(grep -c stands /tmp/attach.now)" -eq 3 ]
}
await 'the sockets to the internet stand' others_stand
for kind in tcp udp sendto; do
    grep -q "^$kind/198.18.0.1/.* stands" /tmp/attach.now || fail "$kind to the internet does not stand"
done
grep -q "^sendto/198.18.0.2/$udp refused" /tmp/attach.now || fail 'an old unconnected socket is not refused'
# From the moment on, and not only now.
tail -n +$((before + 1)) /tmp/attach.held >/tmp/attach.since
! grep '/198.18.0.2/.* stands' /tmp/attach.since || fail 'a socket still reaches the host'
for hook in sendmsg4 egress; do
    await "a refusal at $hook is on record" grep -q "\"hook\":\"$hook\"" /tmp/attach.record
done
echo 'attached: the connection ended, UDP is refused at once, and the internet stands'

# A connection that the process makes now.
kill $held
wait $held || :
await 'qfence ends when its target does' sh -c "rmdir $place; ! kill -0 $supervisor"
[ ! -e /sys/fs/bpf/qfence/attached ] || fail 'pins are left'

# A guest of libvirt: QEMU has a lock on the file with its number.
place=/sys/fs/cgroup/machine/qemu-1-vm.libvirt-qemu
mkdir -p $place /run/libvirt/qemu
echo '<domstatus/>' >/run/libvirt/qemu/vm.xml
: >/run/libvirt/qemu/vm.pid
cat >/tmp/attach-qemu <<'END'
use Fcntl;
$^F = 255;
open(my $file, "+<", "/run/libvirt/qemu/vm.pid") or die;
# struct flock: type, whence, start, length, process
my $lock = pack("s s x4 q q l x4", F_WRLCK, 0, 0, 0, 0);
fcntl($file, F_SETLK, $lock) or die "lock: $!\n";
syswrite($file, "$$\n");
open(my $procs, ">", "$ARGV[0]/cgroup.procs") or die;
syswrite($procs, "$$\n") or die;
close($procs);
exec "probe", "--take", "/tmp/attach-monitor" or die;
END
rm -f /tmp/attach-monitor
perl /tmp/attach-qemu $place >/tmp/attach.taken 2>&1 &
guest=$!
await 'the guest listens' grep -q listening /tmp/attach.taken
qfence-user attach --domain vm --name vm --detach >/tmp/attach.said 2>&1 || fail 'the guest is not fenced'

# The guest's macvtap device is another one: its driver gets its number only now, after the fence.
lsmod | grep -q '^macvtap' && fail 'control: the driver is there already'
ip link add link here0 name mvt0 type macvtap
macvtap=/dev/tap$(cat /sys/class/net/mvt0/ifindex)
await 'the macvtap device has a node' [ -c "$macvtap" ]

# give FILE: hands it to the guest; the answer is in /tmp/attach.now.
given=1
give() {
    given=$((given + 1))
    probe --give /tmp/attach-monitor "$1" || fail "cannot hand $1 over"
    await 'the guest answers' sh -c "[ \$(wc -l </tmp/attach.taken) -ge $given ]"
    sed -n "${given}p" /tmp/attach.taken >/tmp/attach.now
}
if grep -q 'will NOT be FENCED' /tmp/attach.said; then
    qfence-user ps --json | grep -q '"hotplug"' || fail 'ps does not show that tap devices can be added'
    give /dev/net/tun
    grep -q taken /tmp/attach.now || fail 'control: a device is not handed over'
    echo 'this kernel runs no programs of the security module BPF, and qfence says so'
else
    [ -e /sys/fs/bpf/qfence/vm/file_receive ] || fail 'the link is not pinned'
    give /dev/net/tun
    grep -q nothing /tmp/attach.now || fail 'the guest got a tap device'
    give "$macvtap"
    grep -q nothing /tmp/attach.now || fail 'the guest got a macvtap device'
    give /dev/null
    grep -q taken /tmp/attach.now || fail 'the guest does not get /dev/null'
    qfence-user logs vm --json >/tmp/attach.logged
    grep '"hook":"file_receive"' /tmp/attach.logged | grep '"device":"/dev/net/tun"' |
        grep -q '"rule":"deny-device"' || fail 'the refusal is not on record'
    qfence-user ps >/tmp/attach.said
    ! grep -q UNFENCED /tmp/attach.said || fail 'the fence is said to be none'
    qfence-user rm vm
    give /dev/net/tun
    grep -q taken /tmp/attach.now || fail 'control: a device is not handed over without a fence'
    qfence-user attach --domain vm --name vm --detach --allow-unfenced-net >/tmp/attach.said 2>&1 || fail 'not fenced'
    [ ! -e /sys/fs/bpf/qfence/vm/file_receive ] || fail 'the hook is there though it is not wanted'
    give /dev/net/tun
    grep -q taken /tmp/attach.now || fail 'control: a device is not handed over where that is allowed'
    echo 'a tap device is not handed to a guest in a fence, and it is without'
fi
qfence-user rm vm
kill $guest
wait $guest || :
rm -r /run/libvirt/qemu
rmdir $place
left=$(qfence-user ps --json; find /sys/fs/bpf/qfence -mindepth 1 -name vm -o -mindepth 1 -name attached 2>/dev/null || :)
[ "$left" = '[]' ] || fail "left behind: $left"
echo 'attach works in this machine'
