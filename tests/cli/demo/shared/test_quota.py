"""What the servers of the shared demo allow, and how that is checked."""

from __future__ import annotations

import random

import pytest

from loadwise.cli.demo.fleet import PROFILES
from loadwise.cli.demo.plan import Plan
from loadwise.cli.demo.shared.quota import SCARCE, WINDOW, config_of, limits_of, most_in_any_window


@pytest.mark.parametrize("requests", [100, 1_000, 3_000, 100_000])
def test_one_server_is_scarce_and_the_others_could_take_all(requests: int) -> None:
    """The scarce server allows less than half an equal share, each other one more than all."""
    plan = Plan(requests, 16, 1)
    rate = requests / plan.seconds
    limits = limits_of(plan)
    assert set(limits) == {profile.name for profile in PROFILES}
    assert 1 < limits[SCARCE] <= max(2, rate / len(PROFILES) / 2)
    assert all(limit > rate for name, limit in limits.items() if name != SCARCE)


def test_clients_keep_to_a_longer_window_than_is_checked() -> None:
    """What clients reserve leaves room for requests that are held up on their way."""
    (dimension,) = config_of(40).dimensions
    assert dimension.limit == 40
    assert dimension.window > WINDOW


def test_most_in_any_window_is_that_of_the_definition() -> None:
    """The sliding count agrees with a count over the window that begins at each moment."""
    source = random.Random(1)
    for _ in range(200):
        times = [source.choice([source.uniform(0, 4), source.randrange(4)]) for _ in range(30)]
        expected = max(sum(begin <= time < begin + WINDOW for time in times) for begin in times)
        assert most_in_any_window(times) == expected
    assert most_in_any_window([]) == 0
