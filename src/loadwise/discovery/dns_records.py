"""Records of DNS as endpoints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from loadwise._numbers import shown
from loadwise._turns import in_turns
from loadwise.discovery.addresses import Dropped, address
from loadwise.nodes import Endpoint

__all__ = ["Record", "endpoints"]

_SMALL: Final = 0.01
"""Share of the least weight that a record of weight 0 has."""


class Record(NamedTuple):
    """Record of an address or a server.

    Attributes:
        host: The address, or the target.
        port: The server's port; ``None`` for an address.
        weight: The server's weight; ``None`` for an address.
        priority: The server's priority, 0 first.
    """

    host: str
    port: int | None = None
    weight: int | None = None
    priority: int = 0


def endpoints(
    records: Iterable[Record], port: int | None, dropped: Dropped
) -> tuple[Endpoint, ...]:
    """Return the nodes that records stand for, by id; those of no use are left out, and counted.

    A server that is listed twice is one, with the first weight. O(n log n).

    Example:
        >>> nodes = endpoints([Record("b.", 80, 0, 1), Record("a.", 80, 0, 1)], None, Dropped(""))
        >>> [(node.id, node.weight, node.priority) for node in nodes]
        [('a:80', 1, 1), ('b:80', 1, 1)]
    """
    found: dict[str, Record] = {}
    for record in in_turns(records):
        if record.host == "." and record.port is not None:
            continue  # "the service is decidedly not available" here, says RFC 2782
        identity = address(record.host, port if record.port is None else record.port)
        if identity is None:
            dropped.add(_told(record))
        else:
            found.setdefault(identity, record)
    least: dict[int, int] = {}
    for record in found.values():
        if record.weight:
            known = least.get(record.priority, record.weight)
            least[record.priority] = min(record.weight, known)
    return tuple(
        Endpoint(identity, weight=_weight(record, least), priority=record.priority)
        for identity, record in sorted(found.items())
    )


def _weight(record: Record, least: dict[int, int]) -> float:
    if record.weight:
        return record.weight
    if record.weight is None or record.priority not in least:
        return 1
    return least[record.priority] * _SMALL


def _told(record: Record) -> str:
    if record.port == 0:
        return f"{shown(record.host)}, which has no port"
    return f"{shown(record.host)} with port {record.port}, which is no host and port"
