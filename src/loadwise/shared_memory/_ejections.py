"""Ejections that a host's processes tell each other, and the results that they judge by."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Final

from loadwise.clock import Clock
from loadwise.outliers import Ejection, Sample
from loadwise.shared_memory._audience import Audience
from loadwise.shared_memory._cells import HostCell
from loadwise.shared_memory._events import EJECTED
from loadwise.shared_memory._locks import EJECTING, ByteLocks
from loadwise.shared_memory._memory import HostMemory

__all__ = ["HostEjections"]

_PATIENCE: Final = 0.02
"""Seconds to wait for another process that ejects a node; one that takes longer is frozen."""
_PAUSE: Final = 0.0005
_FARTHEST: Final = 86_400.0
"""Seconds: an ejection that lasts longer was forged."""
_NUMBERS: Final = 3
_MOST: Final = 2**53
_MOST_IN_A_ROW: Final = 1_000


class HostEjections:
    """Exchange of ejections between this process's balancers and those of other processes.

    Each process writes until when the nodes are out that it has ejected, and how many requests have
    ended well, failed and been slow, as of its last sweep.

    Args:
        find: Returns the entry of a node, if others can see it.
        post: Tells others that something of a node has changed.
        clock: The host's clock.

    Attributes:
        find: The same.
        lock: Held while this process's numbers are added up, and while it ejects a node.

    Thread-safety: full; news are heard by one thread at a time.
    """

    def __init__(
        self,
        find: Callable[[Hashable], HostCell | None],
        post: Callable[[HostCell, int, str], None],
        clock: Clock = time.monotonic,
    ) -> None:
        self.find = find
        self._post = post
        self._clock = clock
        self._audience = Audience[Ejection]()
        self.after_fork()

    def after_fork(self) -> None:
        """Replace the lock."""
        self.lock = Lock()

    def share(self, heard: Callable[[Hashable, Ejection], None]) -> None:
        """Tell a method of the ejections of others; its object is not kept alive."""
        self._audience.add(heard)

    def hear(self, cell: HostCell, row: int, words: str) -> None:
        """Tell this process's balancers of an ejection by another, if it lasts."""
        until, now = cell.memory.reals[self._place(cell) + row], self._clock()
        if now < until < now + _FARTHEST:
            self._audience.tell(cell.id, _parsed(words, now, until))

    def catch_up_on(self, cell: HostCell) -> None:
        """Tell this process's balancers of a node that is out while it is new here."""
        for row, until in enumerate(self._written(cell)):
            if until and row != cell.memory.row:
                self.hear(cell, row, "")

    @contextmanager
    def order(self, node_id: Hashable) -> Generator[None, None, None]:
        """Have no other process eject a node meanwhile, unless one is frozen amid it."""
        cell = self.find(node_id)
        locks = None if cell is None else cell.memory.locks
        with self.lock:
            taken = locks is not None and _taken(locks)
            try:
                yield
            finally:
                if taken and locks is not None:
                    with suppress(OSError):
                        locks.free(EJECTING)

    def is_out(self, node_id: Hashable, now: float) -> bool:
        """Tell whether any process has ejected a node for longer than now. O(processes)."""
        cell = self.find(node_id)
        if cell is None:
            return False
        return any(now < until < now + _FARTHEST for until in self._written(cell))

    def keep(self, node_id: Hashable, until: float) -> None:
        """Write until when a node is out."""
        cell = self.find(node_id)
        if cell is not None:
            cell.memory.reals[self._place(cell) + cell.memory.row] = until

    def tell(self, node_id: Hashable, ejection: Ejection) -> None:
        """Tell all processes of an ejection that was written."""
        cell = self.find(node_id)
        if cell is not None:
            self._post(
                cell,
                EJECTED,
                f"{ejection.count} {ejection.since!r} {ejection.rule} {ejection.reason}",
            )

    def results(self, node_id: Hashable) -> HostResults:
        """Return where the results of a node are told, and those of others read."""
        return HostResults(self, node_id)

    def _written(self, cell: HostCell) -> Sequence[float]:
        place = self._place(cell)
        return cell.memory.reals[place : place + cell.memory.layout.rows].tolist()

    @staticmethod
    def _place(cell: HostCell) -> int:
        layout = cell.memory.layout
        return (layout.block_of(cell.number) + layout.ejections) // 8


class HostResults:
    """Results of one node's requests in all processes, as one balancer goes by them.

    Args:
        host: Ejections of the host.
        node_id: The node.

    Not thread-safe: the ejector holds a lock.
    """

    __slots__ = ("_host", "_id", "_memory", "_seen")

    def __init__(self, host: HostEjections, node_id: Hashable) -> None:
        self._host = host
        self._id = node_id
        # What others had told when they were last asked, and in which memory.
        self._memory: tuple[HostMemory, int] | None = None
        self._seen = b""
        self.pool(Sample(0, 0))

    def pool(self, own: Sample) -> tuple[Sample, int]:
        """Tell this process's results; return those of others since, and whose rows they are.

        The rows are the bits of a number. O(processes).
        """
        cell = self._host.find(self._id)
        if cell is None:
            return Sample(0, 0), 0
        memory, layout = cell.memory, cell.memory.layout
        first = (layout.block_of(cell.number) + layout.results) // 8
        mine = first + _NUMBERS * memory.row
        if own.total:
            with self._host.lock:
                for place, number in enumerate(own, mine):
                    memory.words[place] = (memory.words[place] + number) % 2**64
        told = bytearray(memory.words[first : first + _NUMBERS * len(cell.seen)].tobytes())
        told[8 * _NUMBERS * memory.row : 8 * _NUMBERS * (memory.row + 1)] = bytes(8 * _NUMBERS)
        seen, self._seen = self._seen, bytes(told)
        known, self._memory = self._memory, (memory, cell.number)
        if known != self._memory or seen == self._seen:
            return Sample(0, 0), 0
        sums, rows = [0] * _NUMBERS, 0
        before = memoryview(seen.ljust(len(told), b"\0")[: len(told)]).cast("Q")
        for place, (new, old) in enumerate(zip(memoryview(told).cast("Q"), before, strict=True)):
            more = new - old if new >= old else new  # a row that another process has taken
            if 0 < more < _MOST:
                sums[place % _NUMBERS] += more
                rows |= 1 << place // _NUMBERS
        return Sample(*sums), rows


def _taken(locks: ByteLocks) -> bool:
    """Take the lock of who ejects a node; ``False`` if a process that has it seems frozen."""
    latest = time.monotonic() + _PATIENCE
    with suppress(OSError):
        while not locks.take(EJECTING):
            if time.monotonic() > latest:
                return False
            time.sleep(_PAUSE)
        return True
    return False


def _parsed(words: str, now: float, until: float) -> Ejection:
    """Return an ejection that was told; where the words were missed, one that begins now."""
    try:
        count, since, rule, reason = words.split(" ", 3)
        began = float(since)
        if now - _FARTHEST < began <= now:
            reason = f"{reason} (found out by another process)"
            return Ejection(began, until, max(1, min(int(count), _MOST_IN_A_ROW)), reason, rule)
    except ValueError:
        pass
    return Ejection(now, until, 1, "ejected by another process", "")
