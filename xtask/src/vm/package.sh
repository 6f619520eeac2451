#!/bin/sh
# Runs in the machine, which has neither a compiler nor a network: the Debian package is installed by apt, used as a user does,
# upgraded under a fence, and purged. Its removal is refused while there is a fence. Nothing of it is left.
set -eu
# Not the programs that came with the tests.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH DEBIAN_FRONTEND=noninteractive
probe=/opt/qfence/bin/probe
package=/opt/qfence/qfence.deb
work=/tmp/package
# Not the port of other tests.
port=8092
mkdir -p $work
# Its image has no manual pages and no documents: dpkg leaves them out.
rm -f /etc/dpkg/dpkg.cfg.d/99mmdebstrap

fail() {
    echo "$1"
    for file in $work/*.out; do
        echo "--- $file"
        tail -n 40 "$file" || :
    done
    exit 1
}

# say WHAT: prints it, and for how many seconds the machine has run.
say() {
    echo "[$(cut -d. -f1 /proc/uptime) s] $1"
}

# await WHAT COMMAND...: waits until the command succeeds.
await() {
    awaited=$1
    shift
    for _ in $(seq 1200); do
        if "$@" >/dev/null 2>&1; then
            return
        fi
        sleep 0.1
    done
    fail "waited in vain: $awaited"
}

# Everything on the disk, and what programs make in memory, but for what apt, dpkg and man write about any package.
files() {
    find / -xdev -path /tmp -prune -o -path /var/log -prune -o -path /var/cache -prune -o -path /var/lib/apt -prune \
        -o -path '/var/lib/dpkg/*-old' -prune -o -print
    find /run /sys/fs/bpf /sys/fs/cgroup '(' -name qfence -o -name 'qfence[-.@]*' ')' ! -name 'qfence-vm.service'
}

files | sort >$work/before
apt-get install --yes $package >$work/install.out 2>&1 || fail 'apt does not install the package'
say "installed: $(dpkg-query --show --showformat='${Package} ${Version}, ${Installed-Size} kB' qfence)"
dpkg --verify qfence >$work/verify.out
if [ -s $work/verify.out ]; then
    fail 'the files are not those of the package'
fi
if ldd /usr/bin/qfence-user /usr/bin/qfence-verify | grep -q 'not found'; then
    fail 'a library is missing'
fi
qfence --version >$work/version.out || fail 'it does not run'
say "$(head -n 1 $work/version.out)"
qfence-user doctor >$work/doctor.out || fail 'doctor finds a fault'
grep 'as packaged\|as installed\|manifest' $work/doctor.out || :
systemctl cat qfence@x.service >$work/unit.out 2>&1 || fail 'systemd does not know the unit'

for page in qfence 'qfence-policy(5)' qfence-user-exec; do
    MANWIDTH=80 man "$page" >$work/page.out 2>$work/warnings.out || fail "no page $page"
    if [ -s $work/warnings.out ] || ! grep -q '^NAME' $work/page.out; then
        fail "the page $page"
    fi
done
grep -q -- '--die-with-supervisor' $work/page.out || fail 'an option is missing in the page'
say "man qfence-user-exec: $(wc -l <$work/page.out) lines"

# A bash at a terminal. What it shows is in the file.
mkfifo $work/keys
TERM=xterm HISTFILE='' script --quiet --flush --command \
    'bash --noprofile --rcfile /usr/share/bash-completion/bash_completion -i' $work/screen.out \
    <$work/keys >/dev/null 2>&1 &
bash=$!
exec 3>$work/keys
# complete KEYS TEXT: after these keys and Tab the line has this text.
complete() {
    printf '%s\t' "$1" >&3
    await "Tab after $1" grep -qF -- "$2" $work/screen.out
    # Deletes the line, and begins another.
    printf '\025\n' >&3
}
complete 'qfence-user expl' 'qfence-user explain '
complete 'qfence exec --die' 'qfence exec --die-with-supervisor'
complete 'qfence-user exec --prof' 'qfence-user exec --profile'
printf 'exit\n' >&3
exec 3>&-
wait $bash || :
say 'bash completes verbs and options'

$probe --serve tcp/$port >$work/host.out &
services=$!
await 'services' grep -q serving $work/host.out
$probe tcp/127.0.0.1/$port >$work/outcomes.out
grep -q '"reached"' $work/outcomes.out || fail 'without a fence the host is not reached'
# A guest without a disk, whose firmware asks the host for a page. First it is only watched, which is the control.
for outcome in would-deny denied; do
    watched=
    if [ $outcome = would-deny ]; then
        watched=--monitor
    fi
    qfence exec --name guest --user nobody $watched -- qemu-system-x86_64 -accel tcg -m 64 -display none -nodefaults \
        -nic user,model=virtio-net-pci,bootfile=http://10.0.2.2:$port/x -boot n >$work/guest.out 2>&1 &
    guest=$!
    logged() {
        qfence logs guest 2>/dev/null | grep " $outcome tcp 127.0.0.1:$port (dialled 10.0.2.2:$port) connect4 "
    }
    await 'the guest asks the host' logged
    logged
    qfence rm guest
    wait $guest || :
done
say 'a fenced guest does not reach the host'

# refused: in the fence, the host is not reached.
refused() {
    before=$(wc -l <$work/fenced.out)
    echo x >&4
    await 'an attempt in the fence' eval "[ \"\$(wc -l <$work/fenced.out)\" -gt $before ]"
    if grep -q '"reached"' $work/fenced.out; then
        fail 'in the fence the host is reached'
    fi
}
mkfifo $work/turns
qfence exec --name kept --user nobody -- sh -c "while read -r x; do $probe tcp/127.0.0.1/$port; done" \
    <$work/turns >$work/fenced.out 2>$work/supervisor.out &
exec 4>$work/turns
refused
say 'a fenced command does not reach the host'

for verb in remove purge; do
    if apt-get $verb --yes qfence >$work/removal.out 2>&1; then
        fail "apt-get $verb removes the package of a running fence"
    fi
    for words in 'qfence is not removed' kept '/usr/bin/qfence-user rm NAME'; do
        grep -q "$words" $work/removal.out || fail "apt-get $verb does not say: $words"
    done
done
dpkg --verify qfence
dpkg-query --show --showformat='${Status}\n' qfence | grep -q ' installed$' || fail 'the package is not installed any more'
refused
say 'its removal is refused while there is a fence'
grep -A 4 'qfence is not removed' $work/removal.out

# The same package as a newer version.
dpkg-deb --raw-extract $package $work/newer
sed -i 's/^Version: .*/&+newer/' $work/newer/DEBIAN/control
dpkg-deb -Znone --root-owner-group --build $work/newer $work/newer.deb >/dev/null
rm -r $work/newer
supervisor=$(qfence-user ps --json | tr ',' '\n' | sed -n 's/^ *"supervisor": *\([0-9]*\).*/\1/p')
apt-get install --yes $work/newer.deb >$work/upgrade.out 2>&1 || fail 'apt does not upgrade the package'
case $(readlink "/proc/$supervisor/exe") in
    '/usr/bin/qfence-user (deleted)') ;;
    *) fail 'the supervisor is not the old program' ;;
esac
refused
qfence-user ps >$work/ps.out
grep -q '^ *kept *running' $work/ps.out || fail 'the new program does not know the fence'
qfence-user set kept --allow tcp:127.0.0.1:$port
echo x >&4
await 'the rule of the new program' grep -q '"reached"' $work/fenced.out
say "upgraded to $(dpkg-query --show --showformat='${Version}' qfence) under the fence"
qfence-user logs kept >$work/logs.out 2>&1
[ "$(grep -c 'rule deny host' $work/logs.out)" -ge 1 ] || fail 'the attempts are not on record'
qfence-user rm kept 2>$work/rm.out || fail 'the new program does not remove the fence'
exec 4>&-
kill $services

apt-get purge --yes qfence >$work/purge.out 2>&1 || fail 'apt does not purge the package'
files | sort >$work/after
if ! diff $work/before $work/after >$work/left.out; then
    fail 'the package left something behind'
fi
say 'purged, and nothing is left'
