"""How a request is described: keywords or a ready context, and what is wrong with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.compiled import unexpected_keyword, wrong_type

from loadwise import (
    Balancer,
    ConsistentHash,
    Endpoint,
    HealthStatus,
    HealthTracker,
    LeastLoad,
    MissingHashKey,
    NoNodeAvailable,
    NoopCollector,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    Random,
    RoundRobin,
    SelectionContext,
)
from loadwise.testing import ManualClock

WAYS_TO_ASK: list[Callable[[Balancer[Any]], Callable[..., object]]] = [
    lambda balancer: balancer.pick,
    lambda balancer: balancer.acquire,
    lambda balancer: balancer.explain,
]
BOTH_GIVEN = "give either a context or the keywords"


@pytest.mark.parametrize("way", WAYS_TO_ASK, ids=["pick", "acquire", "explain"])
@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((SelectionContext(),), {"hash_key": "k"}, BOTH_GIVEN),
        ((SelectionContext(),), {"exclude": ["a"]}, BOTH_GIVEN),
        ((SelectionContext(),), {"cost": {"rpm": 1}}, BOTH_GIVEN),
        ((SelectionContext(),), {"tags": {"k": "v"}}, BOTH_GIVEN),
        (("user-42",), {}, "context is 'user-42'; it must be a SelectionContext"),
        (({"hash_key": "k"},), {}, "it must be a SelectionContext"),
        ((), {"hash_key": 1.5}, wrong_type("hash_key is 1.5")),
        ((), {"hash_key": ("a", 1)}, wrong_type("hash_key is")),
        ((), {"exclude": "a"}, "exclude is 'a'; give a collection of ids"),
        ((), {"exclude": b"a"}, "exclude is b'a'"),
        ((), {"exclude": 5}, "exclude is 5; give a collection of ids"),
        ((), {"exclude": [["a"]]}, "unhashable"),
        ((), {"cost": 5}, "cost is 5; give amounts by quota dimension"),
        ((), {"where": "zone"}, "it must be a Filter or a function of a node"),
        ((), {"wehre": None}, unexpected_keyword("wehre")),
    ],
)
def test_wrong_arguments(
    way: Callable[[Balancer[Any]], Callable[..., object]],
    arguments: tuple[object, ...],
    keywords: dict[str, object],
    message: str,
) -> None:
    """A wrong argument is a TypeError that names it, and nothing is counted."""
    balancer = Balancer(["a", "b"])
    with pytest.raises(TypeError, match=message):
        way(balancer)(*arguments, **keywords)
    assert [(status.in_flight, status.picks) for status in balancer.status()] == [(0, 0), (0, 0)]


class AwaitedQuota(QuotaTracker):
    """A quota for asyncio: its answer would pass for a reservation, and nothing be limited."""

    async def try_acquire(self, node_id: object, amounts: object = None) -> Any:  # type: ignore[override]
        raise AssertionError("nobody awaits it")


class AttachedCollector(NoopCollector):
    """A collector that wants to know its balancers."""

    def attach(self, balancer: object) -> AttachedCollector:
        raise AssertionError("it is not for the class to attach")


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"health": "yes"}, "health is 'yes'; it must be a HealthTracker, True, False or None"),
        ({"strategy": RoundRobin}, r"strategy is the class RoundRobin; give an instance"),
        ({"strategy": "p2c"}, "strategy is 'p2c'; it needs a method select"),
        ({"metrics": object()}, r"metrics is .*; it lacks on_selection\(\)"),
        ({"metrics": NoopCollector}, r"metrics is the class NoopCollector; give an instance"),
        ({"where": 3}, "the filter is 3"),
        ({"quota": 42}, "quota is 42; it must be a QuotaTracker"),
        ({"quota": QuotaTracker}, "quota is .*; it must be a QuotaTracker"),
        ({"quota": AwaitedQuota()}, "whose try_acquire is to be awaited; .* where=QuotaFilter"),
        ({"metrics": AttachedCollector}, "metrics is the class AttachedCollector; give an inst"),
    ],
)
def test_wrong_parts(keywords: dict[str, Any], message: str) -> None:
    """A part of the wrong kind is refused at construction, with the remedy."""
    with pytest.raises(TypeError, match=message):
        Balancer(["a"], **keywords)


def test_a_ready_context_excludes_by_index() -> None:
    """A context speaks of indices, the keywords of ids; both mean the same nodes."""
    balancer = Balancer(["a", "b", "c"], RoundRobin())
    assert {balancer.pick(SelectionContext(exclude={0, 2})) for _ in range(6)} == {"b"}
    assert {balancer.pick(exclude={"a", "c"}) for _ in range(6)} == {"b"}
    with pytest.raises(NoNodeAvailable) as caught:
        balancer.pick(SelectionContext(exclude={0, 1, 2}))
    assert dict(caught.value.reasons) == {"excluded": 3}
    only_b = SelectionContext(exclude={0})
    assert {balancer.pick(only_b, where=lambda node: node != "c") for _ in range(6)} == {"b"}


def test_exclusions_by_id_need_not_be_members() -> None:
    """An id that has left is not there to be excluded; any collection of ids will do."""
    balancer = Balancer([Endpoint("a"), Endpoint(("b", 2)), Endpoint(3)], RoundRobin())
    for exclude in (["a", "gone", 3], {"a", 3}, iter(["a", 3]), {"a": 1, 3: 1}.keys()):
        assert balancer.pick(exclude=exclude).id == ("b", 2)


class Unhashable:
    """A node of the user's own that compares by what it is, and so has no hash."""

    def __init__(self, identity: str) -> None:
        self.id = identity

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unhashable) and other.id == self.id

    __hash__ = None  # type: ignore[assignment]  # as Python does by itself


