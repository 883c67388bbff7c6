"""Load as the number of requests in flight."""

from __future__ import annotations

from collections.abc import Hashable
from threading import RLock
from weakref import WeakValueDictionary

from loadwise._fork import ForkAware, reset_in_child
from loadwise._native import mypyc_attr
from loadwise.clock import Clock
from loadwise.load._measure import Cell
from loadwise.outcome import Outcome

__all__ = ["InFlight"]


@mypyc_attr(allow_interpreted_subclasses=True)
class InFlight(ForkAware):
    """Load as the number of requests in flight.

    The plainest measure, and the right one where requests cost about the same on every node.

    Give it to a strategy; the Balancer feeds it. One measure may serve several strategies of a
    Balancer. Shared between balancers, each sees the requests of all.

    Thread-safety: exact without a lock. In a forked child it begins at zero, because the parent's
    requests are not the child's.

    Cost: O(1) to read and to feed.

    Example:
        >>> from loadwise import Balancer, LeastLoad
        >>> balancer = Balancer(["a", "b"], LeastLoad(load=InFlight()))
        >>> with balancer.acquire() as one, balancer.acquire() as other:
        ...     one.node != other.node
        True
    """

    counts_only = True
    """Tells that the load is the length of the cell, and that there is nothing to observe."""

    def __init__(self) -> None:
        self._after_fork()
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._lock = RLock()
        self._cells: WeakValueDictionary[Hashable, Cell] = WeakValueDictionary()

    def cell(self, node_id: Hashable) -> Cell:
        """Return the counter of one node."""
        with self._lock:
            return self._cells.setdefault(node_id, Cell())

    def load(self, cell: Cell) -> float:
        """Return a node's requests in flight."""
        return len(cell)

    rank = staticmethod(len)
    """Orders cells as `load` does, at the cost of a built-in."""

    def observe(self, cell: Cell, latency: float, outcome: Outcome, now: float) -> None:
        """Nothing to note: the count is all."""

    def use_clock(self, clock: Clock) -> None:
        """Nothing to time."""
