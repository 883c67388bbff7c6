"""A TCP proxy before a server, which cuts connections at any point of a call."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Literal, Self

from tests.ports import free_port

Fate = Literal["pass", "before request", "in request", "before reply", "in reply"]

CUTS: list[Fate] = ["before request", "in request", "before reply", "in reply"]


class Proxy:
    """Passes commands and replies on, one after the other, and cuts where it is told to.

    Args:
        port: Of the server.
        fate: Called with each command that runs a script, as it was sent; says what becomes of it.
    """

    def __init__(self, port: int, fate: Callable[[bytes], Fate]) -> None:
        self.port = free_port()
        self._server = port
        self._fate = fate
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._open = [self._listener]
        self._threads = [Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._open:
            close(each)
        for thread in self._threads:
            thread.join(10.0)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server))
                self._open += [client, server]
                thread = Thread(target=self._serve, args=(client, server), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        with (
            suppress(OSError, EOFError),
            client.makefile("rb") as asked,
            server.makefile("rb") as answered,
        ):
            while True:
                request = read_message(asked.readline, asked.read)
                fate = self._fate(request) if b"EVAL" in request[:40] else "pass"
                if fate == "before request":
                    break
                if fate == "in request":
                    server.sendall(request[: len(request) // 2])
                    break
                server.sendall(request)
                reply = read_message(answered.readline, answered.read)
                if fate == "before reply":
                    break
                if fate == "in reply":
                    client.sendall(reply[: len(reply) // 2])
                    break
                client.sendall(reply)
        close(client)
        close(server)


def close(connection: socket.socket) -> None:
    """Cut a connection, though another thread may wait for it."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def read_message(line: Callable[[], bytes], read: Callable[[int], bytes]) -> bytes:
    """Return one command or reply, whole.

    Raises:
        EOFError: There are no more.
    """
    head = line()
    if not head.endswith(b"\n"):
        raise EOFError
    kind, length = head[:1], head[1:-2]
    if kind == b"*":
        return head + b"".join([read_message(line, read) for _ in range(int(length))])
    if kind == b"$" and int(length) >= 0:
        return head + read(int(length) + 2)
    return head
