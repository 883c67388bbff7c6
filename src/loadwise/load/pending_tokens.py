"""Load as the prompt tokens that a node has yet to work through."""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from itertools import count
from threading import RLock
from weakref import WeakValueDictionary

from loadwise._fork import ForkAware, reset_in_child
from loadwise._native import mypyc_attr
from loadwise._prefix_index import PrefixIndex
from loadwise.clock import Clock
from loadwise.load._measure import Cell
from loadwise.load._news import PrefixNews
from loadwise.load._pace import relative_paces
from loadwise.load._prefills import Followers, Prefills, PromptLoad, TokenCell
from loadwise.outcome import Outcome

__all__ = [
    "Followers",
    "PendingTokens",
    "Prefills",
    "PrefixNews",
    "PromptLoad",
    "TokenCell",
    "relative_paces",
]


@mypyc_attr(allow_interpreted_subclasses=True)
class PendingTokens(ForkAware):
    """Load as the uncached prompt tokens sent to a node whose first byte has not come.

    The measure of `PrefixAffinity`, which brings one. A Balancer feeds it: a prompt counts from
    `Balancer.acquire` until `Lease.first_byte`, or the end of its lease. Tokens are characters / 4,
    at least one a prompt. Requests without a prompt count for nothing here.

    Thread-safety: full, by a lock per node that is held for a moment. In a forked child it begins
    at zero, because the parent's requests are not the child's.

    Cost: O(1) to read and to feed.

    Example:
        >>> from loadwise import Balancer
        >>> from loadwise.llm import PendingTokens, PrefixAffinity
        >>> strategy = PrefixAffinity()
        >>> balancer = Balancer(["gpu-1"], strategy)
        >>> lease = balancer.acquire(prompt="Tell me a story. " * 100)
        >>> strategy.facts(["gpu-1"])["pending"]
        [425.0]
        >>> lease.first_byte()
        >>> strategy.facts(["gpu-1"])["pending"]
        [0.0]
        >>> lease.success()
        True
    """

    counts_only = True
    """Tells that there is nothing to observe at a request's end but that it is one less."""

    def __init__(self) -> None:
        self._followers: Followers = []
        self._after_fork()
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._lock = RLock()
        self._turns = count(1)
        self._cells: WeakValueDictionary[Hashable, TokenCell] = WeakValueDictionary()
        self.turn = 0

    def cell(self, node_id: Hashable) -> TokenCell:
        """Return the entry of one node."""
        with self._lock:
            known = self._cells.get(node_id)
            if known is None:
                known = self._cells[node_id] = TokenCell(node_id, self._followers)
            return known

    def load(self, cell: Cell) -> float:
        """Return a node's pending tokens."""
        counted: TokenCell = cell  # type: ignore[assignment]  # as made by cell()
        return counted.prefills.pending

    def observe(self, cell: Cell, latency: float, outcome: Outcome, now: float) -> None:
        """Nothing to note: the tokens are all."""

    def use_clock(self, clock: Clock) -> None:
        """Nothing to time."""

    def forget(self, cell: Cell) -> None:
        """Have the indexes forget what a node has cached that is found UNHEALTHY.

        A server that was down comes back with an empty cache.
        """
        dead: TokenCell = cell  # type: ignore[assignment]  # as made by cell()
        dead.forget()

    def follow(self, index: PrefixIndex) -> PrefixNews | None:
        """Tell an index, for as long as it lives, which nodes have left or died.

        Returns:
            What it hears of what others send where, and they of it; ``None`` without others.
        """
        with self._lock:
            if all(known() is not index for known in self._followers):
                self._followers.append(weakref.ref(index))
        return None

    def sent(self, cell: Cell, token: int, new: float, tokens: float, now: float) -> None:
        """Count a prompt that is on its way.

        Args:
            cell: Of the node that it goes to.
            token: Of its lease; 0 if there is none, so that nobody will tell when it ends.
            new: How many of its tokens the node has probably not cached.
            tokens: How many it has.
            now: The time, by the clock that its first byte is told by, in seconds.
        """
        counted: TokenCell = cell  # type: ignore[assignment]  # as made by cell()
        counted.own.turn = counted.prefills.turn = self.turn = next(self._turns)
        if token:
            counted.own.begin(token, new, tokens, now)

    @staticmethod
    def waiting(cell: Cell) -> Prefills:
        """Return the prompts on their way to a node, as they are counted here."""
        counted: TokenCell = cell  # type: ignore[assignment]  # as made by cell()
        return counted.own
