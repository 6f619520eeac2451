# mmdebstrap runs this before the kernel is installed; $1 is the machine's root directory. The machine's devices are
# known: an initramfs with only their modules is unpacked faster under emulation.
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
