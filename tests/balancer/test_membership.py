"""Members come and go under traffic: nobody is sent to who has left, and nothing is left over."""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from threading import Event, Thread
from typing import Any

import pytest

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    ConsistentHash,
    Endpoint,
    Filter,
    HealthStatus,
    HealthTracker,
    InFlight,
    Lease,
    LeastLoad,
    MostAvailable,
    NodeStatus,
    NoNodeAvailable,
    PeakEwma,
    PowerOfTwoChoices,
    QuotaTracker,
    RoundRobin,
    Strategy,
    UnknownNode,
    WeightedRandom,
    WeightedRoundRobin,
)
from loadwise.filters import StateSource
from loadwise.testing import ManualClock

THREADS = 8
CHANGES = 800


@pytest.fixture
def _eager_threads() -> Iterator[None]:
    """Have threads interrupt one another often."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def status_of(balancer: Balancer[Any], identity: object) -> NodeStatus:
    """Return the status of one member."""
    [found] = [status for status in balancer.status() if status.id == identity]
    return found


def end_somehow(lease: Lease[Any], rng: random.Random) -> None:
    """End a lease in one of all ways."""
    draw = rng.random()
    if draw < 0.6:
        lease.success()
    elif draw < 0.85:
        lease.failure()
    elif draw < 0.95:
        lease.cancel()
    else:
        lease.rate_limited(0)


class Churn:
    """Changes a balancer's membership, and knows who may not be picked any more.

    ``closed`` holds ids from when ``remove``, ``replace`` or ``drain`` returned, each with the
    number of changes made by then.
    """

    def __init__(self, balancer: Balancer[int], seed: int) -> None:
        self.balancer = balancer
        self.closed: dict[int, int] = {}
        self.made = 0
        self._rng = random.Random(seed)
        self._next_id = len(balancer.nodes)
        self._drained: list[int] = []

    def change(self) -> None:
        """Make one change."""
        members = list(self.balancer.nodes)
        kind = self._rng.random()
        if kind < 0.3 or len(members) < 4:
            self.balancer.add(self._fresh())
        elif kind < 0.6:
            self._close([self._rng.choice(members)], self.balancer.remove)
        elif kind < 0.7:
            leaving = self._rng.sample(members, 2)
            stay = [node for node in members if node not in leaving]
            self._close(leaving, lambda _: self.balancer.replace([*stay, self._fresh()]))
        elif kind < 0.85:
            node = self._rng.choice(members)
            self._close([node], self.balancer.drain)
            self._drained.append(node)
        elif self._drained:
            node = self._drained.pop()
            if node in members:
                del self.closed[node]
                self.balancer.resume(node)
        self.made += 1

    def _fresh(self) -> int:
        self._next_id += 1
        return self._next_id

    def _close(self, nodes: list[int], close: Callable[[int], None]) -> None:
        close(nodes[0])
        self.made += 1
        for node in nodes:
            self.closed[node] = self.made
            if node in self._drained:
                self._drained.remove(node)


class Client:
    """Sends requests until told to stop, and notes those that went where they must not."""

    def __init__(self, balancer: Balancer[int], churn: Churn, seed: int) -> None:
        self.wrong: list[object] = []
        self.picks = 0
        self._balancer = balancer
        self._churn = churn
        self._rng = random.Random(seed)
        self._held: list[Lease[int]] = []

    def work(self, over: Event) -> None:
        """Send requests; end all of them in the end."""
        try:
            while not over.is_set():
                self._request()
        except Exception as error:  # noqa: BLE001 - reported by the thread that started this
            self.wrong.append(error)
        for lease in self._held:
            end_somehow(lease, self._rng)

    def _request(self) -> None:
        made = self._churn.made
        try:
            lease = self._balancer.acquire(hash_key=self._rng.getrandbits(64))
        except NoNodeAvailable:
            return
        self.picks += 1
        if self._churn.closed.get(lease.node, made + 1) <= made:
            self.wrong.append(lease.node)
        self._held.append(lease)
        if len(self._held) > 3:
            end_somehow(self._held.pop(self._rng.randrange(4)), self._rng)


@pytest.mark.usefixtures("_eager_threads")
@pytest.mark.parametrize(
    "strategy",
    [
        PowerOfTwoChoices(load=InFlight()),
        RoundRobin(),
        LeastLoad(load=PeakEwma()),
        ConsistentHash(virtual_nodes=4),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
def test_membership_changes_under_traffic(strategy: Strategy[int]) -> None:
    """A pick that begins after a node left or was drained never gives it; counts end at 0."""
    policy = ConsecutiveFailurePolicy(probe_interval=0.0)
    balancer = Balancer(range(10), strategy, health=HealthTracker(policy))
    churn = Churn(balancer, seed=3)
    over = Event()
    clients = [Client(balancer, churn, seed) for seed in range(THREADS)]
    workers = [Thread(target=client.work, args=(over,)) for client in clients]
    for worker in workers:
        worker.start()
    try:
        for _ in range(CHANGES):
            churn.change()
    finally:
        over.set()
        for worker in workers:
            worker.join(timeout=30)
    assert [error for client in clients for error in client.wrong] == []
    assert sum(client.picks for client in clients) > 0
    assert {status.in_flight for status in balancer.status()} == {0}
    assert balancer.health is not None
    assert balancer.health.snapshot().keys() <= set(balancer.nodes)


def test_members_are_looked_at_as_they_are_at_one_moment() -> None:
    """Nobody who explains or asks meanwhile finds the nodes of one membership with another's."""
    few, many = ["a"], ["a", "b", "c"]
    balancer = Balancer(few, RoundRobin(), health=False)
    found: list[tuple[Hashable, ...]] = []
    over = Event()

    def look() -> None:
        while not over.is_set():
            found.append(balancer.explain().eligible)

    workers = [Thread(target=look) for _ in range(2)]
    for worker in workers:
        worker.start()
    for _ in range(CHANGES):
        balancer.replace(many)
        balancer.replace(few)
    over.set()
    for worker in workers:
        worker.join(timeout=30)
    assert set(found) <= {("a",), ("a", "b", "c")}