def test_nodes_are_excluded_by_their_ids() -> None:
    """A node that stands where its id should is taken by its id."""
    kinds: list[Callable[[str], Any]] = [Endpoint, Unhashable]
    for make in kinds:
        balancer: Balancer[Any] = Balancer([make("a"), make("b")], RoundRobin())
        assert {balancer.pick(exclude=[make("a")]).id for _ in range(4)} == {"b"}
        assert balancer.acquire(exclude=[make("a"), "gone"]).success()
        assert balancer.explain(exclude=[make("a")]).ineligible == {"a": "excluded"}
        for attempt in balancer.attempts(2, exclude=[make("a")]):
            with attempt as lease:
                assert lease.node.id == "b"
        assert balancer.pick(exclude=[make("gone")]) in balancer.nodes


def test_a_ready_context_carries_cost_and_key() -> None:
    """A mapping as ``estimated_cost`` is reserved as ``cost`` is, and ``hash_key`` is followed."""
    quota = QuotaTracker(ManualClock())
    for node in "abc":
        quota.register(node, QuotaConfig([QuotaDimension("tpm", limit=100)]))
    balancer = Balancer(list("abc"), ConsistentHash(), quota=quota)
    context = SelectionContext("user-42", estimated_cost={"tpm": 40})
    lease = balancer.acquire(context)
    assert balancer.acquire(hash_key="user-42", cost={"tpm": 40}).success()
    left = {status.id: status.quota_remaining["tpm"] for status in balancer.status()}
    assert left == {node: 20 if node == lease.node else 100 for node in "abc"}
    lease.success()


def test_a_key_keeps_its_node() -> None:
    """Requests with one key go to one node, for every kind of key, until that node goes down."""
    clock = ManualClock()
    balancer = Balancer([f"n{i}" for i in range(20)], ConsistentHash(), clock=clock)
    keys: list[str | bytes | int] = ["user-42", b"user-42", 2**64 - 1, 0, *map(str, range(60))]
    home = {key: balancer.pick(hash_key=key) for key in keys}
    assert len(set(home.values())) > 10
    assert home["user-42"] == home[b"user-42"]
    for key, node in home.items():
        with balancer.acquire(hash_key=key) as lease:
            assert lease.node == node
    assert balancer.health is not None
    down = home["user-42"]
    for _ in range(3):
        balancer.health.report_failure(down)
    moved = {key: balancer.pick(hash_key=key) for key in keys}
    assert {key for key in keys if moved[key] != home[key]} == {
        key for key in keys if home[key] == down
    }
    assert down not in moved.values()


def test_a_strategy_that_needs_a_key_says_so() -> None:
    """Without ``hash_key`` a hashing strategy raises, and nothing is counted."""
    balancer = Balancer(["a"], ConsistentHash())
    for ask in (balancer.pick, balancer.acquire, balancer.explain):
        with pytest.raises(MissingHashKey, match="the request has no hash_key"):
            ask()
    with pytest.raises(ValueError, match=r"must be in 0\.\.2\^64-1"):
        balancer.acquire(hash_key=-1)
    assert [(status.in_flight, status.picks) for status in balancer.status()] == [(0, 0)]


