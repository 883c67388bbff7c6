"""Reading of a host's file by who takes no part: nothing is written, made, locked or mapped.

The file is read like any other, so that one that is cut short meanwhile is an error and no signal.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import time
from math import exp, inf, log
from typing import Final

from loadwise.errors import LoadwiseError, nearest
from loadwise.health import HealthStatus
from loadwise.shared_memory._layout import (
    AGE_ORIGIN,
    KEY,
    PAGE,
    ROW_RECORD,
    SCORE_ORIGIN,
    VERSION,
    MemoryLayout,
)
from loadwise.shared_memory._locks import ALL_ROWS, ROWS, ByteLocks, why_no_locks
from loadwise.shared_memory._node_table import id_of
from loadwise.shared_memory._opening import host_identity
from loadwise.shared_memory._paths import known_names, name_of, path_of
from loadwise.shared_memory.host_status import HostNode, HostProcess, HostStatus

__all__ = ["HostFileError", "read_host"]

_FLAGS: Final = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
)
_TRIES: Final = 3
_MOST_REQUESTS: Final = 2**31
_SLOWEST: Final = log(1e9)
"""Logarithm of more seconds than a request can take."""
_AHEAD: Final = 1.0
_MOST_NODES: Final = 2**24
_NAMED: Final = 10
"""Names that an error lists."""
_RECORD: Final = struct.Struct("=Qdd")
_HEALTH: Final = struct.Struct("=ddQ8x")
_STATES: Final = {each.value: each for each in HealthStatus}
_FAILURES: Final = 2**24 - 1


class HostFileError(LoadwiseError):
    """A host's file that cannot be read; says which, and why."""


def read_host(path_or_name: str | os.PathLike[str]) -> HostStatus:
    """Return what the processes of a host share, without taking part.

    Args:
        path_or_name: The name or the path, as for `HostState`.

    Raises:
        TypeError: It is neither.
        ValueError: It cannot be one, or its folder is missing.
        HostFileError: There is no such file, it is none of this release of loadwise or none of
            this user's, it is damaged, or this system cannot share.

    Nothing is written, no file is made and no row is taken, so it may be done at any time.

    Thread-safety: full.

    Cost: O(processes * nodes); about 40 microseconds a node with room for 8 processes.

    Example:
        >>> import os, tempfile
        >>> from loadwise import Balancer
        >>> from loadwise.shared_memory import HostState
        >>> host = HostState(os.path.join(tempfile.mkdtemp(), "api"))
        >>> balancer = Balancer(["a"], host=host)
        >>> lease = balancer.acquire()
        >>> [(node.id, node.in_flight) for node in read_host(host.path).nodes]
        [('a', 1)]
        >>> lease.success()
        True
    """
    path = path_of(path_or_name)
    lacking = why_no_locks()
    if lacking is not None:
        raise HostFileError(f"{path!r} cannot be read: {lacking}")
    locks = ByteLocks(_opened(path))
    try:
        return _Picture(path, locks).read()
    except OSError as error:
        raise HostFileError(f"{path!r} cannot be read: {error.strerror}") from error
    finally:
        locks.close()


def _opened(path: str) -> int:
    try:
        return os.open(path, _FLAGS)
    except FileNotFoundError:
        raise HostFileError(_missing(path)) from None
    except OSError as error:
        reason = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise HostFileError(f"{path!r} cannot be opened: {reason}") from error


def _missing(path: str) -> str:
    name = name_of(path)
    text = f"there is no file {path!r}"
    if name == path:
        return f"{text}; give the path or the name that the program gives to HostState"
    names = known_names()
    if not names:
        return (
            f"{text}, nor any other of this user's names: no program of this user has a HostState"
        )
    more = ", ..." if len(names) > _NAMED else ""
    listed = ", ".join(map(repr, names[:_NAMED]))
    return f"{text}{nearest(name, names)} (this user's names are {listed}{more})"


