"""Rows about balls into bins: requests that never end, one for each node."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random as RandomSource

from tests.proof import theory
from tests.proof.row import Measured, Row, of_runs
from tests.proof.runs import BestOfThree

from loadwise import InFlight, NodeSet, PowerOfTwoChoices, Random, Strategy

__all__ = ["ROWS"]

CHAPTER = "Balls into bins: the busiest of n nodes after n requests that never end"

Maker = Callable[[InFlight, RandomSource], Strategy[int]]


def _busiest(make: Maker, nodes: int, runs: int) -> Measured:
    """Return how many requests the busiest node has when each has one on average."""
    return of_runs([_one(make, nodes, RandomSource(seed)) for seed in range(1, runs + 1)])


def _one(make: Maker, nodes: int, rng: RandomSource) -> int:
    in_flight = InFlight()
    # A strategy is told of requests by its load measure; here it is fed by hand.
    cells = [in_flight.cell(number) for number in range(nodes)]
    strategy, members = make(in_flight, rng), NodeSet(range(nodes))
    for _ in range(nodes):
        index = strategy.select(members)
        assert index is not None
        cells[index].append(None)
    return max(map(len, cells))


def _row(
    name: str,
    make: Maker,
    nodes: int,
    expected: Callable[[], float],
    runs: int,
    sources: tuple[str, ...],
    reason: str = "",
) -> Row:
    what = f"{name}, n = {nodes}"
    return Row(CHAPTER, what, expected, partial(_busiest, make, nodes, runs), 0.04, reason, sources)


def _rows(nodes: int, runs: int, published: tuple[float, float, float]) -> list[Row]:
    one, two, three = (f"other simulations say {value:.2f}" for value in published)
    return [
        _row(
            "`Random`",
            lambda _, rng: Random(rng),
            nodes,
            partial(theory.fullest_of_one, nodes),
            runs,
            ("Gonnet 1981",),
            one,
        ),
        _row(
            "`PowerOfTwoChoices`",
            PowerOfTwoChoices,
            nodes,
            partial(theory.fullest_of_several, nodes, 2),
            runs,
            ("Azar 1999", "Mitzenmacher 2001"),
            two,
        ),
        _row(
            "Three choices",
            BestOfThree,
            nodes,
            partial(theory.fullest_of_several, nodes, 3),
            runs,
            ("Azar 1999", "Mitzenmacher 2001"),
            three,
        ),
    ]


ROWS = (*_rows(1024, 150, (5.53, 3.00, 2.47)), *_rows(4096, 45, (6.27, 3.00, 2.90)))
