"""Addresses of nodes, from names, addresses and ports that servers tell."""

from __future__ import annotations

import re
from typing import Final

from loadwise._numbers import shown

__all__ = ["Dropped", "address", "as_port"]

MOST_PORT: Final = 65_535
_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)
_V4 = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}")


def address(host: object, port: object) -> str | None:
    """Return ``host:port``, or ``None`` if these are no host and no port.

    Names are written in small letters and without a dot at the end, so that one name is one node.
    What stands in a server's answer goes into logs and URLs, so nothing else is let through.

    Example:
        >>> address("A.Example.", 80), address("::1", 80), address("a b", 80), address("a", 0)
        ('a.example:80', '[::1]:80', None, None)
    """
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port <= MOST_PORT:
        return None
    if not isinstance(host, str):
        return None
    if ":" in host:
        return None if _sixth(host) is None else f"[{_sixth(host)}]:{port}"
    name = host.lower().removesuffix(".")
    if _NAME.fullmatch(name) is None:
        return None
    return f"{name}:{port}"


def _sixth(host: str) -> str | None:
    """Return an address of IPv6 in its shortest form."""
    from ipaddress import AddressValueError, IPv6Address  # noqa: PLC0415 - few need it

    try:
        return str(IPv6Address(host))
    except (AddressValueError, ValueError):
        return None


def as_port(name: str, port: object) -> int:
    """Return a port.

    Raises:
        TypeError: It is no int.
        ValueError: It is out of range.
    """
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"{name} is {shown(port)}; it must be an int")
    if not 0 < port <= MOST_PORT:
        raise ValueError(f"{name} is {port}; it must be 1 to {MOST_PORT}")
    return port


class Dropped:
    """Entries of one answer that cannot be used, counted for one complaint.

    Args:
        what: Entries of what kind, in the plural.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._first = ""
        self._count = 0

    def add(self, entry: str) -> None:
        """Count an entry, told in words."""
        self._count += 1
        self._first = self._first or entry

    def complaints(self) -> dict[str, str]:
        """Return what there is to complain about, by its kind."""
        if not self._count:
            return {}
        return {"dropped": f"{self._count} {self._what} are left out, such as {self._first}"}
