#!/bin/sh
# Runs in the machine: a user with a systemd of their own asks it, from a fence, to run something outside, and PID 1 to move
# the process out, by every way to their sockets. None is left, and all are there outside and with --allow-bus.
#
# This kernel has no Landlock domains for signals, so masks leave the way by /proc/PID/root open. It has the security module
# BPF, whose programs refuse the sockets themselves.
set -eu

fail() {
    echo "$1"
    echo '--- what was said'
    cat /tmp/said
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

: >/tmp/said
# The users' buses, as the package dbus-user-session has them.
units=/etc/systemd/user
mkdir -p $units/sockets.target.wants
cat >$units/dbus.socket <<END
[Socket]
ListenStream=%t/bus
END
cat >$units/dbus.service <<END
[Unit]
Requires=dbus.socket
[Service]
ExecStart=/usr/bin/dbus-daemon --session --address=systemd: --nofork --nopidfile --systemd-activation --syslog-only
END
ln -s $units/dbus.socket $units/sockets.target.wants/

useradd --create-home alice
loginctl enable-linger alice
uid=$(id -u alice)
runtime=/run/user/$uid
await 'alice has a systemd' test -S "$runtime/systemd/private"
await 'alice has a bus' test -S "$runtime/bus"
manager=$(pgrep -u alice -x systemd)

# Sockets that the system's manager makes: of a container engine, and of other types and names.
cat >/etc/systemd/system/engine.socket <<END
[Socket]
ListenStream=/run/docker.sock
ListenStream=@engine
ListenSequentialPacket=/run/engine-packets
ListenDatagram=/run/engine-datagrams
ListenDatagram=@engine-datagrams
SocketMode=0666
END
cat >/etc/systemd/system/engine.service <<END
[Service]
ExecStart=sleep infinity
END
systemctl daemon-reload
systemctl start engine.socket

# socket TYPE NAME: connects to a socket, or sends a datagram to it; `listen` makes one and waits.
cat >/tmp/socket <<'END'
use Socket;
my ($type, $name, $listens) = @ARGV;
my %types = (stream => SOCK_STREAM, packets => SOCK_SEQPACKET, datagrams => SOCK_DGRAM);
$name =~ s/^@/\0/;
socket(my $socket, AF_UNIX, $types{$type}, 0) or die "socket: $!\n";
my $address = $name =~ /^\0/ ? pack("S a*", AF_UNIX, $name) : pack_sockaddr_un($name);
if ($listens) {
    bind($socket, $address) or die "bind: $!\n";
    $type eq "datagrams" or listen($socket, 9) or die "listen: $!\n";
    sleep;
}
if ($type eq "datagrams") {
    defined(send($socket, "hi", 0, $address)) or die "send: $!\n";
} else {
    connect($socket, $address) or die "connect: $!\n";
}
END

# A display and others of the user's, made by programs of a session.
others="stream:/tmp/.X11-unix/X0 stream:@/tmp/.X11-unix/X0 stream:$runtime/agent packets:/tmp/packets datagrams:/tmp/datagrams"
# A server that runs commands for its clients, by its name, and one that runs in a unit of managers.
servers="stream:/tmp/tmux-$uid/default stream:@/tmp/dbus-abc"
mkdir -p /tmp/.X11-unix "/tmp/tmux-$uid"
chown alice /tmp/.X11-unix "/tmp/tmux-$uid"
as_alice() {
    runuser -u alice -- env XDG_RUNTIME_DIR="$runtime" "$@"
}
for one in $others $servers; do
    as_alice systemd-run --user --quiet perl /tmp/socket "${one%%:*}" "${one#*:}" listen
done
as_alice systemd-run --user --quiet --unit=podman.service perl /tmp/socket stream "/home/alice/podman.sock" listen
servers="$servers stream:/home/alice/podman.sock"
for one in $others $servers; do
    await "$one listens" as_alice perl /tmp/socket "${one%%:*}" "${one#*:}"
done

# What is below this leads around every mask.
around=/proc/$manager/root
engine="stream:/run/docker.sock stream:@engine packets:/run/engine-packets datagrams:/run/engine-datagrams datagrams:@engine-datagrams"
harmless='datagrams:/run/systemd/journal/dev-log datagrams:/run/systemd/journal/socket stream:/run/systemd/journal/stdout'

cat >/tmp/ways <<END
export XDG_RUNTIME_DIR=$runtime
unset DBUS_SESSION_BUS_ADDRESS
try() {
    way=\$1
    shift
    if timeout 60 "\$@" >>/tmp/ways.said 2>&1; then
        echo "\$way: done"
    else
        echo "\$way: refused"
    fi
}
# asks WAY OPTION...: asks the user's manager to move the asking process.
asks() {
    way=\$1
    shift
    try "\$way" sh -c 'busctl "\$@" call org.freedesktop.systemd1 /org/freedesktop/systemd1 \
        org.freedesktop.systemd1.Manager StartTransientUnit "ssa(sv)a(sa(sv))" "x\$\$.scope" fail 1 PIDs au 1 \$\$ 0' \
        sh "\$@"
}
try run systemd-run --user true
try scope systemd-run --user --scope grep -q ^0::/user.slice/ /proc/self/cgroup
asks ask --user
ln -sf $runtime/bus /tmp/link.\$\$
asks symlink --address=unix:path=/tmp/link.\$\$
asks proc-root --address=unix:path=$around$runtime/bus
try userns unshare -Urm sh -c 'umount $runtime/bus; exec busctl --user list'
try private perl /tmp/socket stream $runtime/systemd/private
try private-proc-root perl /tmp/socket stream $around$runtime/systemd/private
try system-bus-proc-root busctl --address=unix:path=$around/run/dbus/system_bus_socket list
for one in $engine; do
    try "\$one" perl /tmp/socket "\${one%%:*}" "\${one#*:}"
    case \$one in
        *:/*) try "\${one%%:*}:proc-root\${one#*:}" perl /tmp/socket "\${one%%:*}" "$around\${one#*:}" ;;
    esac
done
for one in $servers; do
    case \$one in
        *:/*) try "\$one" perl /tmp/socket "\${one%%:*}" "$around\${one#*:}" ;;
        *) try "\$one" perl /tmp/socket "\${one%%:*}" "\${one#*:}" ;;
    esac
done
for one in $others $harmless; do
    try "other \$one" perl /tmp/socket "\${one%%:*}" "\${one#*:}"
done
try 'other own' perl -MSocket -e 'socketpair(my \$one, my \$two, AF_UNIX, SOCK_DGRAM, 0) or die; send(\$one, "hi", 0) or die'
try 'other logger' logger --id=\$\$ 'from the ways'
# Last: it moves this process.
try attach busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager \
    AttachProcessesToUnit ssau user@$uid.service /init.scope 1 \$\$
grep 0:: /proc/self/cgroup
END
chmod 755 /tmp/ways /tmp/socket
touch /tmp/ways.said
chmod 666 /tmp/ways.said

# ways OPTION...: what comes of each way in a fence.
ways() {
    qfence-user exec --name managers --log none --user alice "$@" -- sh /tmp/ways >/tmp/said 2>/tmp/warned ||
        { cat /tmp/warned >>/tmp/said; fail 'the command fails'; }
    cat /tmp/warned >>/tmp/said
}

# all OUTCOME: fails unless all ways have this outcome, and all other sockets are reached.
all() {
    ! grep -E '^[^ ]+: (done|refused)$' /tmp/said | grep -v ": $1\$" || fail "these are not $1"
    ! grep -E '^other ' /tmp/said | grep -v ': done$' || fail 'these are no managers, and not reached'
    [ "$(grep -cE ': (done|refused)$' /tmp/said)" -eq "$number" ] || fail 'some ways were not tried'
}

as_alice sh /tmp/ways >/tmp/said 2>&1
number=$(grep -cE ': (done|refused)$' /tmp/said)
all 'done'
grep -q '^0::/user.slice/' /tmp/said || fail 'control: the process is where it was'
echo "outside of a fence there are $number ways to sockets, and all are open"

ways --allow-bus --on-leave report
all 'done'
grep -q '^0::/user.slice/' /tmp/said || fail 'control: the process is where it was, with --allow-bus'
echo 'with --allow-bus all are open in a fence'

ways --require managers
all refused
# The fence is beneath the cgroup of the machine's unit.
grep -qx '0::/.*qfence/managers' /tmp/said || fail 'the process has left its fence'
! grep -q 'systemd and container engines' /tmp/said || fail 'it warns of ways that are closed'
grep -q 'no Landlock domains for signals' /tmp/said || fail 'nothing warns of containers'
echo 'in a fence no way leads to a manager, and the others are open'

# The manager makes its private socket anew, as another file.
as_alice systemctl --user daemon-reexec
await 'it is there again' as_alice perl /tmp/socket stream "$runtime/systemd/private"
ways
all refused
echo 'nor after the manager has made its sockets anew'

qfence-user exec --name managers --log none --user alice --allow-unix /run/docker.sock -- \
    perl /tmp/socket stream /run/docker.sock >/tmp/said 2>&1 || fail 'a socket that is allowed is refused'
! qfence-user exec --name managers --log json:/tmp/record --user alice --allow-unix /run/docker.sock -- \
    perl /tmp/socket stream "$around$runtime/bus" >/tmp/said 2>&1 || fail 'another socket is allowed too'
grep -q 'Permission denied' /tmp/said || fail 'another error'
cp /tmp/record /tmp/said
grep -q '"hook":"unix_stream_connect"' /tmp/said || fail 'the refusal is not on the record'
grep -q '"rule":"deny-manager"' /tmp/said || fail 'the refusal has another rule'
grep -q '"socket":"stream"' /tmp/said || fail 'the refusal has another type'

# The caller's cgroup decides: a socket that was made outside is refused as well.
cat >/tmp/passed <<'END'
use Socket;
socket(my $socket, AF_UNIX, SOCK_STREAM, 0) or die;
open(STDIN, "<&", $socket) or die;
exec @ARGV;
END
cat >/tmp/use <<'END'
use Socket;
connect(STDIN, pack_sockaddr_un($ARGV[0])) or die "connect: $!\n";
END
chmod 755 /tmp/passed /tmp/use
perl /tmp/passed perl /tmp/use "$runtime/bus" >/tmp/said 2>&1 || fail 'control: a passed socket does not connect'
! perl /tmp/passed qfence-user exec --name managers --log none --user alice -- \
    perl /tmp/use "$around$runtime/bus" >/tmp/said 2>&1 || fail 'a socket that was made outside connects'

# The links are pinned and checked as the others.
qfence-user exec --name managers --log none --user alice -- sleep 600 >/tmp/said 2>&1 &
fence=$!
pins=/sys/fs/bpf/qfence/managers
await 'the command runs' pgrep -u alice -x sleep
[ -e $pins/unix_stream_connect ] && [ -e $pins/unix_may_send ] || fail 'the links are not pinned'
rm $pins/unix_may_send
await 'the damage is reported' grep -q 'the pin of its link for unix_may_send was removed' /tmp/said
! grep -q 'detached' /tmp/said || fail 'a program is said to be detached'
pkill -u alice -x sleep
wait $fence || :
[ ! -e $pins ] || fail 'pins are left'

# Fences that need no closure have no such programs.
for options in '--user alice --allow-bus' '--user root'; do
    # The options are words.
    # shellcheck disable=SC2086
    qfence-user exec --name managers --log none $options -- ls $pins >/tmp/said 2>&1 &
    wait $! || :
    ! grep -q unix_ /tmp/said || fail "the programs are attached with $options"
done

qfence-user doctor >/tmp/said || fail 'doctor fails'
grep -q 'security module BPF' /tmp/said || fail 'doctor does not show what closes managers'
echo 'managers: no way leads to them'