@pytest.mark.parametrize("end", [Lease.success, Lease.failure, Lease.cancel, Lease.rate_limited])
def test_a_lease_outlives_its_node(end: Callable[[Lease[str]], object]) -> None:
    """A lease of a removed node ends cleanly, and leaves no trace of the node."""
    balancer = Balancer(["a", "b"], RoundRobin(), clock=ManualClock())
    assert balancer.health is not None
    balancer.health.report_failure("a")
    lease = balancer.acquire()
    assert lease.node == "a"
    balancer.remove("a")
    assert end(lease)
    assert balancer.health.snapshot() == {}
    balancer.add("a")
    assert status_of(balancer, "a").in_flight == 0
    assert "a" in {balancer.pick() for _ in range(2)}


def test_a_node_that_returns_counts_its_open_leases() -> None:
    """Requests still under way from before a node left count again when it is back."""
    balancer = Balancer(["a"])
    before = balancer.acquire()
    balancer.remove("a")
    balancer.add("a")
    assert status_of(balancer, "a").in_flight == 1
    after = balancer.acquire()
    assert status_of(balancer, "a").in_flight == 2
    before.success()
    after.success()
    assert status_of(balancer, "a").in_flight == 0
    assert status_of(balancer, "a").picks == 1


def test_a_probe_outlives_its_node() -> None:
    """A removed node's probe does not bind the node that comes back by the same id."""
    clock = ManualClock()
    balancer = Balancer(["a"], clock=clock, panic_threshold=None)
    assert balancer.health is not None

    def bring_down() -> None:
        assert balancer.health is not None
        for _ in range(3):
            balancer.health.report_failure("a")
        clock.advance(10.0)

    bring_down()
    old = balancer.acquire()
    balancer.remove("a")
    balancer.add("a")
    assert balancer.health.status("a") is HealthStatus.HEALTHY
    bring_down()
    probe = balancer.acquire()
    old.cancel()
    with pytest.raises(NoNodeAvailable):
        balancer.acquire()
    assert probe.success()


