"""Tries what a broken program would try, and prints one line for each attempt: its name, and `done` or an error.

Arguments: the process id of another process of the same user, the key of its shared memory, and a directory that stands
for the user's home.
"""

import ctypes
import errno
import os
import resource
import socket
import sys

victim, key, home = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
libc = ctypes.CDLL(None, use_errno=True)

CALLS = {
    "x86_64": dict(io_uring_setup=425, keyctl=250, userfaultfd=323, open_tree=428, ptrace=101, clone3=435,
                   ioprio_set=251, add_key=248, pidfd_open=434, pidfd_getfd=438, setns=308),
    "aarch64": dict(io_uring_setup=425, keyctl=219, userfaultfd=282, open_tree=428, ptrace=117, clone3=435,
                    ioprio_set=30, add_key=217, pidfd_open=434, pidfd_getfd=438, setns=268),
}[os.uname().machine]


def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def call(name, *arguments):
    return check(libc.syscall(CALLS[name], *[ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]))


def in_home(name):
    return os.path.join(home, name)


def read(path):
    with open(path, "rb") as file:
        file.read(1)


def append(path, text=b"x"):
    with open(path, "ab") as file:
        file.write(text)


def child(action):
    """Runs an action in a child, whose changes do not matter to the other attempts."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        raise OSError(errno.EINTR, "killed")
    if os.WEXITSTATUS(status):
        raise OSError(os.WEXITSTATUS(status), "")


def shared_memory():
    check(libc.shmget(key, 0, 0))


def cores():
    if resource.getrlimit(resource.RLIMIT_CORE)[0] == 0:
        raise OSError(errno.EPERM, "")


def secret():
    if "QFENCE_SECRET" not in os.environ:
        raise OSError(errno.ENOENT, "")


def clone3():
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls.
    arguments = (ctypes.c_uint64 * 8)(0, 0, 0, 0, 17, 0, 0, 0)
    pid = call("clone3", ctypes.byref(arguments), 64)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def key_of_user():
    # KEYCTL_GET_KEYRING_ID of the session keyring.
    call("keyctl", 0, -3, 1)


def ring():
    call("io_uring_setup", 1, ctypes.create_string_buffer(120))


ATTEMPTS = [
    ("files", "read", lambda: read(in_home("secret"))),
    ("files", "append", lambda: append(in_home("dotfile"))),
    ("files", "truncate", lambda: os.truncate(in_home("dotfile"), 0)),
    ("files", "create", lambda: append(in_home("new"))),
    ("files", "mkdir", lambda: os.mkdir(in_home("directory"))),
    ("files", "symlink", lambda: os.symlink("/", in_home("link"))),
    ("files", "hard-link", lambda: os.link(in_home("secret"), in_home("hard"))),
    ("files", "rename", lambda: os.rename(in_home("secret"), in_home("renamed"))),
    ("files", "chmod", lambda: os.chmod(in_home("dotfile"), 0o777)),
    ("files", "chmod-home", lambda: os.chmod(home, 0o755)),
    ("files", "chown", lambda: os.chown(in_home("dotfile"), -1, os.getgid())),
    ("files", "utime", lambda: os.utime(in_home("dotfile"))),
    ("files", "xattr", lambda: os.setxattr(in_home("dotfile"), "user.x", b"y")),
    ("files", "unlink", lambda: os.unlink(in_home("dotfile"))),
    ("files", "list", lambda: os.listdir(home)),
    ("files", "socket", lambda: socket.socket(socket.AF_UNIX).bind(in_home("socket"))),
    ("files", "ptmx", lambda: os.close(os.open("/dev/ptmx", os.O_RDWR))),
    ("files", "oom", lambda: append(f"/proc/{victim}/oom_score_adj", b"0")),
    ("syscalls", "vsock", lambda: socket.socket(40, socket.SOCK_STREAM)),
    ("syscalls", "uevent", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)),
    ("syscalls", "user-namespace", lambda: child(lambda: check(libc.unshare(0x10000000)))),
    ("syscalls", "mount-in-namespace", lambda: child(lambda: check(libc.unshare(0x10020000)) or check(
        libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)))),
    ("syscalls", "io_uring", ring),
    ("syscalls", "clone3", clone3),
    ("syscalls", "keyctl", key_of_user),
    ("syscalls", "userfaultfd", lambda: os.close(call("userfaultfd", 1))),
    ("syscalls", "open_tree", lambda: os.close(call("open_tree", -100, b"/", 0))),
    ("syscalls", "traceme", lambda: child(lambda: call("ptrace", 0, 0, 0, 0))),
    ("processes", "prlimit", lambda: resource.prlimit(victim, resource.RLIMIT_CPU)),
    ("processes", "priority", lambda: os.setpriority(os.PRIO_PROCESS, victim, 5)),
    ("processes", "affinity", lambda: os.sched_setaffinity(victim, {0})),
    ("processes", "ioprio", lambda: call("ioprio_set", 1, victim, 0x4005)),
    ("domain", "signal", lambda: os.kill(victim, 0)),
    ("domain", "memory", lambda: read(f"/proc/{victim}/environ")),
    ("domain", "root", lambda: read(f"/proc/{victim}/root/etc/hostname")),
    ("rights", "shared-memory", shared_memory),
    ("rights", "cores", cores),
    ("rights", "environment", secret),
    ("kept", "inet", lambda: socket.socket(socket.AF_INET6).close()),
    ("kept", "routes", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()),
    ("kept", "pair", lambda: socket.socketpair()),
    ("kept", "public", lambda: read("/etc/passwd")),
    ("kept", "null", lambda: append("/dev/null")),
    ("kept", "temporary", lambda: append(os.path.join(os.environ.get("TMPDIR", "/tmp"), "x"))),
    ("kept", "thread", lambda: child(lambda: None)),
    ("kept", "own-priority", lambda: child(lambda: os.setpriority(os.PRIO_PROCESS, 0, 5))),
    ("kept", "own-limit", lambda: resource.prlimit(0, resource.RLIMIT_CPU)),
]

for closure, name, attempt in ATTEMPTS:
    try:
        attempt()
        outcome = "done"
    except OSError as error:
        outcome = errno.errorcode.get(error.errno, str(error.errno))
    print(closure, name, outcome, flush=True)
