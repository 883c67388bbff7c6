"""Backoff: waits that grow, are drawn at random, and never pass the cap."""

from __future__ import annotations

import copy
import math
import pickle
import random
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadwise import Backoff
from loadwise.testing import ScriptedRandom


def test_without_jitter_it_doubles_up_to_the_cap() -> None:
    """The wait is the base, then twice that, and so on; never more than the cap."""
    backoff = Backoff(base=0.1, cap=1.0, jitter=False)
    assert [backoff.delay(k) for k in (0, 1, 2, 3, 4, 5, 2000)] == [0.1, 0.2, 0.4, 0.8, 1, 1, 1]


def test_jitter_draws_from_nothing_to_the_whole() -> None:
    """Each wait is a share of what it would be without jitter, drawn for it alone."""
    backoff = Backoff(base=0.1, cap=0.3, rng=ScriptedRandom([0.0, 0.5, 0.75, 0.999]))
    assert [backoff.delay(k) for k in range(4)] == pytest.approx([0.0, 0.1, 0.225, 0.2997])


def test_by_default_no_two_waits_are_alike() -> None:
    """Jitter is on, from the shared source."""
    assert len({Backoff().delay(9) for _ in range(20)}) == 20


@given(
    base=st.floats(min_value=1e-9, max_value=1e9),
    factor=st.floats(min_value=1, max_value=1e9),
    k=st.integers(0, 10**6),
    seed=st.integers(0, 100),
)
def test_the_wait_is_within_its_bounds(base: float, factor: float, k: int, seed: int) -> None:
    """It is from 0 to ``min(cap, base * 2**k)``, whatever the round, and finite."""
    cap = base * factor
    most = Backoff(base, cap, jitter=False).delay(k)
    assert 0 <= Backoff(base, cap, rng=random.Random(seed)).delay(k) <= most <= cap
    assert most >= min(cap, base)


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"base": 0}, ValueError, "base is 0; it must be a finite number of seconds above 0"),
        ({"base": -1.0}, ValueError, "base is -1.0"),
        ({"base": math.nan}, ValueError, "base is nan"),
        ({"base": "1"}, TypeError, "base is '1'; it must be a number"),
        ({"base": True}, TypeError, "base is True"),
        ({"cap": math.inf}, ValueError, "cap is inf"),
        ({"base": 3.0}, ValueError, "cap is 2.0; it must be .* at least the base of 3"),
        ({"jitter": 1}, TypeError, "jitter is 1; it must be True or False"),
        ({"rng": 7}, TypeError, "rng is 7; it must be a random.Random"),
    ],
)
def test_wrong_arguments(keywords: dict[str, Any], error: type[Exception], message: str) -> None:
    """They are told at construction, with the value."""
    with pytest.raises(error, match=message):
        Backoff(**keywords)


def test_it_is_a_value() -> None:
    """Frozen, comparable, hashable, and as good when copied or pickled."""
    backoff = Backoff(0.1, 1.0)
    assert backoff == Backoff(0.1, 1.0) != Backoff(0.2, 1.0)
    assert len({backoff, copy.copy(backoff), pickle.loads(pickle.dumps(backoff))}) == 1  # noqa: S301 - our own
    assert repr(backoff) == "Backoff(base=0.1, cap=1.0, jitter=True)"
    with pytest.raises(FrozenInstanceError):
        backoff.base = 1.0  # type: ignore[misc]
