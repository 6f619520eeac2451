# Fences that have ended are cleared first.
qfence-user ps >/dev/null 2>&1 || true
for fence in /run/qfence/*.json /sys/fs/bpf/qfence/*; do
    [ -e "$fence" ] || continue
    echo "qfence: not removed, because there are fences, which would stay in force and could not be changed any more:" >&2
    qfence-user ps >&2 || true
    echo "qfence: end them by \`qfence-user rm NAME\` first" >&2
    exit 1
done
