"""States of health that a host's processes tell each other; the newest holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Final
from weakref import ref

from loadwise.health import HealthStatus, HealthTracker, NodeHealth
from loadwise.health.adopting import adopt, claim_probes, heard_at
from loadwise.outliers import Ejection
from loadwise.shared_memory._cells import HostCell
from loadwise.shared_memory._claims import HostClaims, TrackerClaims
from loadwise.shared_memory._events import HEALTH
from loadwise.shared_memory._memory import HostMemory

__all__ = ["HostHealth"]

_STATES: Final = {each.value: each for each in HealthStatus}
_MOST: Final = 2**24 - 1
_AHEAD: Final = 1.0


def _place(memory: HostMemory, number: int, row: int) -> int:
    return (memory.layout.block_of(number) + memory.layout.health) // 8 + 4 * row


def _write(cell: HostCell, record: NodeHealth, stamp: float) -> None:
    """Write what this process has found out of a node."""
    memory = cell.memory
    place = _place(memory, cell.number, memory.row)
    # Without a time while it is not whole.
    memory.reals[place] = 0.0
    memory.reals[place + 1] = record.last_failure or 0.0
    memory.words[place + 2] = (
        record.status.value
        | min(record.consecutive_failures, _MOST) << 8
        | min(record.consecutive_successes, _MOST) << 32
    )
    memory.reals[place] = stamp


def _read(cell: HostCell, row: int) -> tuple[float, NodeHealth] | None:
    """Return what a process has found out of a node, and when; ``None`` if nothing, or nonsense."""
    memory = cell.memory
    place = _place(memory, cell.number, row)
    stamp, failed, word = (
        memory.reals[place],
        memory.reals[place + 1],
        memory.words[place + 2],
    )
    now = time.monotonic()
    status = _STATES.get(word & 0xFF)
    if memory.reals[place] != stamp or status is None or not 0.0 < stamp < now + _AHEAD:
        return None
    if not 0.0 <= failed < now + _AHEAD:
        return None
    return stamp, NodeHealth(
        cell.id,
        status,
        (word >> 8) & _MOST,
        (word >> 32) & _MOST,
        failed or None,
        None if status is HealthStatus.HEALTHY else failed or None,
        "found out by another process",
    )


class _News:
    """News of one tracker's nodes, from other processes.

    Args:
        tracker: Who takes them over. It is not kept alive.

    For one thread at a time.
    """

    def __init__(self, tracker: HealthTracker) -> None:
        self._tracker = ref(tracker)
        # When the newest was found out of each node, that is known here.
        self._newest: dict[Hashable, float] = {}
        # The change that is being taken over now, which is not to be told again.
        self.adopting: tuple[Hashable, HealthStatus] | None = None

    @property
    def tracker(self) -> HealthTracker | None:
        """The tracker, if it is still there."""
        return self._tracker()

    def told(self, node_id: Hashable, stamp: float) -> None:
        """Note that something was found out of a node that was not told by this host."""
        self._newest[node_id] = stamp

    def newest(self, node_id: Hashable) -> float | None:
        """Return when the state was found out that is being taken over of a node, if any is."""
        adopting = self.adopting
        return self._newest.get(node_id) if adopting and adopting[0] == node_id else None

    def eject(self, node_id: Hashable, reason: str, until: float) -> None:
        """Have the tracker keep a node down that another process has ejected."""
        tracker = self._tracker()
        if tracker is not None:
            tracker.eject(node_id, reason, until)

    def hear(self, cell: HostCell, row: int, words: str) -> None:
        """Take over what a process has found out, if it is the newest."""
        tracker, found = self._tracker(), _read(cell, row)
        if tracker is None or found is None or found[0] <= self._newest.get(cell.id, 0.0):
            return
        stamp, record = found
        self._newest[cell.id] = stamp
        if words:
            record = NodeHealth(
                record.id,
                record.status,
                record.consecutive_failures,
                record.consecutive_successes,
                record.last_failure,
                record.down_since,
                f"{words} (found out by another process)",
            )
        self.adopting = cell.id, record.status
        try:
            adopt(tracker, record, stamp)
        finally:
            self.adopting = None


class HostHealth:
    """Exchange of states of health between this process's trackers and the others of the host.

    Args:
        find: Returns the entry of a node, if others can see it.
        post: Tells others that something of a node has changed.

    Thread-safety: that of the trackers; news are heard by one thread at a time.
    """

    def __init__(
        self,
        find: Callable[[Hashable], HostCell | None],
        post: Callable[[HostCell, int, str], None],
    ) -> None:
        self._find = find
        self._post = post
        self._news: list[_News] = []
        self._claims = HostClaims(find)

    def after_fork(self) -> None:
        """Leave the probes that are under way to the parent."""
        self._claims.forget()

    def share(self, tracker: HealthTracker) -> bool:
        """Have a tracker take part, for as long as it lives; ``False`` if it does."""
        if any(news.tracker is tracker for news in self._news):
            return False
        news = _News(tracker)
        self._news = [each for each in self._news if each.tracker is not None] + [news]

        def changed(node_id: Hashable, _old: HealthStatus, new: HealthStatus) -> None:
            alive = news.tracker
            if alive is None or news.adopting == (node_id, new):
                return
            heard = heard_at(alive, node_id)
            if heard is None:
                self._tell(alive, node_id, news)
            else:  # from beyond this host, as the others hear themselves
                news.told(node_id, heard)

        tracker.subscribe(changed)
        claim_probes(tracker, TrackerClaims(self._claims))
        return True

    def hear(self, cell: HostCell, row: int, words: str) -> None:
        """Take over what a process has found out of a node, if it is the newest."""
        for news in list(self._news):
            news.hear(cell, row, words)

    def eject(self, node_id: Hashable, ejection: Ejection) -> None:
        """Have all trackers keep a node down that another process has ejected."""
        for news in list(self._news):
            news.eject(node_id, ejection.reason, ejection.until)

    def found(self, tracker: HealthTracker, node_id: Hashable) -> float | None:
        """Return when another process found out what a tracker is taking over now of a node.

        ``None`` where it takes nothing over.
        """
        news = next((each for each in self._news if each.tracker is tracker), None)
        return None if news is None else news.newest(node_id)

    def catch_up_on(self, cell: HostCell) -> None:
        """Take over what is known of a node that is new here."""
        if self._news and self._find(cell.id) is cell:
            for row in range(cell.memory.layout.rows):
                self.hear(cell, row, "")

    def _tell(self, tracker: HealthTracker, node_id: Hashable, news: _News) -> None:
        cell = self._find(node_id)
        if cell is None or tracker.is_ejected(node_id):
            return
        stamp, record = time.monotonic(), tracker.health(node_id)
        news.told(node_id, stamp)
        _write(cell, record, stamp)
        self._post(cell, HEALTH, record.reason or "")
        # Trackers of other balancers of this process hear of it, too.
        self.hear(cell, cell.memory.row, record.reason or "")