def test_status_tells_all() -> None:
    """Every field of the status, for nodes well, failing, down, probed, drained and limited."""
    clock = ManualClock(500.0)
    quota = QuotaTracker(clock)
    quota.register(
        "well", QuotaConfig([QuotaDimension("rpm", 10), QuotaDimension("tpm", 500, default_cost=0)])
    )
    ids = ["well", "failing", "down", "probed", "drained"]
    balancer = Balancer(ids, RoundRobin(), quota=quota, clock=clock)
    assert balancer.health is not None
    for node, failures in (("failing", 2), ("probed", 3)):
        for _ in range(failures):
            balancer.health.report_failure(node, "status 503")
    clock.advance(10.0)
    probe = balancer.acquire(exclude=["well", "failing", "down", "drained"])
    for _ in range(4):
        balancer.health.report_failure("down")
    balancer.drain("drained")
    held = [balancer.acquire(cost={"tpm": 50}, exclude=["failing"]) for _ in range(3)]
    clock.advance(4.0)
    held[0].success()
    found = {status.id: status for status in balancer.status()}
    shown = {
        node: (s.health, s.in_flight, s.latency, s.picks, s.next_probe, s.drained)
        for node, s in found.items()
    }
    assert list(shown) == ids
    assert shown == {
        "well": (HealthStatus.HEALTHY, 2, 4.0, 3, None, False),
        "failing": (HealthStatus.DEGRADED, 0, None, 0, None, False),
        "down": (HealthStatus.UNHEALTHY, 0, None, 0, 6.0, False),
        "probed": (HealthStatus.UNHEALTHY, 1, None, 1, None, False),
        "drained": (HealthStatus.HEALTHY, 0, None, 0, None, True),
    }
    assert found["well"].quota_remaining == {"rpm": 7, "tpm": 350}
    assert found["down"].quota_remaining == {}
    assert [found[node].health_reason for node in ("well", "drained")] == [None, None]
    assert found["failing"].health_reason == "2 failures in a row, the last: status 503"
    assert found["down"].health_reason == "4 failures in a row"
    clock.advance(20.0)
    assert {s.id: s.next_probe for s in balancer.status() if s.next_probe is not None} == {
        "down": 0.0
    }
    with pytest.raises(AttributeError):
        found["well"].picks = 0  # type: ignore[misc]  # frozen is what is tested
    for lease in (probe, *held):
        lease.cancel()


def test_properties_and_repr() -> None:
    """A balancer shows its parts, and itself in a line."""
    health, quota = HealthTracker(), QuotaTracker()
    balancer = Balancer(["a", "b"], Random(), health=health, quota=quota, name="search")
    assert (balancer.name, balancer.nodes) == ("search", ("a", "b"))
    assert balancer.health is health
    assert balancer.quota is quota
    assert repr(balancer) == "<Balancer 'search': 2 nodes, Random>"
    assert "PowerOfTwoChoices" in repr(Balancer())


@pytest.mark.parametrize("given", ["clock", "health", "quota", "nothing"])
def test_the_clock_is_the_one_given(given: str) -> None:
    """The balancer's clock is its own argument, else that of its tracker or its quotas."""
    clock = ManualClock(9.0)
    parts: dict[str, dict[str, Any]] = {
        "clock": {"clock": clock},
        "health": {"health": HealthTracker(clock=clock)},
        "quota": {"quota": QuotaTracker(clock)},
        "nothing": {},
    }
    balancer = Balancer(["a"], **parts[given])
    lease = balancer.acquire()
    clock.advance(2.0)
    lease.success()
    assert lease.latency is not None
    if given == "nothing":
        assert balancer.clock is time.monotonic
        assert lease.latency >= 0.0
    else:
        assert lease.latency == 2.0


class Timer:
    """Has a clock that is a bound method, of which each look-up makes another object."""

    def read(self) -> float:
        return 0.0


@pytest.mark.parametrize("part", ["health", "quota", "both"])
def test_clocks_that_differ(part: str) -> None:
    """Trackers must go by the balancer's clock; clocks are compared by ``==``."""
    own, other = Timer(), Timer()
    same: Balancer[str] = Balancer(
        health=HealthTracker(clock=own.read), quota=QuotaTracker(own.read), clock=own.read
    )
    assert same.clock == own.read
    parts: dict[str, dict[str, Any]] = {
        "health": {"health": HealthTracker(clock=other.read), "clock": own.read},
        "quota": {"quota": QuotaTracker(other.read), "clock": own.read},
        "both": {"health": HealthTracker(clock=own.read), "quota": QuotaTracker(other.read)},
    }
    named = "quota" if part == "both" else part
    with pytest.raises(ValueError, match=rf"balancer's clock is .*that of its {named} is .*same"):
        Balancer(**parts[part])


def test_many_balancers_may_share_a_strategy() -> None:
    """Two balancers with one strategy each get nodes of their own."""
    strategy: LeastLoad[str] = LeastLoad(load=lambda _: 0.0)
    first, second = Balancer(["a", "b"], strategy), Balancer(["c", "d"], strategy)
    for _ in range(20):
        assert first.pick() in ("a", "b")
        assert second.pick() in ("c", "d")
