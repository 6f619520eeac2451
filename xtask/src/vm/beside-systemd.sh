#!/bin/sh
# Runs in the machine: samples the cost of qfence and of systemd's IPAddressDeny=, and the outcome of a connection that
# they refuse. Each line is a JSON object; `cargo xtask bench` prints a table of them.
set -eu

sample_ms=300
rounds=12
# A connection that hangs takes this long.
limit_ms=3000
attempt_rounds=3
port=8080

# An internet that receives everything and never answers: only sending is measured.
ip link add eth0 type dummy
ip link set eth0 up
ip addr add 192.0.2.10/24 dev eth0
ip addr add 2001:db8:1::10/64 dev eth0 nodad
probe --serve tcp/$port >/tmp/services &
timeout 60 sh -c 'until grep -q serving /tmp/services; do sleep 0.1; done'

# The addresses that qfence refuses by itself must be listed for systemd. Its word localhost cannot be combined with
# others.
host="127.0.0.0/8 $(ip -o addr show | awk '{ sub("/.*", "", $4); print $4 }' | tr '\n' ' ')"
# The path, because a unit has another PATH.
probe=$(command -v probe)
unit='systemd-run --quiet --pipe --wait --collect --uid=nobody'

# run VARIANT COMMAND...
run() {
    variant=$1
    shift
    case $variant in
        unfenced) $unit "$@" ;;
        qfence) qfence-user exec --name beside --user nobody --log json:/tmp/refusals -- "$@" ;;
        localhost) $unit --property=IPAddressDeny=localhost "$@" ;;
        host) $unit --property="IPAddressDeny=$host" "$@" ;;
    esac
}

# sample VARIANT COMMAND...: prints a line for each line of the probe. Warnings are shown if the command fails.
sample() {
    run "$@" >/tmp/said 2>/tmp/warnings || { cat /tmp/warnings >&2; exit 1; }
    sed "s/.*/{\"sample\":{\"variant\":\"$1\",\"said\":&}}/" /tmp/said
}

echo "{\"machine\":{\"kernel\":\"$(uname -r)\",\"processors\":$(nproc),\"processor\":\
\"$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)\"}}"
echo "{\"systemd\":\"$(systemctl --version | head -n 1)\"}"
echo "{\"limit_ms\":$limit_ms}"

loads=
for load in connect-udp send-udp; do
    loads="$loads$probe --for-ms $sample_ms --load $load/192.0.2.1/9 && "
done
for round in $(seq $rounds); do
    order='unfenced qfence localhost host'
    # The order alternates, so that no variant always follows the same one.
    if [ $((round % 2)) -eq 0 ]; then
        order='host localhost qfence unfenced'
    fi
    for variant in $order; do
        sample "$variant" sh -c "$loads true"
    done
done
for _ in $(seq $attempt_rounds); do
    for variant in unfenced qfence localhost host; do
        sample "$variant" "$probe" --timeout-ms $limit_ms tcp/127.0.0.1/$port tcp/192.0.2.10/$port
    done
done
