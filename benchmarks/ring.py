"""What a hash ring costs: to build, to change by one node, and to ask, beside uhashring.

Everything is timed in turns within one run, and the quickest turn of each counts, so the ratios
hold on a busy machine, too. uhashring is left out where it is not installed; it is no requirement
of this project, so give it an environment of its own:

    python benchmarks/ring.py
    python benchmarks/ring.py --check
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from itertools import count, cycle, islice
from time import perf_counter
from typing import Any

from xxhash import xxh64_intdigest

from loadwise import ConsistentHash, NodeSet, SelectionContext

SIZES = (10, 100, 1000, 10_000)
BUILT = 1000
"""Nodes of the ring that is built and changed, of 160 points each."""
MOST_OF_THEIR_BUILD = 0.45
MOST_OF_A_BUILD = 0.1
MOST_OVER_FLOOR = 1.5
MOST_OVER_SIZES = 2.5
LEAST_TIMES_FASTER = 3.0
PICKS = 2000

Subject = Callable[[], float]
"""Works once and returns the seconds that it took."""

NAMES = [f"10.{n // 65536}.{n // 256 % 256}.{n % 256}:8080" for n in range(max(SIZES))]
KEYS = list(islice(cycle([f"user-{number}" for number in range(1000)]), PICKS))
CONTEXTS = [SelectionContext(hash_key=key) for key in KEYS]


def their_ring() -> Callable[[list[str]], Any] | None:
    """Return uhashring's class, if it is installed."""
    try:
        module: Any = import_module("uhashring")
    except ImportError:
        return None
    ring: Callable[[list[str]], Any] = module.HashRing
    return ring


def building(theirs: Callable[[list[str]], Any] | None) -> dict[str, Subject]:
    """Return what to time of building a ring and changing one."""
    names = NAMES[:BUILT]
    members = list(names)
    changing = ConsistentHash[str]()
    changing.prepare(NodeSet(members))
    fresh = count()

    def prepare(strategy: ConsistentHash[str], nodes: Sequence[str]) -> float:
        node_set = NodeSet(nodes)
        start = perf_counter()
        strategy.prepare(node_set)
        return perf_counter() - start

    def build() -> float:
        return prepare(ConsistentHash(), names)

    def add() -> float:
        members.append(f"new-{next(fresh)}")
        return prepare(changing, members)

    def remove() -> float:
        del members[next(fresh) * 7919 % len(members)]
        return prepare(changing, members)

    def their_build() -> float:
        assert theirs is not None  # noqa: S101 - it is timed only then
        start = perf_counter()
        theirs(names)
        return perf_counter() - start

    subjects: dict[str, Subject] = {"build": build, "add one": add, "remove one": remove}
    if theirs is not None:
        subjects["uhashring build"] = their_build
    return subjects


def asking(size: int, theirs: Callable[[list[str]], Any] | None) -> dict[str, Subject]:
    """Return what to time of lookups: the strategy, its floor, and uhashring.

    The floor is called as the strategy is and reads the same tables, but checks nothing. Contexts
    are made before; what it takes to make one for each key, `benchmarks.duels` counts in.
    """
    strategy, nodes = ConsistentHash[str](), NodeSet(NAMES[:size])
    strategy.prepare(nodes)
    plan = strategy._resolve(nodes)  # noqa: SLF001 - to read the very same tables

    points, owners, shift, indices = plan.points, plan.owners, plan.shift, plan.indices

    def floor(_nodes: object, context: SelectionContext) -> int:
        key: Any = context.hash_key
        hashed = xxh64_intdigest(key.encode())
        position = hashed >> shift
        while points[position] < hashed:
            position += 1
        return indices[owners[position]]

    def picks(pick: Callable[[NodeSet[str], SelectionContext], object]) -> float:
        start = perf_counter()
        for context in CONTEXTS:
            pick(nodes, context)
        return perf_counter() - start

    subjects: dict[str, Subject] = {
        f"select {size}": partial(picks, strategy.select),
        f"floor {size}": partial(picks, floor),
    }
    if theirs is not None:
        get_node = theirs(NAMES[:size]).get_node

        def their_select() -> float:
            start = perf_counter()
            for key in KEYS:
                get_node(key)
            return perf_counter() - start

        subjects[f"uhashring {size}"] = their_select
    return subjects


