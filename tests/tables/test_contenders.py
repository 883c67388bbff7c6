"""Contenders by name: strategies and their options."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from loadwise import PowerOfTwoChoices, Split, Tiers, Zones
from loadwise._tables.contenders import STRATEGIES, Seat, contender
from loadwise.strategies.catalogue import STRATEGIES as OF_ONE_NODE

SEAT = Seat(Random(1), zone="a", shares={"old": 95.0, "new": 5.0})


@pytest.mark.parametrize(
    ("text", "name", "health", "outliers", "slow_start"),
    [
        ("p2c", "p2c", True, False, False),
        ("PowerOfTwoChoices/no-health", "p2c/no-health", False, False, False),
        ("Least_Load/outliers", "least-load/outliers", True, True, False),
        ("p2c/no-health/pending-tokens", "p2c/pending-tokens/no-health", False, False, False),
        ("zones/slow-start", "zones/slow-start", True, False, True),
        ("p2c/slow-start/outliers", "p2c/outliers/slow-start", True, True, True),
        ("Split/slow-start/no-health/outliers", "split/no-health/outliers/slow-start", 0, 1, 1),
    ],
)
def test_options(text: str, name: str, health: bool, outliers: bool, slow_start: bool) -> None:  # noqa: FBT001 - columns
    """They may stand in any order, and have one order in results."""
    found = contender(text)
    assert found.name == name
    assert (found.health, found.outliers, found.slow_start) == (health, outliers, slow_start)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p2c/outlier", "'p2c/outlier' has an unknown option, 'outlier'; did you mean 'outliers'?"),
        ("p2c/", "'p2c/' has an unknown option, '' (the options are /pending-tokens, /no-health, "),
        (
            "random/pending-tokens",
            "'random/pending-tokens': /pending-tokens is a load to choose by, for p2c and",
        ),
        ("zone/outliers", "'zone' is not a strategy; did you mean 'zones'?"),
    ],
)
def test_unknown(text: str, message: str) -> None:
    """The error has the nearest name, and all of them."""
    with pytest.raises(
        ValueError, match=r"is not a strategy|unknown option|a load to choose"
    ) as caught:
        contender(text)
    assert message in str(caught.value)


def test_names_of_the_catalogue_are_all_there() -> None:
    """Beside them are those that go by what a scenario says of groups of servers."""
    assert {*STRATEGIES} == {*OF_ONE_NODE, "tiers", "zones", "split"}


@pytest.mark.parametrize("name", ["prefix-affinity", "lmetric", "cache-aware", "scored-prefix"])
def test_strategies_by_prefix_take_caches_for_as_large_as_the_seat_says(name: str) -> None:
    """Blocks of the servers' size, and as many."""
    made: Any = contender(name).make(Seat(Random(1), blocks=7, block_chars=64))
    index = made.index
    assert (index.capacity_blocks, index.block_chars) == (7, 64)


@pytest.mark.parametrize(("name", "of"), [("tiers", Tiers), ("zones", Zones), ("split", Split)])
def test_strategies_by_group(name: str, of: type[Any]) -> None:
    """Each client has its own, by its zone and by the shares of the scenario."""
    assert isinstance(contender(name).make(SEAT), of)
    assert isinstance(contender("p2c").make(SEAT), PowerOfTwoChoices)