def test_replace_keeps_state_by_id() -> None:
    """Who stays, whatever else of it changes, keeps health, latency, counts and drain."""
    clock = ManualClock()
    balancer = Balancer([Endpoint("a"), Endpoint("b"), Endpoint("c")], RoundRobin(), clock=clock)
    leases = [balancer.acquire() for _ in range(4)]
    clock.advance(3.0)
    leases[0].success()
    leases[1].failure("down")
    balancer.drain("c")
    before = {status.id: status for status in balancer.status()}
    balancer.replace([Endpoint("d"), Endpoint("c", weight=5), Endpoint("b"), Endpoint("a", 2)])
    after = {status.id: status for status in balancer.status()}
    assert list(after) == ["d", "c", "b", "a"]
    assert {node: replace(after[node], weight=1) for node in before} == before
    assert [after[node].weight for node in "abc"] == [2, 1, 5]
    assert (after["d"].picks, after["a"].in_flight, after["a"].latency) == (0, 1, 3.0)
    assert {balancer.pick().id for _ in range(20)} == {"a", "b", "d"}
    for lease in leases:
        lease.cancel()


class Zoned(Filter[Any]):
    """A filter that reads an attribute, and says that nothing ever changes its answer."""

    def __call__(self, node: Any) -> bool:
        return bool(node.zone == "eu")

    def sources(self) -> tuple[StateSource, ...]:
        return ()


class Key:
    """A node that a load- or budget-based strategy can read."""

    zone = "eu"

    def __init__(self, node_id: str, weight: float = 1) -> None:
        self.id = node_id
        self.weight = weight

    def load_score(self) -> float:
        return 0.0

    def remaining(self) -> float:
        return 1.0


class Plain:
    """A node that has nothing but an id."""

    def __init__(self, node_id: object) -> None:
        self.id = node_id


@pytest.mark.parametrize(
    ("strategy", "node", "error"),
    [
        (None, Key("b"), ValueError),
        (None, Key("x", weight=-1), ValueError),
        (None, Key("x", weight=float("nan")), ValueError),
        (None, Key("x", weight=float("inf")), ValueError),
        (None, Key("x", weight="1"), TypeError),  # type: ignore[arg-type]  # what is tested
        (None, Plain([]), TypeError),
        (WeightedRoundRobin(), Plain("x"), TypeError),
        (WeightedRandom(), Plain("x"), TypeError),
        (LeastLoad(), Plain("x"), TypeError),
        (PowerOfTwoChoices(), Plain("x"), TypeError),
        (MostAvailable(), Plain("x"), TypeError),
        (ConsistentHash(), Plain([]), TypeError),
    ],
)
@pytest.mark.parametrize("by", ["add", "replace", "construction"])
def test_a_failed_change_changes_nothing(
    strategy: Strategy[Any] | None, node: object, error: type[Exception], by: str
) -> None:
    """A duplicate id, a bad weight or a missing member is refused, and all is as before.

    Of two nodes, 64 random picks miss one with a probability below 1e-18.
    """
    nodes: list[Any] = [Key("a"), Key("b"), Key("c")]
    if by == "construction":
        with pytest.raises(error):
            Balancer([*nodes, node], strategy)
        return
    clock = ManualClock()
    balancer = Balancer(nodes, strategy, health=HealthTracker(clock=clock), clock=clock)
    balancer.drain("b")
    before = (balancer.nodes, balancer.status())
    with pytest.raises(error):
        balancer.add(node) if by == "add" else balancer.replace([nodes[0], nodes[1], node])
    assert (balancer.nodes, balancer.status()) == before
    picks = {balancer.pick(hash_key=str(number)).id for number in range(64)}
    assert picks == {"a", "c"}
    balancer.remove("b")
    balancer.add(Key("d"))
    assert [node.id for node in balancer.nodes] == ["a", "c", "d"]


