"""The demo's strategies by name."""

from __future__ import annotations

import random

import pytest

from loadwise import Balancer, Endpoint
from loadwise.cli.demo.choices import CHOICES, DEFAULTS, choose, make


@pytest.mark.parametrize("name", CHOICES)
def test_each_choice_balances(name: str) -> None:
    """Every choice makes a strategy that a Balancer of the demo's nodes can use."""
    nodes = [Endpoint("a", weight=8), Endpoint("b", weight=1)]
    balancer = Balancer(nodes, make(name, random.Random(1)))
    with balancer.acquire(hash_key="request 1") as lease:
        assert lease.node in nodes


@pytest.mark.parametrize(
    ("spelled", "meant"),
    [
        *((name, name) for name in CHOICES),
        ("RoundRobin", "round-robin"),
        ("weighted_random", "weighted-random"),
        ("PowerOfTwoChoices", "p2c"),
        *((name.upper(), name) for name in DEFAULTS),
    ],
)
def test_names_in_any_spelling(spelled: str, meant: str) -> None:
    """The names of the demo and those of the classes are understood, in any case."""
    assert choose(spelled) == meant


def test_unknown_name_suggests_the_nearest() -> None:
    """An unknown name is quoted, with the nearest known one and all others."""
    with pytest.raises(
        ValueError, match=r"'lest-load' is not .* did you mean 'least-load'"
    ) as error:
        choose("lest-load")
    assert [name for name in CHOICES if name not in str(error.value)] == []


@pytest.mark.parametrize("name", ["random", "p2c-peak-ewma", "least-load"])
def test_same_seed_draws_the_same(name: str) -> None:
    """Strategies that draw take their chance from the seed."""

    def picks(seed: int) -> list[Endpoint]:
        nodes = [Endpoint(letter) for letter in "abcde"]
        balancer = Balancer(nodes, make(name, random.Random(seed)))
        return [balancer.pick() for _ in range(40)]

    assert picks(1) == picks(1) != picks(2)
