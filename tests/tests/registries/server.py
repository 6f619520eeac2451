"""Serves files by HTTP and HTTPS: server.py DIRECTORY CERTIFICATE; the file of https://HOST/PATH is DIRECTORY/HOST/PATH.

Prints "ready", and then a line "HOST PATH" for each request before it is answered.
"""

import http.server
import os
import socket
import ssl
import sys
import threading

DIRECTORY, CERTIFICATE = sys.argv[1:]


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.tell()
        self.directory = os.path.join(DIRECTORY, self.host())
        super().do_GET()

    # npm asks for advisories by it, and does without.
    def do_POST(self):
        self.tell()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_error(404)

    def tell(self):
        # In one piece: each request has a thread.
        print(f"{self.host()} {self.path}\n", end="", flush=True)

    def host(self):
        return os.path.basename(self.headers.get("Host", "").split(":")[0])

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 64
    context = None

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    # In the thread of the connection: a client that is slow delays no other.
    def finish_request(self, request, client):
        if self.context:
            request = self.context.wrap_socket(request, server_side=True)
        super().finish_request(request, client)

    # Clients end connections as they like.
    def handle_error(self, *_):
        pass


plain, secure = Server(("::", 80), Handler), Server(("::", 443), Handler)
secure.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
secure.context.load_cert_chain(CERTIFICATE)
threading.Thread(target=plain.serve_forever, daemon=True).start()
print("ready", flush=True)
secure.serve_forever()
