"""Random: uniform whatever is left to choose from."""

from __future__ import annotations

import random

import pytest
from tests.strategies.support import SIGNIFICANCE, chi_square_tail, picks, shares

from loadwise import NodeSet, Random
from loadwise.testing import ScriptedRandom


@pytest.mark.parametrize(
    ("eligible", "exclude"),
    [
        (range(11), ()),
        ([0, 3, 4, 8, 10], ()),
        (range(11), {0, 5}),
        (range(11), {1, 2, 3, 4, 6, 7, 8, 9}),
        (range(1, 11), {1, 2, 3, 4, 6, 7, 9}),
    ],
    ids=["all", "view", "few-excluded", "most-excluded", "view-and-excluded"],
)
def test_uniform_over_what_is_left(eligible: range | list[int], exclude: set[int]) -> None:
    """Each of those left has the same chance: chi-square, error probability 1e-4."""
    nodes = NodeSet(range(11)).restrict(eligible)
    left = [i for i in eligible if i not in exclude]
    chosen = picks(Random(rng=random.Random(99)), nodes, 5000, exclude)
    counts = shares(chosen, 11)
    assert sum(counts[i] for i in left) == 5000
    assert chi_square_tail([counts[i] for i in left], [1] * len(left)) > SIGNIFICANCE


def test_a_draw_falls_on_its_share_of_the_unit_interval() -> None:
    """Draw u of n nodes is node floor(u * n), the largest draw there is the last one's."""
    strategy = Random[str](rng=ScriptedRandom([0.0, 0.2499, 0.25, 0.75, 1 - 2**-53]))
    assert picks(strategy, NodeSet(list("abcd")), 5) == [0, 0, 1, 3, 3]


def test_an_endless_run_of_excluded_draws_ends() -> None:
    """If the draws fall on excluded nodes again and again, the others are drawn from directly."""
    strategy = Random[str](rng=ScriptedRandom([0.0] * 8 + [0.5]))
    assert picks(strategy, NodeSet(list("abc")), 1, exclude={0}) == [2]


@pytest.mark.parametrize("rng", [7, "seed", object()])
def test_an_rng_must_draw(rng: object) -> None:
    """What has no random() is refused at construction."""
    with pytest.raises(TypeError, match=r"it must be a random\.Random, or None"):
        Random(rng=rng)  # type: ignore[arg-type]  # the point of the test
