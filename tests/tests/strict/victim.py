"""A process of the user outside the fence: makes shared memory, prints its key, and waits."""

import ctypes
import os
import signal
import sys

key = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
IPC_CREAT, IPC_RMID = 0o1000, 0
shared = libc.shmget(key, 4096, IPC_CREAT | 0o600)
if shared < 0:
    sys.exit(os.strerror(ctypes.get_errno()))


def end(*_):
    libc.shmctl(shared, IPC_RMID, None)
    sys.exit()


signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
# Ends with the test, whatever happens to it.
sys.stdin.read()
end()
