"""Host without processes or a file: several balancers of one process, as if each had its own."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Hashable, Iterable
from math import inf

import loadwise.health.adopting as adoption
from loadwise._log import log_warning
from loadwise._numbers import shown
from loadwise.clock import Clock
from loadwise.health import HealthStatus, HealthTracker, NodeHealth
from loadwise.load import InFlight, LoadMeasure, PeakEwma, PendingTokens
from loadwise.outliers import Ejection
from loadwise.shared_memory._cells import HostCell, Left
from loadwise.shared_memory._ejections import HostEjections
from loadwise.shared_memory._events import EJECTED
from loadwise.shared_memory._layout import MemoryLayout
from loadwise.shared_memory._measures import HostInFlight, HostPeakEwma
from loadwise.shared_memory._memory import HostMemory
from loadwise.shared_memory._pending import HostPendingTokens
from loadwise.shared_memory._starts import BalancerStarts, HostStarts

__all__ = ["VirtualHost", "VirtualProcess"]


class VirtualHost:
    """Host of simulated processes, which share by the same numbers as real ones by `HostState`.

    Each has a row, and reads and writes it by the code that ships. Only the memory is private, the
    clock may be any, and news of health arrive at once instead of at the next pick.

    Args:
        clock: What all balancers go by.
        processes: How many processes there are, at least 1.
        nodes: How many different nodes there will ever be, at least 1.

    Thread-safety: none; it is for one thread.

    Cost: as `HostState`.

    Example:
        >>> from loadwise import Balancer, InFlight, LeastLoad
        >>> from loadwise.testing import ManualClock
        >>> clock = ManualClock()
        >>> host = VirtualHost(clock, processes=2, nodes=2)
        >>> one, other = (
        ...     Balancer(["a", "b"], LeastLoad(load=InFlight()), clock=clock, host=process)
        ...     for process in host.processes
        ... )
        >>> with one.acquire() as first, other.acquire() as second:
        ...     first.node != second.node
        True
    """

    def __init__(self, clock: Clock, *, processes: int, nodes: int) -> None:
        self.clock = clock
        self._numbers: dict[Hashable, int] = {}
        self._found: dict[Hashable, NodeHealth] = {}
        self._is_telling = False
        layout = MemoryLayout(processes, nodes)
        buffer = mmap.mmap(-1, layout.size)
        self.processes = tuple(
            VirtualProcess(self, HostMemory(layout, buffer, None, row), processes)
            for row in range(processes)
        )

    def number(self, node_id: Hashable) -> int:
        """Return the number of a node's block."""
        return self._numbers.setdefault(node_id, len(self._numbers))

    def found(self, node_id: Hashable) -> NodeHealth | None:
        """Return what was last found out of a node's health, by any process."""
        return self._found.get(node_id)

    def tell(self, teller: VirtualProcess, record: NodeHealth) -> None:
        """Have all others take over what one process has found out."""
        if self._is_telling:
            return  # it is what they have just been told
        self._found[record.id] = record
        self._is_telling = True
        try:
            for process in self.processes:
                if process is not teller:
                    process.hear(record)
        finally:
            self._is_telling = False

    @property
    def is_telling(self) -> bool:
        """True while processes take over what another has found out."""
        return self._is_telling

    def post(self, teller: VirtualProcess, cell: HostCell, kind: int, words: str) -> None:
        """Tell all others that a node was ejected, or that its slow start has begun."""
        for process in self.processes:
            if process is not teller:
                process.take_in(cell, kind, words)

    def forget(self, teller: VirtualProcess, node_id: Hashable) -> None:
        """Have all others take a node for one never measured."""
        for process in self.processes:
            if process is not teller:
                process.forget_here(node_id)