class _Picture:
    """One reading of a file.

    Args:
        path: The file.
        locks: Of it, opened to be read.

    Raises:
        HostFileError: It is no file that can be read.
    """

    def __init__(self, path: str, locks: ByteLocks) -> None:
        self._path = path
        self._locks = locks
        found = os.fstat(locks.file)
        if not stat.S_ISREG(found.st_mode):
            raise self._error("is no regular file")
        if found.st_uid != os.geteuid():
            raise self._error(f"belongs to another user (uid {found.st_uid}); ask as that user")
        if not found.st_size:
            raise self._error("is empty: no process has used it yet, or somebody emptied it")
        self._layout = self._agreed(os.pread(locks.file, PAGE, 0), found.st_size)
        self._now = time.monotonic()

    def _error(self, what: str) -> HostFileError:
        return HostFileError(f"{self._path!r} {what}")

    def _agreed(self, header: bytes, size: int) -> MemoryLayout:
        parsed = MemoryLayout.parse(header.ljust(PAGE, b"\0"))
        if parsed is None:
            raise self._error("is no file of loadwise")
        version, processes, nodes, boot = parsed
        if version != VERSION:
            raise self._error(
                f"was written by another release of loadwise (layout {version}, here {VERSION}); "
                f"ask with that release"
            )
        if boot != host_identity():
            raise self._error(
                "is of another boot of this host, or of a container with another clock; ask there"
            )
        if not 0 < processes <= ALL_ROWS or not 0 < nodes <= _MOST_NODES:
            raise self._error("is damaged: its sizes cannot be")
        layout = MemoryLayout(processes, nodes)
        if size != layout.size or not header.startswith(layout.header(boot)):
            raise self._error("is damaged: it has not the size that it says")
        return layout

    def _read(self, place: int, size: int) -> memoryview:
        found = os.pread(self._locks.file, size, place)
        if len(found) != size:
            raise self._error("was cut short while it was read")
        return memoryview(found)

    def _tallies(self) -> tuple[int, int]:
        """Return how many blocks are in use, and how often one was given to another node."""
        used, renewed = self._read(self._layout.used, 16).cast("Q")
        return min(used, self._layout.nodes), renewed

    def read(self) -> HostStatus:
        """Return what it tells."""
        layout = self._layout
        records = list(_RECORD.iter_unpack(self._records()))
        rows = [row for row, (pid, _, _) in enumerate(records) if pid]
        living = {row for row in rows if self._locks.held(ROWS + row, 1)}
        taus = {row: records[row][2] for row in living}
        nodes: list[tuple[HostNode, set[int]]] = []
        for _ in range(_TRIES):
            used, renewed = self._tallies()
            nodes = [node for i in range(used) if (node := self._node(i, rows, taus)) is not None]
            if self._tallies()[1] == renewed:
                break
        processes: list[HostProcess] = []
        for place, row in enumerate(rows):
            pid, joined, _ = records[row]
            processes.append(
                HostProcess(
                    pid,
                    row in living,
                    self._since(joined) or 0.0,
                    sum(node.by_process[place] for node, _ in nodes),
                    sum(row in holders for _, holders in nodes),
                )
            )
        return HostStatus(
            name_of(self._path),
            self._path,
            layout.processes,
            layout.nodes,
            tuple(processes),
            tuple(node for node, _ in nodes),
        )

    def _records(self) -> bytes:
        """Return pid, time of joining and time constant of each row, one after another."""
        layout = self._layout
        found = self._read(layout.records, ROW_RECORD * layout.rows)
        size = _RECORD.size
        return b"".join(found[at : at + size] for at in range(0, len(found), ROW_RECORD))

    def _since(self, moment: float) -> float | None:
        """Return for how long something has been so; ``None`` where that cannot be."""
        seconds = self._now - moment
        return max(seconds, 0.0) if moment > 0.0 and seconds > -_AHEAD else None

    def _node(
        self, index: int, rows: list[int], taus: dict[int, float]
    ) -> tuple[HostNode, set[int]] | None:
        """Return a node, and the rows of those who have it; ``None`` if nobody living has it.

        Args:
            index: The number of its block.
            rows: Those of all processes.
            taus: Time constants of the living, by row.
        """
        layout = self._layout
        block = self._read(layout.block_of(index), layout.block)
        holders = {row for row in taus if block[layout.holds + row]}
        if not holders:
            return None
        counts = block[: layout.ages].cast("I")
        by_process = tuple(
            counts[row] if row in taus and counts[row] < _MOST_REQUESTS else 0 for row in rows
        )
        key = self._read(layout.key_of(index), KEY)
        ages = block[layout.ages : layout.scores].cast("d")
        waits = [self._since(AGE_ORIGIN - ages[row]) for row in taus if 0.0 < ages[row] < inf]
        found = self._health(index, block[layout.health : layout.claims])
        status, seconds, failures = found or (HealthStatus.HEALTHY, None, 0)
        node = HostNode(
            id_of(bytes(key[8 : 8 + min(key[0], KEY - 8)])),
            status,
            seconds,
            failures,
            sum(by_process),
            by_process,
            self._cost(block[layout.scores : layout.health].cast("d"), taus),
            max((each for each in waits if each is not None), default=None),
        )
        return node, holders

    def _cost(self, scores: memoryview[float], taus: dict[int, float]) -> float | None:
        """Return the highest cost that there is now; ``None`` where none was measured."""
        costs: list[float] = []
        for row, tau in taus.items():
            if 0.0 < scores[row] < inf and 0.0 < tau < inf:
                # Faded since time 0, as the scores are kept.
                power = scores[row] - SCORE_ORIGIN - self._now / tau
                if power < _SLOWEST:
                    costs.append(exp(power))
        return max(costs, default=None)

    def _health(self, index: int, told: memoryview) -> tuple[HealthStatus, float, int] | None:
        """Return the newest state that a process found, for how long, and failures in a row."""
        layout = self._layout
        # What is whole has the same time in both; each is written without one while it is not.
        again = self._read(layout.block_of(index) + layout.health, len(told))
        newest, found = 0.0, None
        for (stamp, _, word), (check, _, _) in zip(
            _HEALTH.iter_unpack(told), _HEALTH.iter_unpack(again), strict=True
        ):
            status, seconds = _STATES.get(word & 0xFF), self._since(stamp)
            if stamp > newest and stamp == check and status is not None and seconds is not None:
                newest, found = stamp, (status, seconds, (word >> 8) & _FAILURES)
        return found
