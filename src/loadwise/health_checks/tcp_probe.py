"""Asks whether a node accepts connections."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from loadwise._callables import refuse_async, refuse_awaitable
from loadwise.health_checks.address import base_url, host_and_port
from loadwise.health_checks.connections import connect
from loadwise.health_checks.probe import TimedProbe, no_answer

__all__ = ["TcpProbe"]

_HIGHEST_PORT = 65535


class TcpProbe(TimedProbe):
    """Passes when a node accepts a TCP connection, which is closed at once.

    It tells that something listens, and no more: the kernel accepts connections for a process
    that hangs. Where a node speaks HTTP, `HttpProbe` tells more.

    Args:
        address: Returns the host and the port of a node, as a tuple; by default they are those
            of its id, which must be host:port or a URL.

    Raises:
        TypeError: ``address`` is no function.

    Immutable, so thread-safe.

    Example:
        >>> probe = TcpProbe(address=lambda node: (node, 5432))
        >>> probe.check_node("db-1.example.com")
    """

    def __init__(self, address: Callable[[Any], tuple[str, int]] | None = None) -> None:
        if address is not None and not callable(address):
            raise TypeError(f"address is {address!r}; it must be a function of a node")
        refuse_async("address", address, "give a plain function of a node")
        self._address = address

    def check_node(self, node: object) -> None:
        """Raise ``ValueError`` if the node has no host and port."""
        self._place(node)

    def probe(self, node: object, timeout: float) -> str | None:
        """Connect to the node; return what is wrong, if anything."""
        try:
            socket.create_connection(self._place(node), timeout).close()
        except TimeoutError:
            return no_answer(timeout)
        return None

    async def probe_async(self, node: object) -> str | None:
        """Connect to the node; what is wrong is raised."""
        connection = await connect(*self._place(node))
        await connection.abort()
        return None

    def _place(self, node: object) -> tuple[str, int]:
        if self._address is None:
            return host_and_port(base_url(node, None))
        address: object = self._address(node)
        refuse_awaitable("address", address, "give a plain function of a node")
        match address:
            case (str(host), int(port)) if (
                host and 0 < port <= _HIGHEST_PORT and not isinstance(port, bool)
            ):
                return host, port
            case _:
                raise ValueError(
                    f"the address of node {node!r} is {address!r}; it must be a host and a port "
                    f"from 1 to {_HIGHEST_PORT}"
                )
