"""Verdicts on nodes: the word and the reason for each state, alone and together."""

from __future__ import annotations

from typing import Any

import pytest

from loadwise import Cooldown, HealthStatus, NodeStatus
from loadwise.integrations._status_page.verdicts import WELL, Severity, verdict_of

DOWN = {"health": HealthStatus.UNHEALTHY, "health_reason": "3 failures in a row"}
STILL = "still answers now and then"
DRAINED = "drained: gets no new requests"


def status(**changed: Any) -> NodeStatus:
    """Return the status of a node that is well, but for what is changed."""
    plain: dict[str, Any] = {
        "id": "a",
        "health": HealthStatus.HEALTHY,
        "health_reason": None,
        "in_flight": 0,
        "latency": 0.01,
        "picks": 100,
        "quota_remaining": {},
        "next_probe": None,
        "drained": False,
    }
    return NodeStatus(**{**plain, **changed})


@pytest.mark.parametrize(
    ("changed", "ruled_out", "severity", "word", "why"),
    [
        (DOWN, "unhealthy", 0, "down", "3 failures in a row; a probe is under way"),
        (DOWN | {"next_probe": 4.2}, None, 0, "down", "3 failures in a row; probe in 4 s"),
        (
            DOWN | {"next_probe": 0.0},
            None,
            0,
            "down",
            "3 failures in a row; probe due: the next request",
        ),
        (
            DOWN | {"ailing": True},
            None,
            0,
            "ailing",
            f"3 failures in a row; it {STILL}, so it gets requests in panic; a probe is under way",
        ),
        (
            DOWN | {"ejected": True, "health_reason": "ejected: 5 failures", "next_probe": 30.0},
            "unhealthy",
            0,
            "ejected",
            "ejected: 5 failures; probe in 30 s",
        ),
        (
            {"health": HealthStatus.DEGRADED, "health_reason": "2 failures"},
            None,
            1,
            "degraded",
            "2 failures; still chosen",
        ),
        (
            {"health": HealthStatus.RECOVERING},
            "recovering",
            1,
            "recovering",
            "answers again; on trial, with few requests at a time",
        ),
        ({"drained": True}, "drained", 2, "drained", "gets no new requests"),
        (
            {"drained": True, "in_flight": 2},
            "drained",
            2,
            "drained",
            "gets no new requests, 2 requests still under way",
        ),
        (
            {"drained": True, "weight": 0},
            "drained",
            2,
            "drained",
            "its weight is 0: gets no new requests",
        ),
        (
            {"cooldown": Cooldown(90.0, 190.0, "rate limited")},
            "rate_limited",
            1,
            "cooldown",
            "rate limited; back in 90 s",
        ),
        ({"quota_remaining": {"tpm": 9e4, "rpm": 0}}, "quota", 1, "no quota", "0 of rpm left"),
        ({"limit": 8, "in_flight": 8}, "full", 1, "full", "8 of 8 requests under way"),
        ({}, "filtered", 2, "filtered", "the balancer's own filter does not admit it"),
        ({"latency": 0.2}, None, 2, "slow", "its latency is 20 times the median of 10 ms"),
        ({"slow_start": 0.25}, None, 2, "slow start", "has 25 % of its weight for now"),
        (
            {"recent_successes": 90, "recent_failures": 10},
            None,
            1,
            "failing",
            "10 % of 100 requests failed in the last minute",
        ),
        (
            DOWN
            | {"next_probe": 3.0, "drained": True, "cooldown": Cooldown(9.0, 9.0, "told to wait")},
            "drained",
            0,
            "down",
            f"3 failures in a row; probe in 3 s; {DRAINED}; cooldown: told to wait; back in 9 s",
        ),
    ],
)
def test_each_state_has_a_word_and_a_reason(
    changed: dict[str, Any], ruled_out: str | None, severity: int, word: str, why: str
) -> None:
    """The worst gives the word and comes first; the rest is told after it."""
    verdict = verdict_of(status(**changed), ruled_out, 0.01, panic=True)
    assert verdict == (Severity(severity), word, why)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"latency": None},
        {"latency": 0.029},
        {"recent_successes": 1000, "recent_failures": 1},
        {"recent_successes": 1, "recent_failures": 1},
        {"limit": 8, "in_flight": 7},
        {"quota_remaining": {"rpm": 1}},
    ],
)
def test_a_node_that_is_well_needs_no_words(changed: dict[str, Any]) -> None:
    """Nor one that has failed a few requests of many."""
    assert verdict_of(status(**changed), None, 0.01, panic=False) is WELL


def test_without_a_median_nobody_is_slow() -> None:
    """Two nodes tell nothing of what is usual."""
    assert verdict_of(status(latency=9.0), None, None, panic=False) is WELL
