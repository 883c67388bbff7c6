"""A real HTTP server in its own process, with the manners that tests ask of it.

Run as a script: it prints its port, appends the id of every request it has acted on to the file
named by its first argument, and listens on the port of its second.
"""

import json
import socket
import struct
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


class Handler(BaseHTTPRequestHandler):
    """Answers what the path asks for; ``manners`` change it for all paths."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are sent apart, and would wait for each other
    journal = Path(sys.argv[1])
    manners = ""

    def do_GET(self) -> None:
        """Act on the request and answer."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/_manners":
            Handler.manners = body.decode()
            self.reply(200, b"")
            return
        if "X-Request-Id" in self.headers:
            with self.journal.open("a") as journal:
                journal.write(self.headers["X-Request-Id"] + "\n")
        if Handler.manners == "reset" or url.path == "/reset":
            # Closing with unsent data pending and no lingering makes the kernel send a reset.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
            self.close_connection = True
            return
        if url.path == "/stream":
            self.stream(int(query.get("pieces", 3)), cut="cut" in query)
            return
        if url.path == "/sleep":
            time.sleep(float(query["seconds"]))
        status = int(query.get("status", 503 if Handler.manners == "fail" else 200))
        told = {
            "method": self.command,
            "path": self.path,
            "host": self.headers["Host"],
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": body.decode(),
        }
        named = {
            "Retry-After": query.get("retry-after"),
            "Location": query.get("location"),
            "Set-Cookie": query.get("cookie"),
        }
        self.reply(status, json.dumps(told).encode(), named)

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET  # noqa: N815 - the base class's names

    def handle_expect_100(self) -> bool:
        """Ask for the body, or refuse the request without it."""
        if Handler.manners == "fail":
            self.reply(503, b"")
            return False
        return super().handle_expect_100()

    def reply(self, status: int, body: bytes, headers: dict[str, str | None] | None = None) -> None:
        """Send a whole response."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def stream(self, pieces: int, *, cut: bool) -> None:
        """Send a chunked response, and break it off if asked to."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in range(pieces):
            text = f"piece {piece}\n".encode()
            self.wfile.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
        if cut:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Stay silent."""


class Server(ThreadingHTTPServer):
    """A server that can take its port back at once after it was killed."""

    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent when a client goes away."""


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(sys.argv[2])), Handler)
    print(server.server_address[1], flush=True)  # noqa: T201 - this is how it tells
    server.serve_forever()
