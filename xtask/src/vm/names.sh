#!/bin/sh
# Runs in the machine: a fence with a rule by name. Queries are led to its resolver, by UDP and TCP, from connected and
# unconnected sockets, and what was looked up is reached. The controls come first.
set -eu
port=8080
rule=tcp:www.example.org:$port
fence="qfence-user exec --name names --user nobody --profile locked --allow $rule --log /tmp/lookups --log-format json --"

# An internet in another namespace, with a server that has an address of each family.
ip netns add web
ip link add web0 type veth peer name web1 netns web
ip addr add 198.51.100.10/24 dev web0
ip addr add 2001:db8:2::10/64 dev web0 nodad
ip link set web0 up
ip -n web addr add 198.51.100.1/24 dev web1
ip -n web addr add 2001:db8:2::1/64 dev web1 nodad
ip -n web link set web1 up
ip -n web link set lo up
ip netns exec web probe --serve tcp/$port >/tmp/web &
timeout 60 sh -c 'until grep -q serving /tmp/web; do sleep 0.1; done'

# The nameserver of the host. The fence can ask others, too: the answers seem to come from them.
own=127.0.0.53 other=192.0.2.99 v6=2001:db8:9::53
dnsmasq --keep-in-foreground --conf-file=/dev/null --pid-file --no-resolv --no-hosts --bind-interfaces --user=root \
    --listen-address=$own --address=/www.example.org/198.51.100.1 --address=/www.example.org/2001:db8:2::1 \
    --address=/other.example/198.51.100.1 &
echo "nameserver $own" >/etc/resolv.conf
timeout 60 sh -c "until probe dns/$own/www.example.org | grep -q '\"reply\":\"198.51.100.1\"'; do sleep 0.1; done"

# The machine is emulated, and slow.
attempt='probe --timeout-ms 20000'

fail() {
    echo "$1"
    exit 1
}

# expect WHAT PATTERN...: each line of /tmp/said must have its pattern, in order.
expect() {
    what=$1
    shift
    number=0
    for pattern; do
        number=$((number + 1))
        sed -n "${number}p" /tmp/said | grep -q "$pattern" || {
            cat /tmp/said
            fail "$what: line $number has no $pattern"
        }
    done
    [ "$(wc -l </tmp/said)" -eq "$number" ] || {
        cat /tmp/said
        fail "$what: other lines than $number"
    }
    echo "$what: $number of $number"
}

servers="tcp/198.51.100.1/$port tcp/2001:db8:2::1/$port"
reached='"ending":"reached"' refused='"ECONNREFUSED"' found='"reply":"198.51.100.1"' none='"reply":"rcode 3"'

# shellcheck disable=SC2086
{
    $attempt $servers >/tmp/said
    expect 'without the fence the server is reached' "$reached" "$reached"
    $fence $attempt $servers >/tmp/said
    expect 'an address that was not looked up is refused' "$refused" "$refused"
    # These send to a nameserver by sockets that are not connected, as musl does.
    $fence $attempt dns/$own/www.example.org dns/$other/www.example.org dns/$v6/www.example.org \
        dns-tcp/$own/www.example.org dns-tcp/$other/www.example.org dns-tcp/$v6/www.example.org \
        tcp/198.51.100.1/$port tcp/198.51.100.1/80 tcp/2001:db8:2::1/$port >/tmp/said
    expect 'a name that was looked up is reached at its port' "$found" "$found" "$found" "$found" "$found" "$found" \
        "$reached" "$refused" "$refused"
    $fence $attempt dns/$own/other.example dns-tcp/$own/other.example dns/$own/example.org tcp/198.51.100.1/$port >/tmp/said
    expect 'another name does not exist' "$none" "$none" "$none" "$refused"
}
# The C library, and busybox, which reads answers by recv.
$fence sh -c "getent ahosts www.example.org | cut -d ' ' -f 1 | sort -u; $attempt $servers" >/tmp/said
expect 'the C library finds both addresses' '^198.51.100.1$' '^2001:db8:2::1$' "$reached" "$reached"
$fence sh -c "busybox nslookup -type=aaaa www.example.org $v6 >/tmp/found; $attempt $servers" >/tmp/said || :
expect 'busybox finds the address that it asks for' "$refused" "$reached"
grep -q '"kind":"lookup","verdict":"denied","name":"other.example"' /tmp/lookups || {
    cat /tmp/lookups
    fail 'no refused look-up is on record'
}
echo 'rules by name work in this machine'
