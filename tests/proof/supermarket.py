"""Rows about the supermarket model: each request joins the shortest of d sampled queues."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.proof import theory
from tests.proof.chain import few_servers
from tests.proof.row import Row
from tests.proof.runs import Case, mean

__all__ = ["ROWS"]

HUNDRED = "The power of two choices, and of three: the supermarket model"
LIMIT = "The supermarket model from few servers towards the limit"

STRATEGIES = {2: "p2c", 3: "three choices"}
NAMES = {2: "`PowerOfTwoChoices`", 3: "three choices"}


def _row(
    chapter: str,
    choices: int,
    case: Case,
    expected: Callable[[], float],
    tolerance: float,
    reason: str,
    *sources: str,
) -> Row:
    limit = theory.supermarket_limit(case.load, choices)
    what = f"Mean time, {NAMES[choices]} over {case.servers} servers, load {case.load}"
    return Row(
        chapter,
        f"{what} (limit: {limit:.3f})",
        expected,
        partial(mean, case),
        tolerance,
        reason,
        sources,
    )


def _case(choices: int, load: float, servers: int, seeds: int, requests: int) -> Case:
    # Seven relaxation times leave e**-7, or 0.1 %, of what the empty start does. Few servers are
    # as slow as one that works on as many requests at a time.
    warm = 7.0 * max(theory.relaxation(load, choices), theory.relaxation(load, 1) / servers)
    return Case(load, servers, STRATEGIES[choices], seeds, requests, warm)


def _published(load: float, value: float, requests: int) -> Row:
    """Return a row for a value that a simulation gave."""
    case = _case(2, load, 100, 10, requests)
    return _row(HUNDRED, 2, case, lambda: value, 0.02, "", "Other code")


def _many(chapter: str, choices: int, case: Case, tolerance: float = 0.02, reason: str = "") -> Row:
    """Return a row for so many servers that the limit needs only a small correction."""
    expected = partial(theory.supermarket, case.load, choices, case.servers)
    return _row(
        chapter, choices, case, expected, tolerance, reason, "Mitzenmacher 2001", "Gast 2017"
    )


def _few(choices: int, servers: int, longest: int, requests: int) -> Row:
    """Return a row for so few servers that all states of their queues can be counted."""
    case = _case(choices, 0.7, servers, 10, requests)
    expected = partial(few_servers, 0.7, choices, servers, longest)
    return _row(LIMIT, choices, case, expected, 0.03, "", "Markov chain")


ROWS = (
    _published(0.5, 1.268, 5_500),
    _published(0.7, 1.620, 24_000),
    _published(0.8, 1.959, 38_000),
    _many(
        HUNDRED,
        2,
        _case(2, 0.9, 100, 12, 62_000),
        reason="100 servers are 1.2 % above the limit; terms of order 1/n² make some 0.03 %",
    ),
    _many(HUNDRED, 3, _case(3, 0.5, 100, 10, 5_000)),
    _many(HUNDRED, 3, _case(3, 0.8, 100, 10, 13_000), 0.03),
    _few(2, 2, 20, 19_000),
    _few(2, 10, 6, 8_000),
    _many(LIMIT, 2, _case(2, 0.7, 100, 10, 24_000)),
    _many(LIMIT, 2, _case(2, 0.7, 1000, 5, 35_000), 0.04),
    _few(3, 10, 6, 6_000),
    _many(LIMIT, 3, _case(3, 0.7, 100, 10, 6_500), 0.03),
    _many(LIMIT, 3, _case(3, 0.7, 1000, 5, 25_000), 0.04),
)
