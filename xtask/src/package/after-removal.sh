# Removes what qfence made while it ran. Without fences nothing of it has any value. Fences of a qfence that is installed
# elsewhere keep it.
rmdir /sys/fs/bpf/qfence-ended/* /sys/fs/bpf/qfence-ended /sys/fs/bpf/qfence 2>/dev/null || true
if [ ! -e /sys/fs/bpf/qfence ]; then
    rm -rf /run/qfence /run/qfence.notify
    # What fences with network devices left that were ended by hand.
    rm -rf /sys/fs/bpf/qfence-local-in
    for table in qfence qfence-stand-in; do
        nft delete table inet "$table" 2>/dev/null || true
    done
fi
# The parent of the fences' cgroups.
while read -r device mount type options; do
    if [ "$type" = cgroup2 ]; then
        rmdir "$mount/qfence" 2>/dev/null || true
    fi
done </proc/mounts
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
