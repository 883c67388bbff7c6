"""Status of each member as operators see it: in a record, and as JSON."""

from __future__ import annotations

import json
import math
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    Endpoint,
    HealthTracker,
    LeastLoad,
    NodeStatus,
    Outcome,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    RoundRobin,
)
from loadwise.testing import ManualClock

KEYS = {
    "id", "health", "health_reason", "in_flight", "latency", "picks", "quota_remaining",
    "next_probe", "drained", "ailing", "cooldown", "state_seconds", "recent_successes",
    "recent_failures", "limit", "weight", "zone", "priority", "slow_start",
    "ejected", "elsewhere",
}  # fmt: skip


def status_of(balancer: Balancer[Any], node: object) -> NodeStatus:
    """How one member is."""
    (found,) = (status for status in balancer.status() if status.id == node)
    return found


def test_the_time_in_a_state_begins_with_the_change() -> None:
    """From joining, and anew with each change, whoever found that out."""
    clock = ManualClock(100.0)
    health = HealthTracker(ConsecutiveFailurePolicy(3, 2, 10.0), clock=clock)
    balancer = Balancer(["a", "b"], RoundRobin(), health=health, clock=clock)
    clock.advance(5.0)
    balancer.add("c")
    clock.advance(2.0)
    assert [status.state_seconds for status in balancer.status()] == [7.0, 7.0, 2.0]
    health.report_failure("a")  # still HEALTHY
    assert status_of(balancer, "a").state_seconds == 7.0
    health.report_failure("a")
    clock.advance(1.0)
    assert status_of(balancer, "a").state_seconds == 1.0
    health.report_failure("a")
    clock.advance(10.0)
    assert status_of(balancer, "a").state_seconds == 10.0
    health.report_success("a")
    health.report_success("a")
    for _ in range(100):  # until nothing is remembered of its failures
        health.report_success("a")
    clock.advance(4.0)
    assert [status.state_seconds for status in balancer.status()] == [4.0, 22.0, 17.0]


def test_without_health_the_state_lasts_since_joining() -> None:
    """A node of which nobody tells anything is taken to be HEALTHY all the time."""
    clock = ManualClock()
    balancer = Balancer(["a"], health=False, clock=clock)
    clock.advance(3.0)
    assert balancer.status()[0].state_seconds == 3.0


def test_the_time_in_a_state_is_that_of_the_present_member() -> None:
    """Who is removed and comes back begins anew; who stays in a replacement goes on."""
    clock = ManualClock()
    balancer = Balancer(["a", "b"], clock=clock)
    clock.advance(5.0)
    balancer.replace(["a", "c"])
    balancer.remove("a")
    balancer.replace(["c", "a", "b"])
    clock.advance(1.0)
    assert [(status.id, status.state_seconds) for status in balancer.status()] == [
        ("c", 1.0), ("a", 1.0), ("b", 1.0),
    ]  # fmt: skip


def test_it_tells_where_a_node_is_and_what_it_weighs() -> None:
    """Nodes that have a weight, a zone and a priority are shown with them."""

    class Odd:
        id = "odd"
        zone = 5
        priority = "high"

    balancer: Balancer[Any] = Balancer([Endpoint("a", 2.5, "eu", 1), "b", Odd(), Endpoint("d", 0)])
    assert [(each.weight, each.zone, each.priority) for each in balancer.status()] == [
        (2.5, "eu", 1), (1, None, None), (1, None, None), (0, None, 0),
    ]  # fmt: skip
    assert [each.drained for each in balancer.status()] == [False, False, False, True]


class Colour(Enum):
    RED = 1


class Number(IntEnum):
    ONE = 1


class Word(StrEnum):
    HELLO = "hello"


