"""What it costs that a balancer sees what the other processes of its host have in flight.

Seven more processes have a row each. They are forked from an interpreter of their own, and are idle
or send requests of 20 ms all the time. So a pick reads eight rows, and what it reads has just been
written by others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.fleets import Server, servers
from benchmarks.grid import by_size, times
from benchmarks.model import Result, Scale, Target
from benchmarks.strategies import time_acquire
from benchmarks.timing import Case, Timings, measure

from loadwise import Balancer, PeakEwma, PowerOfTwoChoices
from loadwise.shared_memory import HostState

__all__ = ["hosts"]

_OTHERS = 7
_SECONDS = 0.02
_BATCH = 5
_LARGE = 1000
_IDLE, _BUSY = "... with seven idle processes", "... with seven busy processes"
_ROWS = {
    "`acquire` and release, the default": ("default", 25.0),
    "`acquire` and release, P2C by peak EWMA": ("ewma", 60.0),
}


def hosts(scale: Scale) -> Result:
    """Time what a balancer does alone, and in a host of eight processes."""
    if sys.platform != "linux":
        return Result(())
    sizes = tuple(sorted({scale.sizes[0], min(_LARGE, scale.sizes[-1])}))
    with ExitStack() as stack:
        found = measure("host", list(_cases(sizes, scale.portion(_OTHERS), stack)), scale)
    scale = replace(scale, sizes=sizes)
    note = (
        f"Each busy process has {_BATCH} requests at a time in flight, of {_SECONDS * 1000:.0f} ms."
    )
    table = by_size(found, scale, "A host of eight", first="operation", note=note)
    size = str(sizes[0])
    targets = [_target(found, row, other, size) for row in _ROWS for other in (_IDLE, _BUSY)]
    return Result(table.tables, table.figures, (*targets, *table.targets))


def _target(found: Timings, row: str, other: str, size: str) -> Target:
    most = _ROWS[row][1]
    more = found.seconds(f"{row} {other}", size) - found.seconds(row, size)
    ratio = more / found.baseline.best
    return Target(
        f"{row} {other}: dearer than alone, in times a bare `random.random()`",
        f"at most {most:g}",
        times(ratio),
        ratio <= most,
    )


def _cases(sizes: tuple[int, ...], others: int, stack: ExitStack) -> Iterator[Case]:
    folder = Path("/dev/shm")  # noqa: S108 - where hosts that are given by name are
    place = stack.enter_context(TemporaryDirectory(dir=folder if folder.is_dir() else None))
    paths = {
        (kind, busy, size): str(Path(place) / f"{kind}-{busy:d}-{size}")
        for kind, _ in _ROWS.values()
        for busy in (False, True)
        for size in sizes
    }
    stack.enter_context(_neighbours(list(paths.values()), others))
    for row, (kind, _) in _ROWS.items():
        for size in sizes:
            found = _balancer(kind, size)
            yield Case(row, str(size), partial(time_acquire, found), 2 * size)
        for other, busy in ((_IDLE, False), (_BUSY, True)):
            for size in sizes:
                found = _balancer(kind, size, paths[kind, busy, size])
                yield Case(f"{row} {other}", str(size), partial(time_acquire, found), 2 * size)


def _balancer(kind: str, size: int, path: str | None = None) -> Balancer[Server]:
    host = None if path is None else HostState(path)
    nodes = servers(size, alike=True)
    if kind == "default":
        return Balancer(nodes, host=host)
    return Balancer(nodes, PowerOfTwoChoices(load=PeakEwma()), host=host)


@contextmanager
def _neighbours(paths: list[str], others: int) -> Generator[None]:
    """Run the other processes of some hosts until the block ends."""
    command = [sys.executable, "-m", "benchmarks.hosts", str(others), *paths]
    with subprocess.Popen(  # noqa: S603 - this interpreter, this module
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            wanted = b"." * others * len(paths)
            if process.stdout is None or process.stdout.read(len(wanted)) != wanted:
                raise RuntimeError("the other processes of the hosts have not begun; see above")
            yield
        finally:
            process.communicate()  # they end when nobody can write to them any more


def main() -> None:
    """Be the other processes, until nobody can write to the standard input any more."""
    others, *paths = sys.argv[1:]
    children = int(others) * paths
    for path in children:
        if not os.fork():
            try:
                kind, busy, size = Path(path).name.split("-")
                _serve(_balancer(kind, int(size), path), busy=busy == "1")
            finally:
                os._exit(0)
    for _ in children:
        os.wait()


def _serve(balancer: Balancer[Server], *, busy: bool) -> None:
    """Be one of them."""
    _work(balancer)
    os.write(1, b".")
    os.set_blocking(0, False)
    while True:
        with suppress(BlockingIOError):
            if not os.read(0, 1):
                return
        if busy:
            _work(balancer)
        else:
            time.sleep(_SECONDS)


def _work(balancer: Balancer[Server]) -> None:
    """Have some requests in flight for a while."""
    leases = [balancer.acquire() for _ in range(_BATCH)]
    time.sleep(_SECONDS)
    for lease in leases:
        lease.success()


if __name__ == "__main__":
    main()