def quickest(subjects: dict[str, Subject], turns: int, *, warm: bool) -> dict[str, float]:
    """Time all in turns; return the seconds of each one's quickest.

    With ``warm``, each works once before it is timed, so that what is compared is the work, and
    not whose tables happened to be in the processor's cache.
    """
    best = dict.fromkeys(subjects, float("inf"))
    gc.collect()
    gc.disable()
    try:
        for _ in range(turns):
            for name, subject in subjects.items():
                if warm:
                    subject()
                best[name] = min(best[name], subject())
    finally:
        gc.enable()
    return best


def show_build(found: dict[str, float]) -> bool:
    """Print what a build and changes take; return whether all is as expected."""
    print(f"\n### A ring of {BUILT:,} nodes of 160 points\n")
    print("| | ms | ratio | at most |")
    print("|---|---:|---:|---:|")
    limits = [("add one", "build", MOST_OF_A_BUILD), ("remove one", "build", MOST_OF_A_BUILD)]
    theirs = "uhashring build"
    if theirs in found:
        print(f"| {theirs} | {found[theirs] * 1e3:.1f} | | |")
        limits.insert(0, ("build", theirs, MOST_OF_THEIR_BUILD))
    else:
        print(f"| build | {found['build'] * 1e3:.1f} | | |")
    for name, base, limit in limits:
        ratio = found[name] / found[base]
        print(f"| {name} | {found[name] * 1e3:.2f} | {ratio:.3f} of {base} | {limit} |")
    return all(found[name] <= limit * found[base] for name, base, limit in limits)


def show_select(found: dict[str, float]) -> bool:
    """Print what a pick takes; return whether all is as expected."""
    print("\n### A pick, by contexts made before\n")
    print("| nodes | select, ns | over the floor | uhashring takes |")
    print("|---:|---:|---:|---:|")
    expected = True
    for size in SIZES:
        ours, theirs = found[f"select {size}"], found.get(f"uhashring {size}")
        over, times = ours / found[f"floor {size}"], (theirs or 0.0) / ours
        beside = "" if theirs is None else f"{times:.1f} times as long"
        print(f"| {size:,} | {ours / PICKS * 1e9:.0f} | {over:.2f} | {beside} |")
        expected &= over <= MOST_OVER_FLOOR
        expected &= theirs is None or times >= LEAST_TIMES_FASTER
    flat = found[f"select {SIZES[-1]}"] / found[f"select {SIZES[0]}"]
    print(f"\n{SIZES[-1]:,} nodes to {SIZES[0]}: {flat:.2f}")
    return expected and flat <= MOST_OVER_SIZES


def main() -> int:
    """Time, print, and return the exit code."""
    parser = argparse.ArgumentParser(
        description="Time a hash ring: building, changing and asking it, beside uhashring.",
        epilog=f"Expected: a build takes at most {MOST_OF_THEIR_BUILD} of uhashring's, one node "
        f"more or less {MOST_OF_A_BUILD} of a build; a pick, its context made before, at most "
        f"{MOST_OVER_FLOOR} of its floor, {MOST_OVER_SIZES} from {SIZES[0]} to {SIZES[-1]:,} "
        f"nodes, and is {LEAST_TIMES_FASTER:.0f} times faster than uhashring's.",
    )
    parser.add_argument("--turns", type=int, default=15, help="turns per figure (default: 15)")
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 if a figure is not as expected"
    )
    options = parser.parse_args()
    if options.turns < 1:
        parser.error(f"--turns is {options.turns}; it must be at least 1")
    theirs = their_ring()
    if theirs is None:
        print("uhashring is not installed; its figures are left out")
    expected = show_build(quickest(building(theirs), options.turns, warm=False))
    picks: dict[str, Subject] = {}
    for size in SIZES:
        picks |= asking(size, theirs)
    expected &= show_select(quickest(picks, options.turns * 10, warm=True))
    return 1 if options.check and not expected else 0


if __name__ == "__main__":
    sys.exit(main())
