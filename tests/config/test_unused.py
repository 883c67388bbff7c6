"""Values of a fleet that nothing heeds: each is told of once, and the fleet is built."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from tests.config.fleets import PLAIN
from tests.discovery.support import logged

from loadwise._tables.contenders import STRATEGIES, Seat, contender
from loadwise.config import load_balancer
from loadwise.config.file import read_fleet

ZONED = {"nodes": [{"id": "a", "zone": "eu-1"}, {"id": "b", "zone": "eu-2"}]}
RPM = [{"name": "rpm", "limit": 60}]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tau": 10.0}, "tau is 10.0, but 'p2c' has no use for it: 'p2c-peak-ewma' has"),
        ({"tau": 5, "strategy": "tiers/slow-start"}, "tau is 5.0, but 'tiers' has no use for it"),
        ({"clients": {"zone": "x"}}, "clients.zone is 'x', but 'p2c' has no use for it: 'zones' h"),
        ({"nodes": ["a", {"id": "b", "priority": 1}]}, "the nodes differ in priority, but 'p2c'"),
        (
            {"nodes": ["a", {"id": "b", "weight": 2}], "strategy": "round-robin"},
            "the nodes differ in weight, but 'round-robin' has no use for it: 'weighted-round-robi",
        ),
        ({"clients": {"count": 4}}, "clients.count is 4, but there are no quotas to share"),
        ({"callers": {"budget": 0.5}}, "callers.budget is 0.5, but callers.attempts is 1"),
        (
            {"health": {"enabled": False, "jitter": 0.5}},
            "health has values, but health.enabled is false: leave out the one or the other",
        ),
        (
            {"health": {"jitter": 0.5}, "strategy": "p2c/no-health"},
            "health has values, but the strategy has /no-health: leave out",
        ),
    ],
)
def test_a_value_without_effect_is_told_of(change: dict[str, Any], said: str) -> None:
    """With the reason, and what to do."""
    with logged() as log:
        load_balancer({**PLAIN, **change})
    [line] = log.lines
    assert line.startswith(f"WARNING the fleet: {said}")


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"tau": 5.0, "strategy": "least_load_peak_ewma/no-health"},
        {"strategy": "zones", "clients": {"zone": "eu-1"}, **ZONED},
        ZONED,
        {"nodes": ["a", {"id": "b", "priority": 1}], "strategy": "tiers"},
        {"nodes": ["a", {"id": "b", "weight": 2}]},
        {"nodes": ["a", {"id": "b", "weight": 0}], "strategy": "random"},
        {"clients": {"count": 4}, "quotas": RPM},
        {"callers": {"attempts": 3, "budget": 0.5}},
        {"callers": {"attempts": 1, "budget": 0}},
        {"health": {"enabled": False}},
        {"strategy": "p2c/no-health"},
    ],
)
def test_nothing_is_said_of_a_fleet_that_is_heeded(change: dict[str, Any]) -> None:
    """Nor of what turns a thing off."""
    with logged() as log:
        load_balancer({**PLAIN, **change})
    assert log.lines == []


def test_a_setting_may_be_in_vain_too() -> None:
    """It is told of as a value of the file is."""
    assert read_fleet(PLAIN, ["tau=3"]).unused[0].startswith("tau is 3.0, but 'p2c'")
    assert read_fleet(PLAIN, ["strategy=p2c-peak-ewma", "tau=3"]).unused == ()


def test_which_strategies_forget_is_known() -> None:
    """Those that refuse a tau that is none."""
    refused: set[str] = set()
    for name in STRATEGIES:
        try:
            contender(name).make(Seat(Random(1), -1.0, "z", {"x": 1}))
        except ValueError:
            refused.add(name)
    assert refused == {name for name in STRATEGIES if contender(name).forgets} != set()
