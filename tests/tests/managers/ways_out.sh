# Tries every way by which a process can ask systemd to take it out of its cgroup, or to run a program elsewhere. Prints a
# line for each: WAY CGROUP, where CGROUP is where the process, or the program, runs afterwards; "-" if no program ran.
#
# Argument: the process id of the user's systemd, by whose root directory sockets are reached.
uid=$(id -u)
run=/run/user/$uid
export XDG_RUNTIME_DIR=$run DBUS_SESSION_BUS_ADDRESS=unix:path=$run/bus
manager=$1
scratch=$(mktemp -d)
mkdir "$scratch/log"

# The cgroup of process $1.
cgroup() { sed -n 's/^0:://p' "/proc/$1/cgroup"; }

# Asks the user's systemd to move process $1 into a new unit.
transient() {
    busctl --user call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager \
        StartTransientUnit 'ssa(sv)a(sa(sv))' "moved-$1.scope" fail 1 PIDs au 1 "$1" 0
}

# Runs a function on a process, and prints where the process is a moment later: systemd moves it after it has answered.
moved() {
    way=$1
    shift
    sleep 1000 &
    pid=$!
    before=$(cgroup $pid)
    if "$@" $pid > "$scratch/log/$way" 2>&1; then
        tries=50
        while [ $tries -gt 0 ] && [ "$(cgroup $pid)" = "$before" ]; do
            sleep 0.1
            tries=$((tries - 1))
        done
    fi
    echo "$way $(cgroup $pid)"
    kill $pid
}

# Prints where a program ran, by the output of a command that starts it.
ran() {
    way=$1
    shift
    echo "$way $("$@" 2> "$scratch/log/$way" || echo -)"
}

attach() {
    busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager \
        AttachProcessesToUnit ssau "user@$uid.service" /app.slice 1 "$1"
}

by_symlink() {
    ln -s $run/bus "$scratch/link"
    DBUS_SESSION_BUS_ADDRESS=unix:path=$scratch/link transient "$1"
}

by_root() { DBUS_SESSION_BUS_ADDRESS=unix:path=/proc/$manager/root$run/bus transient "$1"; }

by_relative_path() { (cd $run && DBUS_SESSION_BUS_ADDRESS=unix:path=bus transient "$1"); }

in_user_namespace() {
    unshare --user --map-root-user --mount sh -c "
        umount $run/bus 2> /dev/null
        busctl --user call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager \
            StartTransientUnit 'ssa(sv)a(sa(sv))' moved-$1.scope fail 1 PIDs au 1 $1 0"
}

# Without a bus, systemctl connects to systemd's own socket.
by_private_socket() {
    mkdir -p ~/.config/systemd/user
    printf '[Service]\nType=oneshot\nExecStart=/bin/sh -c "sed -n s/^0:://p /proc/self/cgroup > %s"\n' \
        "$scratch/ran" > ~/.config/systemd/user/runs.service
    DBUS_SESSION_BUS_ADDRESS=unix:path=/nowhere systemctl --user start runs.service >&2 && cat "$scratch/ran"
}

moved transient-unit transient
ran run systemd-run --user --quiet --wait --pipe sed -n 's/^0:://p' /proc/self/cgroup
ran scope systemd-run --user --quiet --scope sed -n 's/^0:://p' /proc/self/cgroup
moved attach attach
moved symlink by_symlink
moved proc-root by_root
moved user-namespace in_user_namespace
ran private-socket by_private_socket
moved relative-path by_relative_path
for way in "$scratch"/log/*; do
    sed "s,^,${way##*/}: ," "$way" >&2
done
