"""Makes attempts, and prints a line for each: ATTEMPT: OUTCOME."""

import ctypes
import errno
import mmap
import os
import socket
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p


def address(name):
    """A struct sockaddr_un."""
    return struct.pack("H", socket.AF_UNIX) + (name.encode() + b"\0").replace(b"@", b"\0", 1)


def ring(path):
    """Connects by an operation of io_uring (linux/io_uring.h)."""
    params = ctypes.create_string_buffer(120)
    fd = LIBC.syscall(425, 4, params)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "io_uring_setup")
    _, tail, _, _, _, _, array = struct.unpack_from("7I", params.raw, 40)
    cqes = struct.unpack_from("6I", params.raw, 80)[5]
    submissions = mmap.mmap(fd, array + 16, offset=0)
    completions = mmap.mmap(fd, cqes + 8 * 16, offset=0x8000000)
    entries = mmap.mmap(fd, 4 * 64, offset=0x10000000)
    made = socket.socket(socket.AF_UNIX)
    name = address(path)
    room = ctypes.create_string_buffer(name, len(name))
    entries[:24] = struct.pack("BBHiQQ", 16, 0, 0, made.fileno(), len(name), ctypes.addressof(room))
    submissions[array : array + 4] = struct.pack("I", 0)
    submissions[tail : tail + 4] = struct.pack("I", 1)
    if LIBC.syscall(426, fd, 1, 1, 1, None, 0) != 1:
        raise OSError(ctypes.get_errno(), "io_uring_enter")
    result = struct.unpack_from("i", completions, cqes + 8)[0]
    os.close(fd)
    if result < 0:
        raise OSError(-result, "connect")


def compat(path):
    """Connects by a 32-bit system call, `int 0x80`."""
    # In the first 4 GiB, for 32-bit addresses: PROT_READ|PROT_WRITE|PROT_EXEC, MAP_PRIVATE|MAP_ANONYMOUS|MAP_32BIT.
    page = LIBC.mmap(None, ctypes.c_size_t(4096), 7, 0x62, -1, ctypes.c_long(0))
    # The number and three arguments of the function become eax, ebx, ecx and edx.
    code = bytes.fromhex("53 89f8 89f3 4189c8 89d1 4489c2 cd80 5b 4898 c3")
    name = address(path)
    ctypes.memmove(page, code, len(code))
    ctypes.memmove(page + 1024, name, len(name))
    call = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_uint] * 4)(page)
    made = socket.socket(socket.AF_UNIX)
    result = call(362, made.fileno(), page + 1024, len(name))
    if result < 0:
        raise OSError(-result, "connect")


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
    if not name.startswith("@") and os.path.exists(name):
        os.unlink(name)
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
    protocol, _, shared = protocol.partition("+")
    kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "mptcp": socket.SOCK_STREAM}[protocol]
    with socket.socket(family, kind, 262 if protocol == "mptcp" else 0) as made:
        if shared:
            made.setsockopt(socket.SOL_SOCKET, {"addr": socket.SO_REUSEADDR, "port": socket.SO_REUSEPORT}[shared], 1)
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
