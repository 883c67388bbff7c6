"""Exchange between this process and the others of its host, by the memory that they share."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable
from itertools import count
from threading import RLock
from typing import Final
from weakref import WeakValueDictionary

from loadwise._fork import ForkAware, reset_in_child
from loadwise._log import log_exception, log_warning
from loadwise.health import HealthTracker
from loadwise.load import InFlight, LoadMeasure, PeakEwma, PendingTokens
from loadwise.shared_memory._cells import HostCell, Left
from loadwise.shared_memory._events import FORGOTTEN, NOTHING, heard_since, tell
from loadwise.shared_memory._measures import HostInFlight, HostPeakEwma
from loadwise.shared_memory._memory import HostMemory
from loadwise.shared_memory._node_news import NodeNews
from loadwise.shared_memory._node_table import HostNodes, key_of
from loadwise.shared_memory._opening import Unshareable, open_shared, what_has_become_of
from loadwise.shared_memory._pending import HostPendingTokens

__all__ = ["HostExchange"]

_LOOKS: Final = 1.0
"""Seconds between looks at the rows of others, and at the file."""
_TRIES_AGAIN: Final = 10.0
"""Seconds until it is tried again to share, for who could not."""


class HostExchange(ForkAware):
    """Row of this process in a host's memory, and all that is written there.

    There is one in a process for each file, however many balancers use it. Where the file cannot
    be shared the process has memory of its own, and looks every 10 seconds whether that has
    changed.

    Args:
        path: The file.
        processes: How many processes may take part.
        nodes: How many nodes there is room for.

    Attributes:
        path: The file.
        processes: How many processes may take part, where this one builds the file.
        nodes: How many nodes there is room for, where this one builds the file.
        memory: The memory, shared or not.
        chime: What differs after each change.
        chimed: The same as it was when it was last looked; -1 for never.
        heard: Which bells have been heard.
        reach: How many rows there are to look at.
        due: When the next look is due, by the host's clock.
        counter: The measure that counts requests.
        news: What processes tell each other of nodes.

    Thread-safety: a lock for nodes that come, and for looks; who comes meanwhile does without.
    """

    def __init__(self, path: str, processes: int, nodes: int) -> None:
        self.path = path
        self.processes = processes
        self.nodes = nodes
        self.counter = HostInFlight(self)
        self._ewma: HostPeakEwma | None = None
        self._pending: HostPendingTokens | None = None
        self._told: set[str] = set()
        self._nameless = count()
        self._closed = False
        self.news = NodeNews(self._shared, self._post)
        self._cells: WeakValueDictionary[Hashable, HostCell] = WeakValueDictionary()
        self._begin()
        reset_in_child(self)

    def _begin(self) -> None:
        # Re-entrant: the collector may strike while it is held, and close a generator that asks
        # for a node.
        self._lock = RLock()
        self._attends = False
        self._left: Left = []
        self._spares: list[HostNodes] = []
        self._crowded: set[Hashable] = set()
        self._use(self._opened())

    def _after_fork(self) -> None:
        before, orphans = self.memory, list(self._cells.values())
        before.leave()
        self._cells = WeakValueDictionary()
        self.news.after_fork()
        # The parent's requests may end here, too: what is written of them goes nowhere.
        nowhere = HostMemory.private(1)
        for cell in orphans:
            cell.move(nowhere, 0, 1)
        self._begin()

    def _opened(self) -> HostMemory:
        """Return memory to work with; where it cannot be shared, say so once."""
        self._tries_again = float("inf")
        if self._closed:
            return HostMemory.private(self.nodes)
        try:
            memory = open_shared(self.path, self.processes, self.nodes)
        except Unshareable as error:
            self._tries_again = time.monotonic() + _TRIES_AGAIN
            self._warn("%s", f"{error}; this process goes on alone")
            return HostMemory.private(self.nodes)
        if (memory.layout.processes, memory.layout.nodes) != (self.processes, self.nodes):
            self._warn(
                "it has room for %s processes and %s nodes, as those say who hold it",
                memory.layout.processes,
                memory.layout.nodes,
            )
        return memory

    def _warn(self, message: str, *arguments: object) -> None:
        """Log a warning about the file, once."""
        text = message % arguments
        if text not in self._told:
            self._told.add(text)
            log_warning("host state %r: %s", self.path, text)

    def _use(self, memory: HostMemory) -> None:
        self.memory = memory
        self._table = HostNodes(memory)
        self.chime = memory.chime
        self.chimed = -1
        self.heard = b""
        self.reach = max(memory.row + 1, memory.reach())
        self.due = time.monotonic() + _LOOKS
        self.expect_costs()
        if self._pending is not None:
            self._pending.open_log(self._warn)
        tell(memory, NOTHING)

    @property
    def is_shared(self) -> bool:
        """True if other processes can see what this one does."""
        return self.memory.locks is not None

    @property
    def is_closed(self) -> bool:
        """True after `close`."""
        return self._closed

    def expect_costs(self) -> None:
        """Tell the measure of costs what can be, and tell others by what its scores fade."""
        if self._ewma is not None:
            self._ewma.expect(time.monotonic())
            self.memory.fade_by(self._ewma.tau)
            others = {self.memory.tau(row) for row in range(self.reach)} - {0.0}
            self._ewma.mix(mixed=others != {self._ewma.tau})

    def measures(self, own: Iterable[LoadMeasure]) -> tuple[LoadMeasure, ...]:
        """Return the measures to consult in the place of a strategy's own."""
        return tuple(map(self._measure, own))

    def _measure(self, own: LoadMeasure) -> LoadMeasure:
        if type(own) is InFlight:
            return self.counter
        if type(own) is PendingTokens:
            with self._lock:
                if self._pending is None:
                    self._pending = HostPendingTokens(self)
                    self._pending.open_log(self._warn)
                return self._pending
        if type(own) is not PeakEwma:
            return own
        with self._lock:
            if self._ewma is None:
                self._ewma = HostPeakEwma(self, *own.settings)
                self.expect_costs()
                tell(self.memory, NOTHING)
            if own.settings == (self._ewma.tau, self._ewma.factor):
                return self._ewma
        self._warn(
            "PeakEwma(%g, failure_factor=%g) is not shared, for another of this process is",
            *own.settings,
        )
        return own

    def cell(self, node_id: Hashable) -> HostCell:
        """Return the entry of one node, the same for as long as anyone holds it."""
        with self._lock:
            known = self._cells.get(node_id)
            if known is None:
                self._settle()
                memory, index = self._find(node_id)
                known = HostCell(node_id, memory, index, self._left)
                known.move(memory, index, self._reach_in(memory))
                self._cells[node_id] = known
                self.news.catch_up_on(known)
            return known

    def _reach_in(self, memory: HostMemory) -> int:
        return self.reach if memory is self.memory else 1

    def _find(self, node_id: Hashable) -> tuple[HostMemory, int]:
        """Return where a node is to be counted; in memory of its own, where there is no room."""
        key = key_of(node_id)
        if key is None:
            self._warn(
                "node %r is not shared, for others could not know it by its id; give it one that "
                "is a str, a number or a tuple of them",
                node_id,
            )
        else:
            index = self._table.take(key)
            if index is not None:
                self._crowded.discard(node_id)
                return self.memory, index
            # Others that are adding are done by the next look, which tries again.
            if node_id in self._crowded or self.memory.used >= self.memory.layout.nodes:
                self._warn(
                    "another node beside %s could not be added, for it or its disk is full, or "
                    "others are adding; until it can, what is left over is balanced by this "
                    "process alone. If it is full, give max_nodes of more in all processes",
                    self.memory.used,
                )
            self._crowded.add(node_id)
        own = key if key is not None else b"\0%d" % next(self._nameless)
        for table in self._spares:
            index = table.take(own)
            if index is not None:
                return table.memory, index
        table = HostNodes(HostMemory.private(max(self.nodes, 64)))
        self._spares.append(table)
        index = table.take(own)
        return table.memory, 0 if index is None else index

    def _settle(self) -> None:
        """Give up the nodes that nobody here has any more."""
        while self._left:
            memory, index, node_id = self._left.pop()
            cell = self._cells.get(node_id)
            if cell is not None and cell.memory is memory and cell.number == index:
                continue
            self._crowded.discard(node_id)
            memory.forget_own(index)

    def forget(self, cell: HostCell) -> None:
        """Have all processes take a node for one never measured, with nothing cached."""
        self._post(cell, FORGOTTEN, "")

    def catch_up(self) -> None:
        """Take in what others have told, if anything."""
        if self.chime[0] != self.chimed or time.monotonic() >= self.due:
            self.attend()

    def attend(self) -> None:
        """Take in what others have told; once a second, look who is there.

        Where another thread does so already, it is left to that.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._attends:
                return
            self._attends = True
            try:
                self._attend()
            finally:
                self._attends = False
        finally:
            self._lock.release()

    def _attend(self) -> None:
        now = time.monotonic()
        self.chimed = self.chime[0]  # before the bells: see HostMemory
        bells = self.memory.bells.tobytes()
        if bells != self.heard:
            before, self.heard = self.heard, bells
            self._look_around()
            self._hear(before, bells)
        if now >= self.due:
            # First, so that what fails is not tried again by every pick.
            self.due = now + _LOOKS
            try:
                self._tend(now)
            except Exception:  # noqa: BLE001 - a damaged file may lead anywhere, and no pick may fail
                log_exception("host state %r could not be looked after", self.path)

    def _look_around(self) -> None:
        """See which rows there are now."""
        self.reach = reach = max(self.memory.row + 1, self.memory.reach())
        if self._pending is not None:
            self._pending.look_at(reach)
        for cell in list(self._cells.values()):
            if cell.memory is self.memory:
                cell.look_at(reach)
        self.expect_costs()

    def _hear(self, before: bytes, bells: bytes) -> None:
        """Take in what others have told since."""
        cells = {cell.number: cell for cell in self._cells.values() if cell.memory is self.memory}
        for event in heard_since(self.memory, before, bells):
            if isinstance(event, int):  # some of it was missed
                for cell in cells.values():
                    self.news.missed(cell, event)
            elif event.kind == FORGOTTEN:
                self._forget_here(event.node)
            elif event.node in cells:
                self.news.hear(cells[event.node], event)

    def share_health(self, tracker: HealthTracker) -> None:
        """Have a tracker tell others of changes, and take over theirs, for as long as it lives."""
        if self.news.health.share(tracker):
            self.look_anew()

    def look_anew(self) -> None:
        """Take in how all nodes are that this process has, for who is new here."""
        with self._lock:
            for cell in list(self._cells.values()):
                self.news.catch_up_on(cell)

    def _shared(self, node_id: Hashable) -> HostCell | None:
        """Return the entry of a node, if others can see it."""
        cell = self._cells.get(node_id)
        return cell if cell is not None and cell.memory is self.memory else None

    def _post(self, cell: HostCell, kind: int, words: str) -> None:
        with self._lock:
            if cell.memory is self.memory:
                tell(self.memory, kind, cell.number, words)

    def _forget_here(self, number: int) -> None:
        for cell in list(self._cells.values()):
            if cell.number == number and cell.memory is self.memory:
                if self._ewma is not None:
                    self._ewma.forget_here(cell)
                if self._pending is not None:
                    self._pending.forget_here(cell.id)

    def _tend(self, now: float) -> None:
        """Look after the file, the rows of the dead, and what this process has written itself."""
        memory = self.memory
        trouble = what_has_become_of(self.path, memory)
        if trouble is not None:
            self._warn("%s; this process has left it", trouble)
            self._move_to(self._opened())
        elif now >= self._tries_again:
            other = self._opened()
            if other.locks is not None:
                self._told.clear()
                self._move_to(other)
        self._settle()
        memory = self.memory
        if memory.locks is not None:
            if memory.sign_again() or memory.clear_dead(self.reach):
                tell(memory, NOTHING)
            self._mend()
            for node_id in list(self._crowded):
                cell = self._cells.get(node_id)
                if cell is not None:
                    self._place(cell)
        self.expect_costs()

    def _mend(self) -> None:
        """Write again what others have written over, if anything. O(nodes)."""
        cells: set[int] = set()
        for cell in list(self._cells.values()):
            if cell.memory is self.memory:
                cells.add(cell.number)
                if cell.mine[0] != len(cell):
                    cell.publish()
                if cell.waiting or cell.my_age[0]:
                    cell.publish_age()
                cell.publish_cost()
        self.memory.mend(cells)
        if self._pending is not None:
            self._pending.publish()

    def _move_to(self, memory: HostMemory) -> None:
        """Go on in another memory."""
        before = self.memory
        self._use(memory)
        self._crowded.clear()
        for cell in list(self._cells.values()):
            self._place(cell)
        before.leave()

    def _place(self, cell: HostCell) -> None:
        memory, index = self._find(cell.id)
        if cell.memory is memory and cell.number == index:
            return
        self._left.append((cell.memory, cell.number, cell.id))
        cell.move(memory, index, self._reach_in(memory))

    def pids(self) -> list[int]:
        """Return the processes that have a row."""
        return [pid for row in range(self.reach) if (pid := self.memory.pid(row))]

    def close(self) -> None:
        """Leave the file, and go on alone."""
        with self._lock:
            self._closed = True
            self._move_to(self._opened())
