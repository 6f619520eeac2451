#!/bin/sh
# Runs in the machine: a user with a systemd of their own asks it, from a fence, to run something outside, and PID 1 to move
# the process out. Neither gets an answer, and both do with --allow-bus.
#
# This kernel has no Landlock domains for signals, so the way by /proc/PID/root stays open here, and exec warns of it.
set -eu

fail() {
    echo "$1"
    echo '--- what was said'
    cat /tmp/said
    exit 1
}

useradd --create-home alice
loginctl enable-linger alice
uid=$(id -u alice)
for _ in $(seq 600); do
    [ -S "/run/user/$uid/systemd/private" ] && break
    sleep 0.1
done
[ -S "/run/user/$uid/systemd/private" ] || fail 'alice has no systemd'

cat >/tmp/ways <<END
export XDG_RUNTIME_DIR=/run/user/$uid
try() {
    way=\$1
    shift
    if timeout 60 "\$@" >>/tmp/ways.said 2>&1; then
        echo "\$way: done"
    else
        echo "\$way: refused"
    fi
}
try run systemd-run --user true
try scope systemd-run --user --scope grep -q ^0::/user.slice/ /proc/self/cgroup
try attach busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager \
    AttachProcessesToUnit ssau user@$uid.service /app.slice 1 \$\$
grep 0:: /proc/self/cgroup
END
chmod 755 /tmp/ways
touch /tmp/ways.said
chmod 666 /tmp/ways.said

# ways OPTION...: what comes of each way in a fence.
ways() {
    qfence-user exec --name managers --log none --user alice "$@" -- sh /tmp/ways >/tmp/said 2>/tmp/warned
    cat /tmp/warned >>/tmp/said
}

ways --allow-bus --on-leave report
for way in run scope attach; do
    grep -qx "$way: done" /tmp/said || fail "control: $way is refused with --allow-bus"
done
grep -q '^0::/user.slice/' /tmp/said || fail 'control: the process is where it was'

ways
for way in run scope attach; do
    grep -qx "$way: refused" /tmp/said || fail "$way is not refused"
done
grep -qx '0::/qfence/managers' /tmp/said || fail 'the process has left its fence'
grep -q 'no Landlock domains for signals' /tmp/said || fail 'nothing warns that there are other ways'

! qfence-user exec --name managers --log none --user alice --require managers -- true 2>/tmp/said ||
    fail 'a closure that is required and cannot be had is no error'
grep -q -e '--require managers: it is not closed' /tmp/said || fail 'another error'
echo 'managers: no way leads to them that is closed here'
