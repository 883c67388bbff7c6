"""Picture of a host: what its processes have in flight, and what it costs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from threading import RLock
from typing import Final
from weakref import WeakValueDictionary

from loadwise._numbers import shown, whole
from loadwise.clock import Clock
from loadwise.health import HealthTracker
from loadwise.load import InFlight, LoadMeasure
from loadwise.shared_memory._exchange import HostExchange
from loadwise.shared_memory._paths import path_of
from loadwise.shared_memory._vitals import HostVitals

__all__ = ["HostState"]

_MOST_PROCESSES: Final = 4096
_MOST_NODES: Final = 2**20


class HostState:
    """Picture of a host's nodes that its processes share, by one memory-mapped file.

    Give it to the balancers of all of them: ``Balancer(nodes, host=HostState("api"))``. Each then
    sees the requests that all have in flight, the highest of their costs, the oldest request, and
    whom any of them found down or ejected. Slow starts go by one clock. With a strategy of
    `loadwise.llm` it also sees which prompts were sent where, and which of them wait.

    Args:
        path_or_name: A name, for a file of this user in ``/dev/shm``, or in the folder of temporary
            files; or a path, of a file on a disk of this host, which is made where it is missing.
        max_processes: How many processes may take part, from 1 to 4096.
        max_nodes: How many nodes there is room for, from 1 to 2 ** 20. A node takes about 8 kB of
            memory with 64 processes, as soon as somebody has it.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: One is out of range, the folder is missing, or this process has the same file
            with other sizes.

    No server, no thread, and no lock in a pick. What cannot be shared is not: where the file is
    another user's, of another release or no file of loadwise, where all rows are taken, and on
    systems without ``F_OFD_SETLK`` (all but Linux), one warning says so, and the process goes on
    alone.

    A process that dies is found out within a second, by the lock of its row, which the kernel
    frees; what it had in flight then counts no more. One that is stopped keeps its row.

    Thread-safety: full. In a forked child it takes a row of the child's own.

    Cost: O(processes) for each load that is read; once a second O(processes + nodes).

    Example:
        >>> import os, tempfile
        >>> from loadwise import Balancer
        >>> host = HostState(os.path.join(tempfile.mkdtemp(), "api"))
        >>> balancer = Balancer(["a", "b"], host=host)
        >>> with balancer.acquire() as lease:
        ...     sum(status.in_flight for status in balancer.status())
        1
    """

    def __init__(
        self,
        path_or_name: str | os.PathLike[str],
        *,
        max_processes: int = 64,
        max_nodes: int = 4096,
    ) -> None:
        processes = _up_to("max_processes", max_processes, _MOST_PROCESSES)
        nodes = _up_to("max_nodes", max_nodes, _MOST_NODES)
        self._exchange = _exchange_of(path_of(path_or_name), processes, nodes)

    @property
    def path(self) -> str:
        """The file."""
        return self._exchange.path

    @property
    def is_shared(self) -> bool:
        """True if other processes can see what this one does."""
        return self._exchange.is_shared

    @property
    def processes(self) -> list[int]:
        """The ids of the processes that take part, this one's first if it is alone."""
        return self._exchange.pids()

    def close(self) -> None:
        """Leave: this process gives up its row, and all its balancers go on alone."""
        self._exchange.close()

    def measures(self, own: Iterable[LoadMeasure]) -> tuple[LoadMeasure, ...]:
        """Return the measures that a strategy is to consult in the place of its own.

        For balancers. `loadwise.InFlight`, `loadwise.PeakEwma` and `loadwise.llm.PendingTokens`
        themselves are replaced.
        """
        return self._exchange.measures(own)

    @property
    def counter(self) -> InFlight:
        """The measure that counts requests. For balancers."""
        return self._exchange.counter

    def catch_up(self) -> None:
        """Take in what others have told. For balancers."""
        self._exchange.catch_up()

    def watch(self, health: HealthTracker | None) -> HostVitals:
        """Return what tells a balancer whether something has changed. For balancers."""
        return HostVitals(self._exchange, health)

    @staticmethod
    def check_clock(clock: Clock) -> None:
        """Raise ``ValueError`` unless a clock is the one that all processes of a host share."""
        if clock is not time.monotonic:
            raise ValueError(
                f"clock is {shown(clock)}, but host= needs time.monotonic, the only one that all "
                f"processes of a host read alike; leave clock= out, in trackers and measures, too"
            )

    def __repr__(self) -> str:
        return f"HostState({self.path!r})"


def _up_to(name: str, value: object, most: int) -> int:
    number = whole(name, value, 1)
    if number > most:
        raise ValueError(f"{name} is {shown(value)}; it must be at most {most}")
    return number


_exchanges: WeakValueDictionary[str, HostExchange] = WeakValueDictionary()
_making = RLock()


def _exchange_of(path: str, processes: int, nodes: int) -> HostExchange:
    """Return this process's exchange by a file, the same for all who ask.

    Raises:
        ValueError: It has been asked for with other sizes.
    """
    with _making:
        known = _exchanges.get(path)
        if known is None or known.is_closed:
            known = _exchanges[path] = HostExchange(path, processes, nodes)
    if (known.processes, known.nodes) != (processes, nodes):
        raise ValueError(
            f"max_processes is {processes} and max_nodes is {nodes}, but this process has "
            f"HostState({path!r}) with {known.processes} and {known.nodes}; give both the same"
        )
    return known
