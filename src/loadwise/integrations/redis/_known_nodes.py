"""Records of what a process knows of nodes' latest changes of health, and who knows of them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping

from loadwise.health import NodeHealth
from loadwise.integrations.redis._health_protocol import MOST_NODES

__all__ = ["KnownNodes"]

# By how many microseconds the server's clock may seem to have gone back, by chance.
_SLACK = 1_000_000


class Known:
    """The latest change of one node's health, and who knows of it.

    Attributes:
        since: When it happened, by the local clock; ``None`` if that is not known.
        at: The same by the server's clock, in microseconds, once it was told there; else 0.
        unreported: When it happened, if the server is still to be told.
        reporting: When it happened, if the server is being told.
        is_hearsay: Whether it was found out by others, and nobody here has met the node since.
        by_host: When another process of this host last found something out, by the local clock, as
            a `loadwise.shared_memory.HostState` tells.
    """

    __slots__ = ("at", "by_host", "is_hearsay", "reporting", "since", "unreported")

    def __init__(self) -> None:
        self.since: float | None = None
        self.at = 0
        self.unreported: float | None = None
        self.reporting: float | None = None
        self.is_hearsay = False
        self.by_host = -math.inf

    @property
    def is_own(self) -> bool:
        """True if it was found out here, and the server may not know yet."""
        return self.unreported is not None or self.reporting is not None


class KnownNodes:
    """Records of nodes by id: of members, whom this process has met, and of at most so many others.

    Not thread-safe: the tracker holds a lock.
    """

    def __init__(self) -> None:
        self._members: dict[str, Known] = {}
        # In the order of the news of them.
        self._strangers: dict[str, Known] = {}
        # Those whose change the server is to be told, in that order.
        self._unreported: dict[str, Known] = {}

    def forget_unreported(self) -> None:
        """Leave to another process what is to be reported."""
        self._unreported = {}
        for known in self._members.values():
            known.unreported = known.reporting = None

    def get(self, node_id: str) -> Known:
        """Return the record of a node, or an empty one."""
        return self._members.get(node_id) or self._strangers.get(node_id) or Known()

    def met(self, node_id: str) -> Known:
        """Record that a node's state is known here at first hand; return its record."""
        known = self._members.get(node_id)
        if known is None:
            known = self._members[node_id] = self._strangers.pop(node_id, Known())
        known.is_hearsay = False
        return known

    def changed(self, node_id: str, now: float) -> None:
        """Record a change that was found out here."""
        known = self._unreported[node_id] = self.met(node_id)
        known.unreported = known.since = now

    def told_by_host(self, node_id: str, when: float) -> bool:
        """Record a change that another process of this host found out, and tells by itself.

        ``False`` if a newer one is known.
        """
        known = self.met(node_id)
        if known.since is not None and known.since > when:
            return False
        known.since = known.by_host = when
        return True

    def report_later(self, node_id: str, when: float) -> None:
        """Have a change reported, if none that is later is to be."""
        known = self._unreported[node_id] = self.get(node_id)
        if known.unreported is None:
            known.unreported = when

    def take_unreported(self) -> dict[str, float]:
        """Return what is to be reported, and when it happened; it counts as being reported."""
        taken: dict[str, float] = {}
        for node_id, known in self._unreported.items():
            if known.unreported is not None:
                taken[node_id] = known.reporting = known.unreported
                known.unreported = None
        self._unreported = {}
        return taken

    def heard_of(self, node_id: str) -> tuple[Known, str | None]:
        """Return a node's record, and the id of the stranger that made room for it, if any."""
        known = self._members.get(node_id)
        if known is not None:
            return known, None
        known = self._strangers.pop(node_id, Known())
        forgotten = None
        if len(self._strangers) >= MOST_NODES:
            forgotten = next(iter(self._strangers))
            del self._strangers[forgotten]
        self._strangers[node_id] = known
        return known, forgotten

    def remove(self, node_id: str) -> None:
        """Forget a node, but not how old the news of it was."""
        known = self.get(node_id)
        known.since = known.unreported = None
        known.is_hearsay = False
        if known.reporting is None and self._members.pop(node_id, None) is not None and known.at:
            self._strangers[node_id] = known

    def expire(
        self, end: float, forgotten: int, now: int, remembered: Mapping[Hashable, NodeHealth]
    ) -> list[str]:
        """Forget what is old; return the ids of nodes that were heard of up to ``end``.

        Args:
            end: By the local clock.
            forgotten: Up to when the server has forgotten everything, by its own clock.
            now: The time by the server's clock.
            remembered: The nodes whose health is known here.
        """
        old: list[str] = []
        for nodes in (self._members, self._strangers):
            empty: list[str] = []
            for node_id, known in nodes.items():
                if known.at > now + _SLACK:
                    # The server's clock was set back. What comes later must not seem older.
                    known.at = now
                elif known.at <= forgotten:
                    known.at = 0
                if known.is_hearsay and known.since is not None and known.since <= end:
                    old.append(node_id)
                if not known.at and not known.is_own and node_id not in remembered:
                    empty.append(node_id)
            for node_id in empty:
                del nodes[node_id]
        return old

    def __iter__(self) -> Iterator[tuple[str, Known]]:
        return iter([*self._members.items(), *self._strangers.items()])
