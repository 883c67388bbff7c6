"""What a process knows of when nodes changed their state of health, and who knows of it."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["MOST_NODES", "HealthBook"]

MOST_NODES = 10_000


class HealthBook:
    """Keeps apart what was found out here and what was learnt, by node id.

    Not thread-safe: the tracker holds a lock.
    """

    def __init__(self) -> None:
        # When states came about, by the local clock; those to be told, being told, and learnt.
        self._since: dict[str, float] = {}
        self._untold: dict[str, float] = {}
        self._telling: dict[str, float] = {}
        self._learnt: dict[str, float] = {}
        # The same by the server's clock, of all that it knows.
        self._server_times: dict[str, int] = {}

    def forget_untold(self) -> None:
        """Leave to another process what is to be told."""
        self._untold, self._telling = {}, {}

    def remove(self, node_id: str) -> None:
        """Forget a node, but not how old the news of it was."""
        for kept in (self._untold, self._since, self._learnt):
            kept.pop(node_id, None)

    def met(self, node_id: str) -> None:
        """Take note that a node's state is known here at first hand."""
        self._learnt.pop(node_id, None)

    def changed(self, node_id: str, now: float) -> None:
        """Take note of a change that was found out here."""
        self._untold[node_id] = self._since[node_id] = now

    def take_untold(self) -> dict[str, float]:
        """Return what is to be told, and when it happened; it counts as being told."""
        self._telling, self._untold = self._untold, {}
        return dict(self._telling)

    def told(self, node_id: str, at: int) -> None:
        """Take note that the server was told, and of when it says that it happened."""
        self._telling.pop(node_id, None)
        self._server_times[node_id] = max(at, self._server_times.get(node_id, 0))

    def not_told(self, node_id: str, when: float) -> None:
        """Take note that the server could not be told."""
        self._telling.pop(node_id, None)
        self._untold.setdefault(node_id, when)

    def learn(self, node_id: str, at: int) -> bool:
        """Take note of a change that somebody tells of; tell whether it is news."""
        # What was found out here is settled when it is told: the later one holds.
        if node_id in self._untold or node_id in self._telling:
            return False
        known = self._server_times.get(node_id)
        if known is None and len(self._server_times) >= MOST_NODES:
            return False
        if known is not None and at <= known:
            return False
        self._server_times[node_id] = at
        return True

    def learnt(self, node_id: str, when: float) -> None:
        """Take note that a state was taken over."""
        self._since[node_id] = self._learnt[node_id] = when

    def tell_anew(self, node_ids: Iterable[str], start: float) -> bool:
        """Have the states told again that came about after ``start``; tell whether any did."""
        anew = {i: self._since[i] for i in node_ids if self._since.get(i, start) > start}
        self._untold = anew | self._untold
        return bool(anew)

    def expire(self, end: float, forgotten: int, known: Iterable[object]) -> list[str]:
        """Forget what is old; return the ids of states that were learnt up to ``end``.

        Args:
            end: By the local clock.
            forgotten: Up to when the server has forgotten everything, by its own clock.
            known: The ids that something is remembered of.
        """
        self._server_times = {i: at for i, at in self._server_times.items() if at > forgotten}
        kept = {*known, *self._server_times}
        self._since = {i: when for i, when in self._since.items() if i in kept}
        return [node_id for node_id, when in self._learnt.items() if when <= end]