class VirtualProcess:
    """One process of a virtual host, to be given to one balancer as its ``host``.

    Args:
        host: The host.
        memory: Its memory, and the row in it that is the process's.
        reach: How many rows there are to look at.

    Attributes:
        counter: The measure that counts requests.
        memory: The host's memory.
        reach: How many rows there are to look at.
        due: When others are to be looked after next: never.
    """

    due = inf

    def __init__(self, host: VirtualHost, memory: HostMemory, reach: int) -> None:
        self._host = host
        self.memory = memory
        self.reach = reach
        self._cells: dict[Hashable, HostCell] = {}
        self._left: Left = []
        self._ewma: HostPeakEwma | None = None
        self._pending: HostPendingTokens | None = None
        self._health: HealthTracker | None = None
        self._started = 0
        self._on_start: Callable[[Hashable, float], None] | None = None
        self._starts = HostStarts(self._cells.get, self._post, host.clock)
        self._ejections = HostEjections(self._cells.get, self._post, host.clock)
        self._ejections.share(self._eject)
        self.counter: InFlight = HostInFlight(self)

    def check_clock(self, clock: Clock) -> None:
        """Raise ``ValueError`` unless a clock is that of the host."""
        if clock != self._host.clock:
            raise ValueError(
                f"clock is {shown(clock)}, but this host goes by {shown(self._host.clock)}; "
                f"give both the same"
            )

    def measures(self, own: Iterable[LoadMeasure]) -> tuple[LoadMeasure, ...]:
        """Return the measures that a strategy is to consult in the place of its own."""
        return tuple(map(self._measure, own))

    def _measure(self, own: LoadMeasure) -> LoadMeasure:
        if type(own) is InFlight:
            return self.counter
        if type(own) is PendingTokens:
            if self._pending is None:
                self._pending = HostPendingTokens(self)
                self._pending.open_log(log_warning)
            return self._pending
        if type(own) is not PeakEwma:
            return own
        if self._ewma is None:
            self._ewma = HostPeakEwma(self, *own.settings)
            self.memory.fade_by(self._ewma.tau)
        if own.settings == (self._ewma.tau, self._ewma.factor):
            return self._ewma
        return own

    def cell(self, node_id: Hashable) -> HostCell:
        """Return the entry of one node, always the same."""
        known = self._cells.get(node_id)
        if known is None:
            number = self._host.number(node_id)
            known = HostCell(node_id, self.memory, number, self._left)
            known.look_at(self.reach)
            self._cells[node_id] = known
            found = self._host.found(node_id)
            if found is not None:
                self.hear(found)
            self._ejections.catch_up_on(known)
        self._hold(known, is_held=True)
        return known

    def _hold(self, cell: HostCell, *, is_held: bool) -> None:
        layout = self.memory.layout
        self.memory.raw[layout.block_of(cell.number) + layout.holds + self.memory.row] = is_held

    def forget(self, cell: HostCell) -> None:
        """Have all processes take a node for one never measured."""
        self._host.forget(self, cell.id)

    def forget_here(self, node_id: Hashable) -> None:
        """Take a node for one never measured, in this process."""
        cell = self._cells.get(node_id)
        if cell is not None and self._ewma is not None:
            self._ewma.forget_here(cell)
        if self._pending is not None:
            self._pending.forget_here(node_id)

    def catch_up(self) -> None:
        """Nothing to take in: news come at once."""

    def tend(self) -> None:
        """Nothing to look after."""

    def watch(self, health: HealthTracker | None) -> VirtualProcess:
        """Return what has the version of the balancer's health: itself."""
        self._health = health
        if health is not None:
            health.subscribe(self._changed)
        return self

    @property
    def version(self) -> int:
        """Version of the health, and of slow starts that others began."""
        return self._started if self._health is None else self._started + self._health.version

    def share_starts(self, heard: Callable[[Hashable, float], None]) -> BalancerStarts:
        """Return where the balancer's slow starts are told; have it told of those of others."""
        self._on_start = heard
        starts = self._starts.share(self._found_at, self._hear_start)
        starts.left = self._left_by_balancer
        return starts

    def share_ejections(self, heard: Callable[[Hashable, Ejection], None]) -> HostEjections:
        """Return where the balancer's ejections are told; have it told of those of others."""
        self._ejections.share(heard)
        for cell in self._cells.values():
            self._ejections.catch_up_on(cell)
        return self._ejections

    def _found_at(self, _node_id: Hashable) -> float | None:
        return self._host.clock() if self._host.is_telling else None

    def _left_by_balancer(self, node_id: Hashable) -> None:
        self._starts.left(node_id)
        cell = self._cells.get(node_id)
        if cell is not None:
            self._hold(cell, is_held=False)

    def _hear_start(self, node_id: Hashable, since: float) -> None:
        if self._on_start is not None:
            self._on_start(node_id, since)
            self._started += 1

    def _eject(self, node_id: Hashable, ejection: Ejection) -> None:
        if self._health is not None:
            self._health.eject(node_id, ejection.reason, ejection.until)

    def _post(self, cell: HostCell, kind: int, words: str) -> None:
        self._host.post(self, cell, kind, words)

    def take_in(self, told: HostCell, kind: int, words: str) -> None:
        """Take in that another process has ejected a node, or begun its slow start."""
        cell = self._cells.get(told.id)
        if cell is not None and kind == EJECTED:
            self._ejections.hear(cell, told.memory.row, words)
        elif cell is not None:
            self._starts.hear(cell, told.memory.row)

    def _changed(self, node_id: Hashable, _old: HealthStatus, _new: HealthStatus) -> None:
        health = self._health
        if health is None or adoption.heard_at(health, node_id) is not None:
            return
        if node_id in self._cells and not health.is_ejected(node_id):
            self._host.tell(self, health.health(node_id))

    def hear(self, record: NodeHealth) -> None:
        """Take over what another process has found out of a node, if this one has the node."""
        if self._health is not None and record.id in self._cells:
            adoption.adopt(self._health, record, self._host.clock())
