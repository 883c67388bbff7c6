"""A random source that draws what it is told."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable

import pytest

from loadwise.testing import ScriptedRandom


def test_draws_come_from_the_script_in_order() -> None:
    """`random` returns the numbers given, from any iterable, and nothing after the last."""
    rng = ScriptedRandom(number / 4 for number in range(3))
    assert isinstance(rng, random.Random)
    assert [rng.random() for _ in range(3)] == [0.0, 0.25, 0.5]
    with pytest.raises(AssertionError, match="draw 4 was asked for, but the script has only 3"):
        rng.random()
    with pytest.raises(AssertionError, match="draw 1 was asked for, but the script has only 0"):
        ScriptedRandom().random()


@pytest.mark.parametrize(
    "use",
    [
        lambda rng: rng.uniform(10.0, 20.0),
        lambda rng: rng.choices("abcd", k=1),
        lambda rng: rng.choice("abcd"),
        lambda rng: rng.randrange(10),
        lambda rng: rng.shuffle([1, 2]),
    ],
    ids=["uniform", "choices", "choice", "randrange", "shuffle"],
)
def test_derived_draws_come_from_the_script(use: Callable[[random.Random], object]) -> None:
    """What `random.Random` derives from `random` leaves nothing to chance either."""
    assert use(ScriptedRandom([0.99])) == use(ScriptedRandom([0.99]))
    with pytest.raises(AssertionError, match="the script has only 0"):
        use(ScriptedRandom())


def test_a_draw_near_1_is_near_the_end() -> None:
    """The usual formulas hold for scripted draws."""
    rng = ScriptedRandom([0.99, 0.5])
    assert rng.choices("abcd", k=1) == ["d"]
    assert rng.uniform(10.0, 20.0) == 15.0


def test_a_copy_draws_the_rest_of_the_script() -> None:
    """A copy goes on where the original stands, and neither draws from the other."""
    rng = ScriptedRandom([0.1, 0.2, 0.3])
    rng.random()
    twin = copy.copy(rng)
    assert [twin.random(), twin.random()] == [0.2, 0.3]
    assert [rng.random(), rng.random()] == [0.2, 0.3]


@pytest.mark.parametrize("draw", [-0.1, 1.0, math.nan, math.inf])
def test_refuses_draws_that_no_random_source_makes(draw: float) -> None:
    """A number outside [0, 1) is refused when the script is given, by value."""
    with pytest.raises(ValueError, match=rf"the script has {draw}; a draw must be in \[0, 1\)"):
        ScriptedRandom([0.5, draw])
