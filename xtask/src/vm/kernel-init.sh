#!/bin/busybox sh
# The init of an initramfs: mounts the machine's disk, and on it the modules of this kernel, which are on the third disk.
bb=/bin/busybox
$bb mount -t devtmpfs dev /dev
$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys
for module in /modules/*; do
    $bb insmod "$module" 2>/dev/null
done
for try in 1 2 3 4 5 6 7 8 9 10; do
    [ -b /dev/vda ] && [ -b /dev/vdc ] && break
    $bb sleep 1
done
if ! $bb mount -t ext4 -o rw /dev/vda /root || ! $bb mount -t ext4 -o ro /dev/vdc /root/usr/lib/modules; then
    echo 'the disks cannot be mounted; modules that are loaded:'
    $bb cat /proc/modules
    $bb sleep 2
    echo o >/proc/sysrq-trigger
    $bb sleep 60
fi
$bb umount /sys /proc
$bb mount -o move /dev /root/dev
exec $bb switch_root /root /sbin/init
