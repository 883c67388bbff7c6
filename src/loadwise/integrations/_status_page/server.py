"""Server of a page alone: the standard library's, with a thread for each connection."""

from __future__ import annotations

import socket
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from loadwise.integrations._status_page.wsgi import STREAMS

__all__ = ["PageServer"]

_PATIENCE: Final = 10.0
"""Seconds that a connection may be silent before a request."""


class _Handler(WSGIRequestHandler):
    """Reads a request; says nothing of it."""

    timeout = _PATIENCE

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Log nothing: a page asks every few seconds."""

    def get_environ(self) -> dict[str, Any]:
        """Return the environment of a request, which may keep its thread for long."""
        return {**super().get_environ(), STREAMS: True}


class PageServer(ThreadingMixIn, WSGIServer):
    """Server that gives each connection a thread, which does not keep the program alive.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 for one that is free.

    Raises:
        OSError: It cannot listen there.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Bind, and ask no name server for a name, as the parent would."""
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a viewer that hung up; what else fails is answered with 500."""
