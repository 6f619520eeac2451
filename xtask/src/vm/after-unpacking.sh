# mmdebstrap runs this, followed by after-packages.sh, when packages are unpacked that nobody installs; $1 is the machine's
# root directory. The scripts of the packages cannot run here, so this does what the tests need of their work.
set -e
: "${1:?}"
cp "$1/usr/share/base-passwd/passwd.master" "$1/etc/passwd"
cp "$1/usr/share/base-passwd/group.master" "$1/etc/group"
cp "$1/usr/share/libc-bin/nsswitch.conf" "$1/etc/nsswitch.conf"
echo 127.0.0.1 localhost >"$1/etc/hosts"
ln -s mawk "$1/usr/bin/awk"
mkdir "$1/opt" "$1/mnt"
for below in run lock; do
    rm -d "$1/var/$below"
done
ln -s /run "$1/var/run"
ln -s /run/lock "$1/var/lock"
# The kernel's modules are mounted there.
mkdir "$1/usr/lib/modules"
# The users of the system's services.
systemd-sysusers --root="$1"
# With an identity of its own, and nothing to update, the machine's boot is not its first one, which would take longer.
tr -d - </proc/sys/kernel/random/uuid >"$1/etc/machine-id"
touch "$1/etc/.updated" "$1/var/.updated"
# chroot ROOT PROGRAM ARGUMENTS...: this machine's program, which can change another root.
chroot() {
    root=$1 program=$2
    shift 2
    "$program" --root="$root" "$@"
}
