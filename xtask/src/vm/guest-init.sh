#!/bin/busybox sh
# The init of the guest in the machine: loads the driver of its network cards, then does what the test says on the second
# serial line. A line is a number and a command; what it prints ends with its number and status.
export PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
for module in failover net_failover virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_net; do
    insmod "/lib/modules/$module.ko" || echo "init: no module $module"
done
# Addresses are usable at once.
echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad
for card in eth0 eth1; do
    echo 0 >/proc/sys/net/ipv6/conf/$card/accept_dad
done
echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range
ip link set lo up
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
# Orders to a guest that was reset are not for this one.
while read -r -t 1 order <&3; do
    echo "init: order ignored: $order"
done
read -r up rest </proc/uptime
# A reset can end a line too early.
printf '\n@ready %s seconds\n' "$up" >&3
while read -r number command <&3; do
    eval "$command" </dev/null >&3 2>&1
    echo "@done $number $?" >&3
done
echo "init: no more orders, status $?"
poweroff -f
