# Makes connections in every way that may hide who opened them. Prints "listening", waits for two peers, prints "ready", and
# then for each line of input, for each connection, its name and "stands", or the error or "silent".
import array, errno, os, socket, struct, sys, time

host, internet, tcp, serves = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
loopback = "::1" if family == socket.AF_INET6 else "127.0.0.1"


def fresh():
    it = socket.socket(family, socket.SOCK_STREAM)
    it.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return it


def opened(to=host):
    it = fresh()
    it.connect((to, tcp))
    return it


def beside_a_listener():
    it = opened()
    beside = fresh()
    beside.bind((loopback, it.getsockname()[1]))
    beside.listen(1)
    kept.append(beside)
    return it


def accepted(listener):
    it, _ = listener.accept()
    return it


def opened_again():
    """A socket that a listener made, disconnected and connected to the host."""
    listener, caller = fresh(), fresh()
    listener.bind((loopback, 0))
    listener.listen(1)
    caller.connect(listener.getsockname())
    it = accepted(listener)
    caller.close()
    listener.close()
    time.sleep(0.05)
    import ctypes

    if ctypes.CDLL(None).connect(it.fileno(), bytes(28), 28) != 0:
        sys.exit("cannot disconnect")
    it.connect((host, tcp))
    return it


def discarded(it):
    """Has the own machine discard a byte: a strict source route without a next hop."""
    if family == socket.AF_INET:
        route = bytes([137, 7, 4]) + socket.inet_aton("240.0.0.1") + b"\0"
        it.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, route)
        it.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 8)
        it.send(b"!")
        time.sleep(0.05)
        it.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"")
        it.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0)
        it.settimeout(10)
        if it.recv(1) != b"!":
            sys.exit("the byte does not arrive")
    return it


def sent_away(it):
    """Puts it on its way to the other end of a pair of sockets."""
    fds = array.array("i", [it.fileno()])
    here.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    it.close()
    away.append(len(all))
    return None


def come_back():
    _, rights, _, _ = there.recvmsg(1, 1000)
    return socket.socket(fileno=array.array("i", rights[0][2])[0])


def ask(it):
    it.settimeout(2)
    try:
        it.sendall(b"?")
        return "stands" if it.recv(1) == b"?" else "closed"
    except TimeoutError:
        return "silent"
    except OSError as error:
        return errno.errorcode[error.errno]


kept, all, away = [], [], []
here, there = socket.socketpair()
server = fresh()
server.bind((host, serves))
server.listen(2)
print("listening", flush=True)
all.append(("accepted", accepted(server)))
for name, make in [
    ("plain", opened),
    ("beside a listener", beside_a_listener),
    ("opened again", opened_again),
    ("with a discarded byte", lambda: discarded(opened())),
    ("opened again, with a discarded byte", lambda: discarded(opened_again())),
    ("on its way", lambda: sent_away(opened())),
    ("on its way, opened again, with a discarded byte", lambda: sent_away(discarded(opened_again()))),
    ("elsewhere", lambda: opened(internet)),
    ("elsewhere, on its way", lambda: sent_away(opened(internet))),
]:
    all.append((name, make()))
for name, it in all:
    if it is not None and ask(it) != "stands":
        sys.exit("control: " + name)
print("ready", flush=True)
sys.stdin.readline()
# Nothing may lead to it meanwhile. This one waits in the queue of a listener, which is closed then.
all.append(("from the queue", accepted(server)))
server.close()
for place in away:
    all[place] = (all[place][0], come_back())
while True:
    for name, it in all:
        print(name + ": " + ask(it), flush=True)
    print("asked", flush=True)
    if not sys.stdin.readline():
        break
