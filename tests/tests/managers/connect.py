"""Connects to a socket, and prints the result."""

import socket
import sys

try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
    print("connected")
except OSError:
    print("refused")