class Loud(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "loud"


@pytest.mark.parametrize(
    ("identity", "told"),
    [
        ("10.0.0.1:8080", "10.0.0.1:8080"),
        ("\ud800", "\ud800"),
        (7, 7),
        (True, True),
        (None, None),
        (1.5, 1.5),
        (math.inf, None),
        (("10.0.0.1", 80), "('10.0.0.1', 80)"),
        (b"a", "b'a'"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Colour.RED, "RED"),
        (Number.ONE, "ONE"),
        (Word.HELLO, "HELLO"),
        (Loud("quiet"), "quiet"),
    ],
)
def test_ids_are_told_as_json_has_them(identity: Any, told: object) -> None:
    """What JSON has stays as it is, the rest becomes a text."""
    balancer = Balancer([identity])
    (node,) = balancer.status_dict()["nodes"]
    assert node["id"] == told
    assert type(node["id"]) is type(told)
    assert json.loads(json.dumps(balancer.status_dict(), allow_nan=False))["nodes"][0]["id"] == told


IDS = st.one_of(
    st.text(), st.integers(), st.floats(allow_nan=False), st.booleans(), st.none(),
    st.binary(), st.tuples(st.text(), st.integers()), st.sampled_from([Colour.RED, Word.HELLO]),
    st.decimals(allow_nan=False), st.uuids(), st.frozensets(st.integers()), st.datetimes(),
)  # fmt: skip


@given(
    ids=st.lists(IDS, unique=True, max_size=4),
    weight=st.one_of(st.integers(0, 5), st.floats(0, 1e308)),
    name=st.text(),
    pause=st.floats(0, 1.7e308),
)
def test_any_status_is_json_as_it_stands(
    ids: list[Any], weight: float, name: str, pause: float
) -> None:
    """``json.dumps`` takes it, without NaN, and gives back what it was given."""
    clock = ManualClock(1e308)
    balancer = Balancer([Endpoint(each, weight) for each in ids], name=name, clock=clock)
    for status in balancer.status():
        balancer.report(status.id, Outcome.FAILURE)
    if ids and weight:
        balancer.acquire().rate_limited(pause)
    told = balancer.status_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert all(set(node) == KEYS for node in told["nodes"])


def test_a_node_is_told_with_all_there_is() -> None:
    """Every key is that of an attribute; states are told by name, and cooldowns as mappings."""
    clock = ManualClock(10.0)
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", limit=10)]))
    health = HealthTracker(ConsecutiveFailurePolicy(1, 2, 30.0), clock=clock)
    balancer = Balancer(
        [Endpoint("a", 2, "eu", 1)], LeastLoad(lambda _: 0.0), health=health, quota=quota
    )
    lease = balancer.acquire()
    balancer.acquire().success()
    lease.failure("refused", 20.0)
    clock.advance(5.0)
    assert status_of(balancer, "a").to_dict() == {
        "id": "a",
        "health": "UNHEALTHY",
        "health_reason": "1 failure, the last: refused",
        "in_flight": 0,
        "latency": 0.0,
        "picks": 2,
        "quota_remaining": {"rpm": 8},
        "next_probe": 25.0,
        "drained": False,
        "ailing": True,
        "limit": None,
        "cooldown": {
            "seconds_left": 15.0, "until": 30.0, "reason": "failure: refused, retry after 20 s",
        },
        "state_seconds": 5.0,
        "recent_successes": 1,
        "recent_failures": 1,
        "weight": 2,
        "zone": "eu",
        "priority": 1,
        "slow_start": None,
        "ejected": False,
        "elsewhere": 0,
    }  # fmt: skip


def test_a_balancer_is_told_as_panic_counts_it() -> None:
    """Members are those that are admitted and not drained; available those not UNHEALTHY."""
    clock = ManualClock()
    health = HealthTracker(ConsecutiveFailurePolicy(1), clock=clock)
    balancer = Balancer(
        [*"abcdef"], RoundRobin(), health=health, where=lambda node: node != "f", name="search"
    )
    balancer.drain("e")
    for node in "abef":
        health.report_failure(node)
    told = balancer.status_dict()
    nodes = told.pop("nodes")
    assert told == {
        "name": "search",
        "strategy": "RoundRobin",
        "panic": None,
        "members": 4,
        "available": 2,
        "counts": {"HEALTHY": 2, "DEGRADED": 0, "UNHEALTHY": 4, "RECOVERING": 0},
        "on_cooldown": 0,
        "waiting": 0,
    }
    assert nodes == [status.to_dict() for status in balancer.status()]
    health.report_failure("c")
    balancer.acquire().rate_limited()
    told = balancer.status_dict()
    assert told["panic"] == {
        "available": 1,
        "ailing": 0,
        "members": 4,
        "threshold": 0.5,
        "last_resort": False,
        "text": "panic: 1 of 4 nodes is available, below 50 %",
    }
    assert (told["members"], told["available"], told["on_cooldown"]) == (4, 1, 1)


def test_an_empty_balancer_is_told_too() -> None:
    """There is nobody, and nothing is divided by that."""
    told = Balancer((), name="x").status_dict()
    assert (told["members"], told["available"], told["nodes"], told["panic"]) == (0, 0, [], None)
