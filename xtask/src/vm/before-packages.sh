# What mmdebstrap runs before the kernel is installed; $1 is the machine's root directory. The
# machine is known: an initramfs of what it needs is unpacked faster under emulation.
set -e
mkdir -p "$1/etc/initramfs-tools/conf.d"
cat >"$1/etc/initramfs-tools/conf.d/qfence" <<END
MODULES=list
COMPRESS=lz4
END
cat >"$1/etc/initramfs-tools/modules" <<END
virtio_pci
virtio_blk
ext4
END
