"""What compiling saves: ``make bench-compiled``, or ``python -m benchmarks.compiled FOLDER``.

FOLDER holds an installed loadwise whose hot path is compiled for this Python. It and the sources of
this checkout each get an interpreter of their own, which take turns of some milliseconds; the
quickest turn of each counts. Exits with 1 if the target is missed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from sysconfig import get_config_var
from types import TracebackType
from typing import Self

from benchmarks.model import Table, show_seconds

FOLDER = Path(".benchmarks")
TARGET_ROW = "`acquire` and release, P2C by peak EWMA, health"
MOST = 0.4
_TURNS = 200
_LOOPS = 1000


def batches() -> dict[str, Callable[[int], float]]:
    """Return what is timed, for the loadwise that this interpreter finds."""
    from benchmarks.fleets import RULES, Server, servers  # noqa: PLC0415 - the parent needs none of it
    from benchmarks.strategies import (  # noqa: PLC0415
        time_acquire,
        time_acquire_by_key,
        time_select,
    )

    from loadwise import (  # noqa: PLC0415
        Balancer,
        ConsistentHash,
        NodeSet,
        PeakEwma,
        PowerOfTwoChoices,
        RoundRobin,
    )

    nodes = servers(10, alike=True)
    ewma: PowerOfTwoChoices[Server] = PowerOfTwoChoices(load=PeakEwma())
    found: dict[str, Callable[[int], float]] = {
        TARGET_ROW: partial(time_acquire, Balancer(nodes, ewma)),
        "`acquire` and release, the default": partial(time_acquire, Balancer(nodes)),
        "`acquire` and release, RoundRobin": partial(time_acquire, Balancer(nodes, RoundRobin())),
        "`acquire` and release, ConsistentHash": partial(
            time_acquire_by_key, Balancer(nodes, ConsistentHash())
        ),
    }
    for rule in RULES:
        members = NodeSet(rule.servers(10))
        found[f"`select`, {rule.name}"] = partial(time_select, rule.make(), members)
    return found


def serve() -> None:
    """Time what the parent names, line by line, until it has no more."""
    found = batches()
    print("\t".join(found), flush=True)
    for line in sys.stdin:
        batch = found[line.rstrip("\n")]
        batch(_LOOPS // 4)
        print(batch(_LOOPS) / _LOOPS, flush=True)


class Timer:
    """An interpreter that times what it is told to, with the loadwise in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.compiled", "--serve"],
            env={**os.environ, "PYTHONPATH": f"{folder.resolve()}{os.pathsep}{Path.cwd()}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.rows = self._answer().split("\t")

    def turn(self, row: str) -> float:
        """Return what one operation took in one turn, in seconds."""
        assert self._process.stdin is not None  # noqa: S101 - as asked for
        self._process.stdin.write(f"{row}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None  # noqa: S101 - as asked for
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the interpreter that measures has ended; see above")
        return line.rstrip("\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()


def main() -> int:
    """Measure, print, write, and return the exit code."""
    if sys.argv[1:] == ["--serve"]:
        serve()
        return 0
    # What was compiled for another Python would be interpreted here.
    library = f"loadwise__mypyc{get_config_var('EXT_SUFFIX')}"
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / library).exists():  # noqa: PLR2004
        print(__doc__, file=sys.stderr)
        return 2
    rows: list[tuple[str, ...]] = []
    reached = False
    with Timer(Path("src")) as pure, Timer(Path(sys.argv[1])) as compiled:
        for row in pure.rows:
            turns = [(pure.turn(row), compiled.turn(row)) for _ in range(_TURNS)]
            one, other = min(one for one, _ in turns), min(other for _, other in turns)
            ratio = other / one
            rows.append((row, show_seconds(one), show_seconds(other), f"{ratio:.2f}"))
            print(f"{row}: {ratio:.2f}", flush=True)
            if row == TARGET_ROW:
                reached = ratio <= MOST
    note = f"Target: at most {MOST} for the first row; {'met' if reached else 'missed'}."
    header = ("operation, 10 nodes", "interpreted", "compiled", "ratio")
    table = Table("compiled", "Compiled and interpreted", header, tuple(rows), note)
    print(f"\n{table.markdown()}")
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "compiled.md").write_text(table.markdown(), encoding="utf-8")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
