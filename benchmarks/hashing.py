"""Comparison of the hash family, for docs/hashing.md: ``python -m benchmarks.hashing``.

Shares and moves are counted over keys that are the same for all. Times are the processor's, the
least of a few.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from time import process_time
from typing import Any

from loadwise import ConsistentHash, JumpHash, Maglev, NodeSet, Rendezvous

__all__ = ["PAGE", "lines", "put_into"]

PAGE = Path(__file__).parents[1] / "docs" / "hashing.md"
BEGIN = "<!-- The table of `python -m benchmarks.hashing`; changes made here are lost. -->\n"
END = "<!-- End of the table. -->\n"
KeyMap = ConsistentHash[str] | Maglev[str] | Rendezvous[str] | JumpHash[str]

FAMILY: dict[str, Callable[[], KeyMap]] = {
    "`ConsistentHash()`": ConsistentHash,
    '`ConsistentHash(points="ketama")`': lambda: ConsistentHash(points="ketama"),
    '`ConsistentHash(points="haproxy")`': lambda: ConsistentHash(points="haproxy"),
    "`Maglev()`": Maglev,
    "`Rendezvous()`": Rendezvous,
    "`JumpHash()`": JumpHash,
}
_HEADER = ("strategy", "busiest node", "moved", "build", "look-up", "memory")


def lines(nodes: int = 100, keys: int = 100_000, rounds: int = 5) -> Iterator[str]:
    """Measure, and give the table line by line as it comes about.

    Args:
        nodes: How many there are, >= 2.
        keys: How many keys are asked for; with too few, chance makes shares uneven.
        rounds: How often times are taken.
    """
    yield f"| {' | '.join(_HEADER)} |\n"
    yield f"|---{'|---:' * (len(_HEADER) - 1)}|\n"
    names = [f"cache-{number}" for number in range(nodes + 1)]
    before, after = NodeSet(names[:-1]), NodeSet(names)
    for name, make in FAMILY.items():
        strategy = make()
        homes = [strategy.owner(before, f"user-{number}") for number in range(keys)]
        moved = sum(
            strategy.owner(after, f"user-{number}") != home for number, home in enumerate(homes)
        )
        built, found = _times(make, before, rounds)
        cells = (
            name,
            f"{max(Counter(homes).values()) * nodes / keys:.2f}",
            f"{moved * (nodes + 1) / keys:.2f}",
            f"{built * 1e3:.2g} ms",
            f"{found * 1e9:,.0f} ns",
            f"{_kept(make, before) / 1024:,.0f} KiB",
        )
        yield f"| {' | '.join(cells)} |\n"


def _times(make: Callable[[], KeyMap], nodes: NodeSet[str], rounds: int) -> tuple[float, float]:
    """Return the seconds that a build and a look-up take."""
    asked = [f"user-{number}" for number in range(2000)]
    builds: list[float] = []
    finds: list[float] = []
    for _ in range(rounds):
        strategy = make()
        start = process_time()
        strategy.prepare(nodes)
        builds.append(process_time() - start)
        owner: Callable[[Any, Any], object] = strategy.owner
        start = process_time()
        for key in asked:
            owner(nodes, key)
        finds.append((process_time() - start) / len(asked))
    return min(builds), min(finds)


def _kept(make: Callable[[], KeyMap], nodes: NodeSet[str]) -> int:
    """Return how many bytes are kept for the nodes."""
    strategy = make()
    gc.collect()
    tracemalloc.start()
    try:
        strategy.prepare(nodes)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def put_into(page: str, table: str) -> str:
    """Return the page with the table in its place."""
    before, begins, rest = page.partition(BEGIN)
    _, ends, after = rest.partition(END)
    if not begins or not ends:
        raise ValueError(f"the page has no place for the table: it lacks {BEGIN!r} or {END!r}")
    return f"{before}{BEGIN}{table}{END}{after}"


def main() -> None:
    """Print the table and renew the page."""
    table = ""
    for line in lines():
        print(line, end="", flush=True)
        table += line
    PAGE.write_text(put_into(PAGE.read_text(encoding="utf-8"), table), encoding="utf-8")


if __name__ == "__main__":
    main()
