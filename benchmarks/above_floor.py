"""How far each strategy's ``select`` on a NodeSet is from its floor."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from time import perf_counter

from benchmarks.fleets import RULES, contexts
from benchmarks.floors import FLOORS, Floor
from benchmarks.grid import times
from benchmarks.model import Result, Scale, Table, Target, show_seconds
from benchmarks.strategies import time_select
from benchmarks.timing import Case, measure

from loadwise import NodeSet

__all__ = ["above_floor"]

_LOW = 150e-9
_MOST_ABOVE_LOW = 60e-9
_MOST_TIMES = 1.5
_LARGE = 1000


def above_floor(scale: Scale) -> Result:
    """Time every strategy and its floor in turns, for few nodes and for many."""
    sizes = (scale.sizes[0], min(_LARGE, scale.sizes[-1]))
    found = measure("floors", (case for size in sizes for case in _cases(size)), scale)
    rows: list[tuple[str, ...]] = []
    missed: list[str] = []
    for size in sizes:
        for rule in RULES:
            select = found.seconds(rule.name, f"select, {size}")
            floor = found.seconds(rule.name, f"floor, {size}")
            difference, ratio = select - floor, select / floor
            met = difference <= _MOST_ABOVE_LOW if floor < _LOW else ratio <= _MOST_TIMES
            rows.append(
                (
                    rule.name,
                    f"{size:,}",
                    show_seconds(floor),
                    show_seconds(select),
                    show_seconds(difference),
                    times(ratio),
                    "yes" if met else "no",
                )
            )
            if not met:
                missed.append(f"{rule.name} at {size:,}")
    header = ("strategy", "nodes", "floor", "`select`", "difference", "ratio", "within the target")
    note = (
        f"The target is {_MOST_ABOVE_LOW * 1e9:.0f} ns above the floor where that is below "
        f"{_LOW * 1e9:.0f} ns, and {_MOST_TIMES:g} times the floor otherwise."
    )
    table = Table("floors", "`select` and its floor", header, tuple(rows), note)
    target = Target(
        "`select` on a `NodeSet` and its floor",
        f"{_MOST_ABOVE_LOW * 1e9:.0f} ns above, or {_MOST_TIMES:g} times",
        f"missed by {'; '.join(missed)}" if missed else "all",
        not missed,
    )
    return Result((table,), found.figures(), (target,))


def _cases(size: int) -> Iterator[Case]:
    for rule in RULES:
        nodes = rule.servers(size)
        members = NodeSet(nodes)
        warm = 0 if rule.scans else 2 * size
        select = partial(time_select, rule.make(), members)
        floor = partial(_time, FLOORS[rule.name](nodes), members)
        yield Case(rule.name, f"select, {size}", select, warm, rule.round)
        yield Case(rule.name, f"floor, {size}", floor, warm)


def _time(floor: Floor, nodes: object, loops: int) -> float:
    """Time a floor, in the very loop that `time_select` is."""
    requests = contexts(loops)
    start = perf_counter()
    for context in requests:
        floor(nodes, context)
    return perf_counter() - start
