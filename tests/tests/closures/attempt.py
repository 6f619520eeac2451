"""Makes attempts, and prints the outcome of each, a line each: ATTEMPT OUTCOME."""

import errno
import os
import socket
import sys


def unix(kind, name):
    """Connects to a Unix socket, or sends it a message. A name that begins with @ is abstract."""
    raw = b"\0" + name[1:].encode() if name.startswith("@") else name
    if kind == "send":
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"x", raw)
    else:
        types = {"stream": socket.SOCK_STREAM, "seqpacket": socket.SOCK_SEQPACKET, "dgram": socket.SOCK_DGRAM}
        socket.socket(socket.AF_UNIX, types[kind]).connect(raw)


def relative(kind, path):
    os.chdir(os.path.dirname(path))
    unix(kind, os.path.basename(path))


def link(kind, path, at):
    os.symlink(path, at)
    try:
        unix(kind, at)
    finally:
        os.unlink(at)


def own(name):
    """Makes a socket and connects to it."""
    raw = b"\0" + name[1:].encode() if name.startswith("@") else name
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(raw)
    listener.listen()
    socket.socket(socket.AF_UNIX).connect(raw)


def pair():
    left, right = socket.socketpair()
    left.send(b"x")
    assert right.recv(1) == b"x"


def bind(protocol, address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "mptcp": socket.SOCK_STREAM}[protocol]
    with socket.socket(family, kind, 262 if protocol == "mptcp" else 0) as made:
        made.bind((address, int(port)))
        if protocol != "udp":
            made.listen()


def sctp():
    socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132).close()


def device(path, how):
    os.close(os.open(path, {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}[how] | os.O_NOCTTY | os.O_NONBLOCK))


def terminal():
    for end in os.openpty():
        os.close(end)


for words in sys.argv[1:]:
    name, *arguments = words.split(" ")
    try:
        globals()[name](*arguments)
        outcome = "done"
    except OSError as error:
        outcome = errno.errorcode[error.errno]
    print(f"{words}: {outcome}")
