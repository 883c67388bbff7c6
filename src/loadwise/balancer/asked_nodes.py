"""Nodes that were asked on behalf of one request, and have refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadwise.balancer.request import Request
    from loadwise.balancer.shortage import Shortage, Shortages
    from loadwise.node_set import NodeSet

__all__ = ["MOST_REFUSALS", "Asked"]

N = TypeVar("N")

MOST_REFUSALS = 4
"""So many may refuse one by one before all are asked whether they would, too."""


class Asked(Generic[N]):
    """Nodes that may be chosen for a request, and those of them that have refused.

    Args:
        nodes: Those that may be chosen.
        request: The request.
        shortages: What is remembered of quotas, if there are any.
        despite: Whether they are given in spite of their health.

    Attributes:
        left: Those of ``nodes`` that are not known to lack quota.
        refused: Why some of ``left`` are not to be chosen, by index.
        short: Those known to lack quota, if any.
        full: Some that have as many requests in flight as they may.
        crowded: Whether all that are left over are full.

    Not thread-safe: it belongs to one request.
    """

    __slots__ = (
        "_despite",
        "_poor",
        "_request",
        "_scanned",
        "_shortages",
        "crowded",
        "full",
        "left",
        "nodes",
        "refused",
        "short",
    )

    def __init__(
        self,
        nodes: NodeSet[N],
        request: Request[N],
        shortages: Shortages[N] | None = None,
        *,
        despite: bool = False,
    ) -> None:
        self.nodes = self.left = nodes
        self.refused: dict[int, str] = {}
        self.short: Shortage[N] | None = None
        self.full: set[int] = set()
        self.crowded = False
        self._request = request
        self._shortages = shortages
        self._despite = despite
        # Who lacked quota though that was not known.
        self._poor: list[int] = []
        self._scanned = False
        if shortages is not None:
            self.short = shortages.recall(nodes, request, despite=despite)
            self._leave_out()

    @property
    def doubtful(self) -> bool:
        """True if one of those known to lack quota may have got some, unknown to us."""
        if self.short is None or self._shortages is None or self._scanned:
            return False
        return not self._shortages.tells

    def forgive(self, indices: Iterable[int]) -> None:
        """Take back that these are not to be chosen."""
        for index in indices:
            self.refused.pop(index, None)

    def refuse(self, index: int, why: str) -> None:
        """Record why a node has refused. O(1) amortised."""
        if why == "quota":
            self.refuse_for_quota(index)
        elif why == "full":
            self.full.add(index)
        else:
            self.refused[index] = why

    def refuse_for_quota(self, index: int) -> None:
        """Record that a node lacks quota. O(1); O(n) for one in a few, once they are too many."""
        self.refused[index] = "quota"
        self._poor.append(index)
        if len(self._poor) > MOST_REFUSALS:
            # Once all were asked, it is but few who have come to lack it since.
            if self.short is None or not self.short.scanned:
                self.scan()
            else:
                self.close()

    def scan(self) -> None:
        """Ask all nodes whether they lack quota. O(n)."""
        if self._shortages is not None:
            self._poor, self._scanned = [], True
            self.short = self._shortages.scan(self.nodes, self._request, despite=self._despite)
            self._leave_out()

    def ask_again(self) -> None:
        """Ask again those known to lack quota, or some of them; see `Shortages.again`."""
        if self._shortages is None or self.short is None:
            return
        self._scanned = True
        self.close()
        self.short = self._shortages.again(
            self.short, self.nodes, self._request, despite=self._despite
        )
        self._leave_out()

    def close(self) -> None:
        """Remember who lacked quota, for the next request."""
        if self._poor and self._shortages is not None:
            poor, self._poor = self._poor, []
            self.short = self._shortages.learn(
                self.short, self.nodes, self._request, poor, despite=self._despite
            )
            self._leave_out()

    def first_to_wait(self) -> float:
        """Return when the first of those known to lack quota has some; inf if never."""
        if self.short is None or self._shortages is None:
            return float("inf")
        return self._shortages.settled(self.short, self._request, despite=self._despite)

    def _leave_out(self) -> None:
        if self.short is None:
            return
        self.left = self.short.left
        if self.refused:
            gone = self.short.waits.times
            self.refused = {i: why for i, why in self.refused.items() if i not in gone}
        for index in self.short.more:
            self.refused[index] = "quota"
