"""Ports for servers that are killed and started again."""

from __future__ import annotations

import secrets
import socket

_FIRST, _COUNT = 20_000, 12_000


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on.

    It lies below those that Linux hands out for port 0 and for outgoing connections, so while the
    server is down nobody else comes by it.
    """
    while True:
        port = _FIRST + secrets.randbelow(_COUNT)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
