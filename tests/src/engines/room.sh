# Makes a view of the machine's files with container engines in it, on cgroup v2 alone, and becomes a process 1 that waits.
# Nothing of the machine is changed. The caller has made the namespaces, and is in the cgroup that is the root here.
#
# Arguments: an empty directory, the files of the engines, a directory that is to be seen as it is, the nameserver.
set -e
base=$1 files=$2 program=$3 nameserver=$4

mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$base"
cd "$base"
mkdir upper work root engines-upper engines-work engines
# The files of the engines are below /, and layers of one overlay must not contain each other. So they are a file system
# of their own first.
mount -t overlay -o "lowerdir=$files,upperdir=engines-upper,workdir=engines-work" overlay engines
mount -t overlay -o "lowerdir=engines:/,upperdir=upper,workdir=work" overlay root
cd root

mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf -o mode=700 bpf sys/fs/bpf
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
# The engines make overlays of their own, which cannot be on these two.
for store in containers docker; do
    mkdir -p "var/lib/$store"
    mount -t tmpfs tmpfs "var/lib/$store"
done
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm dev/mqueue dev/net
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t mqueue mqueue dev/mqueue
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for device in null zero full random urandom tty net/tun; do
    [ -e "/dev/$device" ] || continue
    : > "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir -p "./$program"
mount --bind "$program" "./$program"

# Debian's packages bring networks of CNI, whose plugins are not among the files.
rm -f etc/cni/net.d/*
mkdir -p etc/containers
cat > etc/containers/containers.conf <<CONF
[containers]
default_ulimits = []
pids_limit = 0
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "netavark"
CONF
rm -f etc/resolv.conf
echo "nameserver $nameserver" > etc/resolv.conf

mkdir old
pivot_root . old
umount -l /old
ldconfig
mkdir -p /run/lock
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root tini -s -- sleep infinity
