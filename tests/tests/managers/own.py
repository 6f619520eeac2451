"""Makes sockets beside those that are masked, and connects to them."""

import os
import socket

RUNTIME = "/run/user/65534"
for path in [
    "/run/scratch/own",
    f"{RUNTIME}/own",
    "/run/screen/S-nobody/own",
    f"{RUNTIME}/podman/own",
]:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    socket.socket(socket.AF_UNIX).connect(path)
print("usable")
