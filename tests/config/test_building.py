"""Balancers from fleet files: what a file says is what they do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.config.fleets import FULL, PLAIN

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    ConsistentHash,
    Endpoint,
    HealthStatus,
    HealthTracker,
    InFlight,
    LeastLoad,
    NoNodeAvailable,
    NoopCollector,
    PowerOfTwoChoices,
    RetryBudget,
    Split,
    Tiers,
    Zones,
)
from loadwise.config import ConfiguredBalancer, load_balancer
from loadwise.testing import ManualClock

IDS = ["a-1", "b-2", "c-3", "d-4"]
NODES = [
    Endpoint(identity, weight, zone, priority, {"v": v})
    for identity, weight, zone, priority, v in zip(
        IDS, (1, 2, 3, 4), "xxyy", (0, 0, 1, 1), ("old", "old", "old", "new"), strict=True
    )
]
TABLES = [
    {"id": n.id, "weight": n.weight, "zone": n.zone, "priority": n.priority, "tags": dict(n.tags)}
    for n in NODES
]
SPLIT = {"split": {"tag": "v", "shares": {"old": 70, "new": 30}}}


def by_version(node: Endpoint) -> str:
    """Return the group of a node."""
    return node.tags["v"]


def p2c(rng: Random) -> Callable[[], PowerOfTwoChoices[Endpoint]]:
    """Return the maker of the strategy inside of others."""
    return lambda: PowerOfTwoChoices(InFlight(), rng)


STRATEGIES: dict[str, tuple[dict[str, Any], Callable[[Random], Any]]] = {
    "p2c": ({}, lambda rng: p2c(rng)()),
    "least-load": ({}, lambda rng: LeastLoad(InFlight(), rng)),
    "consistent-hash": ({}, lambda _: ConsistentHash()),
    "tiers": ({}, lambda rng: Tiers(p2c(rng), rng=rng)),
    "zones": ({"clients": {"zone": "y"}}, lambda rng: Zones(p2c(rng), local="y", rng=rng)),
    "split": (SPLIT, lambda rng: Split({"old": 70, "new": 30}, by_version, p2c(rng), rng=rng)),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_file_and_the_same_in_python_pick_alike(name: str) -> None:
    """With the same seed, whatever comes and goes, request for request."""
    more, make = STRATEGIES[name]
    clock = ManualClock()
    fleet = {"nodes": TABLES, "strategy": name, "health": {"jitter": 0.5}, **more}
    rng = Random(7)
    own = Balancer(
        NODES,
        make(rng),
        health=HealthTracker(ConsecutiveFailurePolicy(jitter=0.5), clock, rng),
        clock=clock,
    )
    picks = [
        _picks(each, clock) for each in (own, load_balancer(fleet, clock=clock, rng=Random(7)))
    ]
    assert picks[0] == picks[1]
    assert len({*picks[0]}) > 1


def _picks(balancer: Balancer[Endpoint], clock: ManualClock) -> list[object]:
    """Return who is chosen for 200 requests, some of which fail and some of which last."""
    picked: list[object] = []
    under_way = []
    for number in range(200):
        clock.advance(0.1)
        lease = balancer.acquire(hash_key=f"key-{number}")
        picked.append(lease.node.id)
        if lease.node.id == "b-2" and number > 100:
            lease.failure("down")
        elif number % 3:
            under_way.append(lease)
        else:
            lease.success()
        if len(under_way) > 5:
            under_way.pop(0).success()
    for lease in under_way:
        lease.success()
    return picked


def test_every_table_arrives(tmp_path: Path) -> None:
    """A file with something in every table builds what the same in Python does."""
    clock = ManualClock()
    balancer = load_balancer(FULL, clock=clock)
    assert isinstance(balancer, ConfiguredBalancer)
    assert balancer.name == "search"
    assert [(node.id, node.weight, node.zone, node.priority) for node in balancer.nodes] == [
        ("a:1", 3, "eu-1", 1),
        ("b:1", 1, "eu-2", 0),
        ("c:1", 1, None, 0),
    ]
    assert dict(balancer.nodes[0].tags) == {"rack": "r1"}
    assert balancer.health is not None
    assert balancer.health.policy == ConsecutiveFailurePolicy(5, jitter=0.5)
    assert {status.limit for status in balancer.status()} == {8}
    assert balancer.clock == clock
    left = {status.id: dict(status.quota_remaining) for status in balancer.status()}
    assert left == {
        "a:1": {"rpm": 30, "tpm": 500},
        "b:1": {"rpm": 30, "tpm": 500},
        "c:1": {"rpm": 30},
    }
    assert balancer.retries.attempts == 2
    assert balancer.status_dict()["strategy"] == "Tiers"


def test_without_tables_all_is_as_in_python() -> None:
    """Nodes alone give what ``Balancer(nodes)`` is."""
    balancer = load_balancer(PLAIN)
    assert balancer.nodes == (Endpoint("a:1"), Endpoint("b:1"))
    assert (balancer.quota, balancer.retries.attempts, balancer.retries.budget) == (None, 3, None)
    assert balancer.health is not None
    assert balancer.health.policy == ConsecutiveFailurePolicy()
    assert balancer.status_dict()["strategy"] == "PowerOfTwoChoices"


@pytest.mark.parametrize("fleet", [{"strategy": "p2c/no-health"}, {"health": {"enabled": False}}])
def test_health_can_be_left_out(fleet: dict[str, Any]) -> None:
    """By the option of the strategy, or in its own table."""
    assert load_balancer(PLAIN | fleet).health is None


@pytest.mark.parametrize("fleet", [{"strategy": "p2c/outliers"}, {"outliers": {}}, {}])
def test_outliers(fleet: dict[str, Any]) -> None:
    """The table and the option both eject a node that fails five in a row."""
    clock = ManualClock()
    balancer = load_balancer(
        {"nodes": IDS, **fleet, "health": {"failure_threshold": 100}}, clock=clock
    )
    for _ in range(20):
        for identity in IDS[1:]:
            balancer.acquire(exclude={*IDS} - {identity}).success()
    for _ in range(8):
        try:
            balancer.acquire(exclude=IDS[1:]).failure("no")
        except NoNodeAvailable:
            break
    assert [status.ejected for status in balancer.status()] == [bool(fleet), False, False, False]


@pytest.mark.parametrize("fleet", [{"strategy": "p2c/slow-start"}, {"slow_start": {}}, {}])
def test_slow_start(fleet: dict[str, Any]) -> None:
    """The table and the option both have it for nodes that join."""
    clock = ManualClock()
    balancer = load_balancer(PLAIN | fleet, clock=clock)
    clock.advance(5.0)
    balancer.add(Endpoint("new"))
    assert (balancer.status()[-1].slow_start is not None) is bool(fleet)


def test_panic_and_queue() -> None:
    """``"none"`` is no panic, and as many may wait as the file says."""
    balancer = load_balancer({"nodes": ["a"], "health": {"panic_threshold": "none"}})
    for _ in range(3):
        balancer.acquire().failure("down")
    with pytest.raises(NoNodeAvailable, match="unhealthy"):
        balancer.acquire()
    full = load_balancer({"nodes": ["a"], "limits": {"max_in_flight": 1, "max_waiting": 0}})
    with full.acquire(), pytest.raises(NoNodeAvailable, match="waited for by too many"):
        full.acquire(timeout=5.0)


def test_quotas_of_newcomers() -> None:
    """Who joins has the quotas of the file, and who stays keeps what was used."""
    fleet = {"nodes": ["a"], "quotas": [{"name": "rpm", "limit": 2, "nodes": []}]}
    balancer = load_balancer(fleet)
    balancer.acquire().success()
    balancer.add(Endpoint("b"))
    assert [dict(each.quota_remaining) for each in balancer.status()] == [{"rpm": 1}, {"rpm": 2}]
    balancer.replace([Endpoint("a", 2), Endpoint("c")])
    assert [dict(each.quota_remaining) for each in balancer.status()] == [{"rpm": 1}, {"rpm": 2}]
    for _ in range(3):
        balancer.pick()
    with pytest.raises(NoNodeAvailable, match="2 quota"):
        balancer.pick()


def test_a_quota_of_one_node_is_no_other_s() -> None:
    """Nor is one that this program does not keep."""
    quotas = [
        {"name": "rpm", "limit": 5, "nodes": ["a:1"]},
        {"name": "x", "limit": 1, "aware": False},
    ]
    balancer = load_balancer(PLAIN | {"quotas": quotas})
    assert [dict(each.quota_remaining) for each in balancer.status()] == [{"rpm": 5}, {}]
    joined = load_balancer(
        PLAIN | {"quotas": [quotas[0], {"name": "rpm", "limit": 7, "nodes": ["b:1"]}]}
    )
    assert [dict(each.quota_remaining) for each in joined.status()] == [{"rpm": 5}, {"rpm": 7}]


def test_calls_retry_as_the_file_says() -> None:
    """Unless they say it themselves; threads and tasks alike."""
    balancer = load_balancer({"nodes": IDS, "callers": {"attempts": 2}})
    asked: list[object] = []

    def fail(node: Endpoint) -> None:
        asked.append(node.id)
        raise ConnectionError

    async def fail_later(node: Endpoint) -> None:
        fail(node)

    for attempts in (2, 3):
        options: Any = {} if attempts == 2 else {"attempts": attempts}
        with pytest.raises(ConnectionError):
            balancer.call(fail, **options)
        assert len(asked) == attempts
        with pytest.raises(ConnectionError):
            asyncio.run(balancer.call_async(fail_later, **options))
        assert len(asked) == 2 * attempts
        asked.clear()


def test_the_budget_of_the_file_limits_retries() -> None:
    """10 in a second of its window, and no more where hardly anything else is sent."""
    clock = ManualClock()
    balancer = load_balancer({"nodes": IDS, "callers": {"attempts": 2, "budget": 0}}, clock=clock)
    asked: list[object] = []

    def fail(node: Endpoint) -> None:
        asked.append(node.id)
        raise ConnectionError

    for _ in range(300):
        with pytest.raises(ConnectionError):
            balancer.call(fail)
    assert len(asked) == 300 + 100
    asked.clear()
    with pytest.raises(ConnectionError):
        balancer.call(fail, budget=RetryBudget(clock=clock))
    assert len(asked) == 2


def test_leases_of_calls() -> None:
    """A function may be given the lease, as by any balancer."""
    balancer = load_balancer(PLAIN)
    seen = balancer.call(lambda node, lease: (node, lease.node), with_lease=True)
    assert seen[0] is seen[1]


def test_settings_come_last() -> None:
    """They override the file, in order."""
    balancer = load_balancer(FULL, ["name=other", "nodes.0.weight=7", "limits.max_in_flight=none"])
    assert balancer.name == "other"
    assert [node.weight for node in balancer.nodes] == [7, 1, 1]
    assert {status.limit for status in balancer.status()} == {None}
    plain = load_balancer(PLAIN, ["nodes.1.weight=7", "nodes.0=c:1"])
    assert [(node.id, node.weight) for node in plain.nodes] == [("c:1", 1), ("b:1", 7)]
    split = load_balancer(
        {"nodes": TABLES, "strategy": "split", **SPLIT},
        ["split.shares.new=0", "callers.attempts=5"],
    )
    assert split.retries.attempts == 5
    assert {split.pick().tags["v"] for _ in range(50)} == {"old"}


def test_what_no_file_can_say() -> None:
    """Metrics, filters, failures and clocks are handed on."""

    class Seen(NoopCollector):
        count = 0

        def on_selection(self, node_id: object, strategy: str) -> None:
            Seen.count += 1

    balancer = load_balancer(
        PLAIN, metrics=Seen(), where=lambda node: node.id == "b:1", failures=OSError
    )
    with pytest.raises(KeyError), balancer.acquire() as lease:
        raise KeyError
    assert (lease.node.id, Seen.count) == ("b:1", 1)
    assert {status.health for status in balancer.status()} == {HealthStatus.HEALTHY}
    with pytest.raises(TypeError, match="rng is 7; it must be a random"):
        load_balancer(PLAIN, rng=7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="colck"):
        load_balancer(PLAIN, colck=7)  # type: ignore[call-arg]


def test_it_is_read_from_a_file(tmp_path: Path) -> None:
    """By a path or a text, with a mark of byte order or without."""
    path = tmp_path / "fleet.toml"
    path.write_text('\ufeffnodes = ["a:1", {id = "b:1", weight = 2}]\n')
    for source in (path, str(path)):
        assert [node.weight for node in load_balancer(source).nodes] == [1, 2]
