# Fails while there are fences: without qfence they would stay in force, and nothing could show, change or end them. The
# packages, install.sh and `cargo xtask uninstall` run this before they remove anything. $qfence is the path of qfence-user.
# Where the program cannot be run at all, the files of fences decide. Only root can see them.
if [ "$(id -u)" != 0 ]; then
    echo "qfence is not removed: only root can see whether there are fences" >&2
    exit 1
fi
# The program clears what fences that have ended left.
"$qfence" ps >/dev/null 2>&1 || true
for fence in /run/qfence/*.json /sys/fs/bpf/qfence/* /sys/fs/bpf/qfence-ended/*-replaced; do
    [ -e "$fence" ] || continue
    case $fence in
    *-replaced)
        {
            echo "qfence is not removed: an \`attach\` to an orphaned fence has failed, and the orphan's programs are in force:"
            echo "$fence"
            echo "Attach to the same target again, or end the target: \`$qfence ps\` removes them then"
        } >&2
        exit 1
        ;;
    esac
    {
        echo "qfence is not removed, because there are fences, which nothing could show, change or end any more:"
        echo "$fence"
        "$qfence" ps || true
        echo "End each of them first: sudo $qfence rm NAME"
        echo "This ends the processes in the fence; it only detaches a fence that \`attach\` made. Another version of qfence made"
        echo "those that are incompatible: end them by the commands that are listed with them."
    } >&2
    exit 1
done
