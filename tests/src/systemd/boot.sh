# Boots systemd as process 1 of the namespaces that this script runs in, on a copy-on-write view of the machine's files.
# It starts D-Bus, logind, and the user manager of USER. Nothing of the machine is changed.
#
# Arguments: an empty directory, the program's directory, the name and the id of the user.
set -e
base=$1 program=$2 user=$3 uid=$4

mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$base"
mkdir "$base/upper" "$base/work" "$base/root"
mount -t overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" overlay "$base/root"
cd "$base/root"

# The machine's parameters, devices and shared memory are out of reach of what is booted.
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf -o mode=700 bpf sys/fs/bpf
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for device in null zero full random urandom tty; do
    : > "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
: > dev/console
mount --bind /dev/null dev/console
mkdir -p "./$program"
mount --bind "$program" "./$program"

# Of the machine's services only these.
units=etc/systemd/system
rm -rf "$units"/*.wants "$units"/*.requires lib/systemd/system/*.target.wants
cat > "$units/tests.target" <<UNIT
[Unit]
Requires=dbus.socket systemd-logind.service user@$uid.service
Wants=systemd-journald.socket
AllowIsolate=yes
UNIT
useradd --root "$PWD" --create-home --uid "$uid" --shell /bin/sh "$user"
rm -rf var/lib/systemd/linger
mkdir -p var/lib/systemd/linger
: > "var/lib/systemd/linger/$user"

mkdir old
pivot_root . old
umount -l /old
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=tests.target --log-target=console
