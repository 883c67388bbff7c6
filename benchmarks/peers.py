"""loadwise beside its peers: each pair does the nearest equivalent job, in the same run."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from timeit import Timer
from typing import Any

from benchmarks.duels import DUELS, Duel
from benchmarks.grid import times
from benchmarks.model import Result, Scale, Subject, Table, Target, show_seconds
from benchmarks.timing import Batch, Case, Timings, measure

__all__ = ["SUBJECTS", "peers"]


@dataclass
class _Present:
    """Which peers are here, and why the others are not."""

    duels: list[Duel] = field(default_factory=list[Duel])
    absent: dict[str, str] = field(default_factory=dict[str, str])


def peers(scale: Scale) -> Result:
    """Time the peers that are installed, and loadwise at their jobs, in turns."""
    present = _present()
    found = measure("peers", _cases(present.duels, scale), scale)
    details = [row for duel in present.duels for row in _details(duel, found, scale)]
    ratios = tuple(_ratios(duel, found, scale) for duel in present.duels)
    short = [duel for duel in present.duels if duel.short]
    skipped = "".join(
        f"\n{package}: not measured here: {reason}." for package, reason in present.absent.items()
    )
    return Result(
        (
            Table(
                "peers-ratios",
                "How many times faster than its peers loadwise is",
                (
                    "peer",
                    "job",
                    *(f"{size:,} nodes" for size in scale.sizes),
                    f"loadwise takes, {scale.sizes[0]:,} nodes",
                ),
                ratios,
                skipped.strip(),
            ),
            Table(
                "peers-short",
                "The same in short",
                ("beside", "job", *(f"{size:,} nodes" for size in scale.sizes)),
                tuple((duel.package, duel.short, *_times(duel, found, scale)) for duel in short),
            ),
            Table(
                "peers",
                "Peers, and loadwise at the same job",
                ("who", "call", *(f"{size:,}" for size in scale.sizes)),
                tuple(details),
                f"A bare `random.random()` in the same run: {show_seconds(found.baseline.best)}.",
            ),
            Table(
                "peers-versions",
                "The peers' versions",
                ("package", "version"),
                tuple((name, version(name)) for name in dict.fromkeys(_names(present.duels))),
            ),
        ),
        found.figures(),
        tuple(_target(duel, found, scale) for duel in present.duels),
    )


def _names(duels: list[Duel]) -> Iterator[str]:
    for duel in duels:
        yield duel.package


def _present() -> _Present:
    present = _Present()
    for duel in DUELS:
        try:
            version(duel.package)
            _batch(duel.setup, duel.call, 2)(1)
        except (PackageNotFoundError, ImportError) as error:
            present.absent[duel.package] = textwrap.shorten(str(error), 80)
        else:
            present.duels.append(duel)
    return present


def _cases(duels: list[Duel], scale: Scale) -> Iterator[Case]:
    for duel in duels:
        for size in scale.sizes:
            column = str(size)
            rounds = size if duel.in_turn else 1
            yield Case(_row(duel), column, _batch(duel.setup, duel.call, size), round=rounds)
            yield Case(_own_row(duel), column, _batch(duel.own_setup, duel.own_call, size))


def _row(duel: Duel) -> str:
    return f"{duel.package}, {duel.job}"


def _own_row(duel: Duel) -> str:
    return f"loadwise for {_row(duel)}"


def _batch(setup: str, call: str, size: int) -> Batch:
    names: dict[str, Any] = {"n": size}  # whatever the setup defines
    exec(setup, names)  # noqa: S102 - our own text, shown in the documentation
    return Timer(call, globals=names).timeit


def _ratio(duel: Duel, found: Timings, size: int) -> float:
    return found.seconds(_row(duel), str(size)) / found.seconds(_own_row(duel), str(size))


def _ratios(duel: Duel, found: Timings, scale: Scale) -> tuple[str, ...]:
    own = show_seconds(found.seconds(_own_row(duel), str(scale.sizes[0])))
    return (duel.package, duel.job, *_times(duel, found, scale), own)


def _times(duel: Duel, found: Timings, scale: Scale) -> tuple[str, ...]:
    return tuple(f"{times(_ratio(duel, found, size))} times" for size in scale.sizes)


def _details(duel: Duel, found: Timings, scale: Scale) -> Iterator[tuple[str, ...]]:
    sides = ((duel.package, duel.call, _row(duel)), ("loadwise", duel.own_call, _own_row(duel)))
    for who, call, row in sides:
        cells = (show_seconds(found.seconds(row, str(size))) for size in scale.sizes)
        yield (who, f"`{call}`", *cells)


def _target(duel: Duel, found: Timings, scale: Scale) -> Target:
    least = dict(duel.least)
    ratios = {size: _ratio(duel, found, size) for size in scale.sizes}
    wanted = {size: least.get(size, least.get(0, 1.0)) for size in ratios}
    return Target(
        f"times faster than {duel.package}: {duel.job}",
        ", ".join(f"{wish:.3g} with {size:,}" for size, wish in wanted.items()),
        ", ".join(times(ratio) for ratio in ratios.values()),
        all(ratio >= wanted[size] for size, ratio in ratios.items()),
    )


SUBJECTS: dict[str, Subject] = {"peers": peers}
"""What needs the peers' environment, by name."""
