"""Probes that share no code with qfence: what `qfence-verify probe` does by a few of its methods.

probe.py --timeout-ms N METHOD/ADDRESS[%DEVICE][/PORT]; prints a line as that does.
"""

import errno
import json
import socket
import struct
import sys


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def echo_request(family):
    # The kernel fills in the identifier, and by IPv6 the checksum.
    if family == socket.AF_INET6:
        return struct.pack("!BBHHH", 128, 0, 0, 0, 1)
    return struct.pack("!BBHHH", 8, 0, checksum(struct.pack("!BBHHH", 8, 0, 0, 0, 1)), 0, 1)


def main(timeout, spec):
    method, address, *port = spec.split("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    to = socket.getaddrinfo(address, int(port[0]) if port else 0, family, socket.SOCK_DGRAM)[0][4]
    icmp = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    kind, protocol = {
        "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
        "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
        "udp-connected": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
        "ping": (socket.SOCK_DGRAM, icmp),
    }[method]
    step, name, reply, ending = "socket", None, None, "reached"
    try:
        with socket.socket(family, kind, protocol) as made:
            made.settimeout(timeout)
            if method != "tcp" and address.endswith(".255"):
                try:
                    made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                except PermissionError:
                    # Then sending fails.
                    pass
            if method in ("tcp", "udp-connected"):
                step = "connect"
                made.connect(to)
            if method != "tcp":
                step = "send"
                packet = echo_request(family) if method == "ping" else b"hello?\n"
                made.send(packet) if method == "udp-connected" else made.sendto(packet, to)
            step = "receive"
            reply = made.recv(2048).decode(errors="replace")
            step = None
    except TimeoutError as error:
        if error.errno is not None:
            ending, name = "failed", errno.errorcode[error.errno]
        elif step == "receive":
            ending, step = "sent", None
        else:
            ending = "timeout"
    except OSError as error:
        ending, name = "failed", errno.errorcode[error.errno]
    line = {"attempt": spec, "ending": ending, "step": step, "errno": name, "reply": reply, "ms": 0.0}
    print(json.dumps(line), flush=True)


main(int(sys.argv[2]) / 1000, sys.argv[3])
