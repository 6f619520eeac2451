"""Connects to a socket by every way that leads to its path, and prints a line for each: WAY OUTCOME."""

import errno
import os
import socket
import subprocess
import sys
import tempfile

# The socket; a process outside the fence that sees it; and how it is reached in a user namespace.
PATH, OUTSIDE = sys.argv[1], sys.argv[2]


def connect(path, kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_UNIX, kind) as connection:
        try:
            connection.connect(path)
        except OSError as error:
            return errno.errorcode[error.errno]
    return "connected"


def by_symlink():
    link = os.path.join(tempfile.mkdtemp(), "link")
    os.symlink(PATH, link)
    return connect(link)


def by_relative_path():
    os.chdir(os.path.dirname(PATH))
    return connect(os.path.basename(PATH))


def by_hard_link():
    link = os.path.join(os.path.dirname(PATH), "hard-link")
    try:
        os.link(PATH, link)
    except OSError as error:
        return errno.errorcode[error.errno]
    outcome = connect(link)
    os.unlink(link)
    return outcome


def renamed():
    other = PATH + ".renamed"
    try:
        os.rename(PATH, other)
    except OSError as error:
        return errno.errorcode[error.errno]
    outcome = connect(other)
    os.rename(other, PATH)
    return outcome


def in_user_namespace(script):
    """The outcome after a shell script in new user and mount namespaces, which may end with the path to use."""
    again = [sys.executable, os.path.abspath(__file__), "only"]
    script = f"{script}\nexec {' '.join(again)} \"${{there:-{PATH}}}\""
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True)
    return ended.stdout.strip().split(" ")[-1] or f"none: {ended.stderr}"


DIRECTORY, NAME = os.path.split(PATH)
WAYS = {
    "path": lambda: connect(PATH),
    "symlink": by_symlink,
    "relative": by_relative_path,
    "hard-link": by_hard_link,
    "renamed": renamed,
    "proc-root": lambda: connect(f"/proc/{OUTSIDE}/root{PATH}"),
    "umount": lambda: in_user_namespace(
        f"umount {PATH} 2>/dev/null; umount {DIRECTORY} 2>/dev/null"
    ),
    "bind": lambda: in_user_namespace(
        f"d=$(mktemp -d); mount --bind {DIRECTORY} $d; there=$d/{NAME}"
    ),
    "recursive-bind": lambda: in_user_namespace(
        f"d=$(mktemp -d); mount --rbind {DIRECTORY} $d && umount $d/{NAME} 2>/dev/null; there=$d/{NAME}"
    ),
    "overlay": lambda: in_user_namespace(
        f"d=$(mktemp -d); mkdir $d/e; mount -t overlay -o lowerdir={DIRECTORY}:$d/e none $d; there=$d/{NAME}"
    ),
}

if OUTSIDE == "only" or PATH == "only":
    print("only", connect(sys.argv[2] if PATH == "only" else PATH))
else:
    for way, attempt in WAYS.items():
        print(way, attempt())
