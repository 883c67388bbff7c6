"""Server of a page alone: the standard library's, with a thread for each connection."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from socketserver import ThreadingMixIn
from threading import Semaphore
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from loadwise._fork import ForkAware, reset_in_child
from loadwise.integrations._status_page.wsgi import STREAMS

__all__ = ["MOST_CONNECTIONS", "PageServer"]

MOST_CONNECTIONS: Final = 256
"""Connections at a time; more are closed."""
_PATIENCE: Final = 10.0
"""Seconds that a connection may be silent before a request."""
_BUSY: Final = b"HTTP/1.0 503 Service Unavailable\r\nretry-after: 10\r\ncontent-length: 0\r\n\r\n"


class _Handler(WSGIRequestHandler):
    """Reads a request; says nothing of it."""

    timeout = _PATIENCE

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Log nothing: a page asks every few seconds."""

    def get_environ(self) -> dict[str, Any]:
        """Return the environment of a request, which may keep its thread for long."""
        return {**super().get_environ(), STREAMS: True}


class PageServer(ThreadingMixIn, WSGIServer, ForkAware):
    """Server that gives each connection a thread, which does not keep the program alive.

    There are `MOST_CONNECTIONS` at most, so that whoever opens more takes no files or threads from
    the program. In a forked child it does not listen.

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
        self._free = Semaphore(MOST_CONNECTIONS)
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            why = error.strerror or str(error)
            remedy = _remedy(error)
            raise OSError(
                error.errno, f"cannot listen on {host} port {port}: {why}; {remedy}"
            ) from None
        reset_in_child(self)

    def _after_fork(self) -> None:
        # Else the port is taken for as long as the child lives.
        self.socket.close()

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as the parent has it
        """Give a connection a thread, or close it where there are too many."""
        if not self._free.acquire(blocking=False):
            with suppress(OSError):
                request.sendall(_BUSY)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # there can be no thread
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as the parent has it
        """Serve a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

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


def _remedy(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "take a port from 1024"
    if error.errno == errno.EADDRINUSE:
        return "stop what listens there, or take another port; 0 is one that is free"
    return "host must be an address of this machine, such as '127.0.0.1', or '0.0.0.0' for all"