def test_a_filter_that_fails_on_a_new_node_changes_nothing() -> None:
    """An error of the balancer's filter keeps the node out; there is no half-made membership."""
    balancer: Balancer[Any] = Balancer([Key("a"), Key("b")], RoundRobin(), where=Zoned())
    with pytest.raises(AttributeError):
        balancer.add(Plain("x"))
    assert [node.id for node in balancer.nodes] == ["a", "b"]
    assert [status.id for status in balancer.status()] == ["a", "b"]
    balancer.add(Key("c"))
    assert {balancer.pick().id for _ in range(6)} == {"a", "b", "c"}


def test_drain_and_resume() -> None:
    """A drained node gets nothing new while its leases finish, until it is resumed."""
    balancer = Balancer(["a", "b"], RoundRobin())
    lease = balancer.acquire()
    balancer.drain("a")
    balancer.drain("a")
    assert {balancer.pick() for _ in range(10)} == {"b"}
    assert (status_of(balancer, "a").drained, status_of(balancer, "a").in_flight) == (True, 1)
    assert lease.success()
    assert status_of(balancer, "a").in_flight == 0
    balancer.drain("b")
    with pytest.raises(NoNodeAvailable) as caught:
        balancer.pick()
    assert (dict(caught.value.reasons), caught.value.retry_after) == ({"drained": 2}, None)
    balancer.resume("a")
    assert balancer.pick() == "a"
    balancer.remove("b")
    balancer.add("b")
    assert not status_of(balancer, "b").drained


def test_weight_zero_is_drained() -> None:
    """A node of weight 0 is a member that is never picked, by whatever strategy."""
    balancer = Balancer([Endpoint("a", weight=0), Endpoint("b")], RoundRobin())
    assert {balancer.pick().id for _ in range(10)} == {"b"}
    assert status_of(balancer, "a").drained
    balancer.resume("a")
    assert balancer.explain().ineligible == {"a": "drained"}
    balancer.replace([Endpoint("a", weight=1), Endpoint("b", weight=0)])
    assert {balancer.pick().id for _ in range(10)} == {"a"}


@pytest.mark.parametrize("method", ["remove", "drain", "resume"])
def test_an_unknown_id(method: str) -> None:
    """An id that is not a member is an error that names the balancer and the nearest id."""
    balancer = Balancer(["node-1", "other"], name="search")
    with pytest.raises(UnknownNode, match=r"balancer 'search' has no .*; did you mean 'node-1'"):
        getattr(balancer, method)("node-2")
    with pytest.raises(UnknownNode, match=r"id 'node-2'; did you mean 'node-1'\?$"):
        getattr(balancer, method)(Endpoint("node-2"))
    assert len(balancer.nodes) == 2


def test_members_are_named_by_themselves_too() -> None:
    """A node in the place of its id is taken by its id, also one with other attributes."""
    balancer = Balancer([Endpoint("a"), Endpoint("b")])
    balancer.drain(Endpoint("a", weight=3))
    assert [status.drained for status in balancer.status()] == [True, False]
    balancer.resume(balancer.nodes[0])
    assert [status.drained for status in balancer.status()] == [False, False]
    balancer.remove(balancer.nodes[0])
    assert balancer.nodes == (Endpoint("b"),)


