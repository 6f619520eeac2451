#!/bin/sh
# The guest's init: brings the network up, then does what the test says on the second serial line.
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in failover net_failover virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev \
    virtio_pci virtio_net; do
    insmod "/lib/modules/$module.ko" || echo "init: no module $module"
done

# Addresses are usable at once, and only those given here.
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
echo 0 >/proc/sys/net/ipv6/conf/default/accept_ra
echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_ra
echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
ip -6 addr add fec0::15/64 dev eth0
ip -6 route add default via fec0::2 dev eth0
echo nameserver 10.0.2.3 >/etc/resolv.conf
ip addr

stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
echo @ready >&3
# A line is "NUMBER COMMAND". A test that is gone says nothing for long: then the machine ends too.
while read -r -t 300 number command <&3; do
    eval "$command" </dev/null >&3 2>&1
    echo "@status $?
@done $number" >&3
done
poweroff -f