@pytest.mark.parametrize("has_quota", [False, True])
@pytest.mark.parametrize("measure", [InFlight, PeakEwma])
def test_nodes_that_left_take_no_memory(
    measure: type[InFlight | PeakEwma],
    has_quota: bool,  # noqa: FBT001 - from pytest
) -> None:
    """14,000 nodes come, fail, are rate-limited and go; what is kept does not grow."""
    clock = ManualClock()
    load = measure()
    quota = QuotaTracker(clock)
    balancer: Balancer[int] = Balancer(
        (), RoundRobin(), health=HealthTracker(clock=clock), quota=quota if has_quota else None
    )
    strategy: PowerOfTwoChoices[int] = PowerOfTwoChoices(load=load)
    weighing: Balancer[int] = Balancer((), strategy, health=balancer.health)

    def come_and_go(first: int) -> tuple[int, ...]:
        for start in range(first, first + 7_000, 100):
            clock.advance(20.0)
            balancer.replace(range(start, start + 100))
            weighing.replace(range(start, start + 100))
            leases = [balancer.acquire() for _ in range(100)]
            weighing.acquire().success()
            for number, lease in enumerate(leases):
                lease.rate_limited(5) if number % 2 else lease.failure("down")
        balancer.replace(())
        weighing.replace(())
        clock.advance(20.0)
        weighing.replace([1])
        assert weighing.pick() == 1
        weighing.replace(())
        gc.collect()
        assert balancer.health is not None
        assert balancer.health.snapshot() == {}
        quota: Any = balancer._quota_source
        return (
            len(load._cells),
            len(strategy._plans),
            len(strategy._known),
            len(quota._cooldowns),
            len(quota._blocked),
            len(gc.get_objects()),
        )

    warm = come_and_go(0)
    *kept, objects = come_and_go(7_000)
    assert kept == list(warm[:-1])
    assert abs(objects - warm[-1]) < 700, "a tenth of an object per node is a leak"


@pytest.mark.parametrize(
    "make",
    [lambda: PowerOfTwoChoices(load=InFlight()), RoundRobin, ConsistentHash, WeightedRandom],
)
def test_changes_take_no_memory(make: Callable[[], Strategy[Any]]) -> None:
    """After 2,000 single changes there are as many objects as after 1,000, within 1 a change."""
    clock = ManualClock()
    health = HealthTracker(
        ConsecutiveFailurePolicy(failure_threshold=1, recovery_successes=1), clock=clock
    )
    nodes: list[Any] = [Endpoint(f"n{number}") for number in range(100)]
    balancer: Balancer[Any] = Balancer(nodes, make(), health=health, clock=clock)

    def change(first: int, times: int) -> int:
        for number in range(first, first + times, 5):
            balancer.add(Endpoint(f"n{number}"))
            balancer.pick(hash_key="key")
            balancer.drain(f"n{number}")
            balancer.pick(hash_key="key")
            oldest = balancer.nodes[0].id
            health.report_failure(oldest)
            balancer.acquire(hash_key="key").rate_limited(1.0)
            balancer.pick(hash_key="key")
            health.report_success(oldest)
            balancer.remove(oldest)
            clock.advance(2.0)
            balancer.resume(f"n{number}")
            balancer.pick(hash_key="key")
        gc.collect()
        return len(gc.get_objects())

    # So many that of what is kept up to some number, there is that number.
    warm = change(1000, 1000)
    assert change(5000, 1000) - warm < 1000
    assert len(balancer.nodes) == 100
    assert balancer._fleet._draining == set()


@pytest.mark.parametrize("by", ["remove", "replace"])
def test_a_drain_ends_when_the_node_leaves(by: str) -> None:
    """Who comes again under the id of a drained node that left is not drained."""
    balancer = Balancer(["a", "b", "c"], RoundRobin())
    balancer.drain("b")
    balancer.remove("a")
    assert {balancer.pick() for _ in range(8)} == {"c"}, "it is still drained where it moved to"
    balancer.remove("b") if by == "remove" else balancer.replace(["c"])
    assert balancer._fleet._draining == set()
    balancer.add("b")
    assert {balancer.pick() for _ in range(8)} == {"b", "c"}
    assert not status_of(balancer, "b").drained


def test_a_balancer_knows_its_members() -> None:
    """By id or by the node itself, drained ones included."""
    node = Endpoint("a")
    balancer = Balancer([node, Endpoint("b")])
    balancer.drain("b")
    assert "a" in balancer
    assert node in balancer
    assert "b" in balancer
    balancer.remove("a")
    assert "a" not in balancer
    assert "c" not in balancer
