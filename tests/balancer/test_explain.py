"""Explain tells where the next request would go and why, and changes nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Self

import pytest

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    ConsistentHash,
    Cooldown,
    Endpoint,
    Explanation,
    FallbackChain,
    Filtered,
    HealthStatus,
    HealthTracker,
    InFlight,
    Lease,
    LeastLoad,
    MostAvailable,
    NoNodeAvailable,
    PeakEwma,
    PowerOfTwoChoices,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    Random,
    RoundRobin,
    SelectionContext,
    Strategy,
    UnknownIndex,
    WeightedRandom,
    WeightedRoundRobin,
    WithFallback,
)
from loadwise.testing import ManualClock

EMPTY = SelectionContext()


class Server:
    """A node that every strategy can work with."""

    def __init__(self, number: int) -> None:
        self.id = number
        self.weight = 1 + number % 3
        self.zone = "eu" if number % 2 else "us"

    def load_score(self) -> float:
        return float(self.id % 3)

    def remaining(self) -> float:
        return float(self.id % 4)


class Uneven(Server):
    """A node whose weight is a float, for which weighted round robin has a schedule."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.weight = 0.7 + number  # type: ignore[assignment]  # weights may be floats


STRATEGIES: list[Callable[[], Strategy[Any]]] = [
    RoundRobin,
    WeightedRoundRobin,
    lambda: Random(rng=random.Random(11)),
    lambda: WeightedRandom(rng=random.Random(12)),
    lambda: LeastLoad(rng=random.Random(13)),
    lambda: LeastLoad(load=InFlight(), rng=random.Random(14)),
    lambda: PowerOfTwoChoices(rng=random.Random(15)),
    lambda: PowerOfTwoChoices(load=PeakEwma(), rng=random.Random(16)),
    lambda: ConsistentHash(virtual_nodes=8),
    lambda: MostAvailable(epsilon=1.0, rng=random.Random(17)),
    lambda: Filtered(RoundRobin(), lambda node: node.zone == "eu"),
    lambda: WithFallback(
        Filtered(Random(rng=random.Random(18)), lambda node: node.id > 7), RoundRobin()
    ),
    lambda: FallbackChain(
        [
            Filtered(LeastLoad(rng=random.Random(19)), lambda node: node.zone == "us"),
            WeightedRoundRobin(),
        ]
    ),
]
NAMES = [
    "RoundRobin",
    "WeightedRoundRobin",
    "Random",
    "WeightedRandom",
    "LeastLoad-own",
    "LeastLoad-in-flight",
    "P2C-own",
    "P2C-ewma",
    "ConsistentHash",
    "MostAvailable",
    "Filtered",
    "WithFallback",
    "FallbackChain",
]


class Story:
    """A balancer to which the same things happen whenever it is told with the same seed."""

    def __init__(self, make: Callable[[], Strategy[Any]], node_type: type[Server]) -> None:
        self.clock = ManualClock(100.0)
        self.quota = QuotaTracker(self.clock)
        for number in range(10):
            dimensions = [QuotaDimension("tpm", limit=300, window=40.0, default_cost=1)]
            self.quota.register(number, QuotaConfig(dimensions))
        self.strategy = make()
        self.balancer: Balancer[Any] = Balancer(
            [node_type(number) for number in range(10)],
            self.strategy,
            quota=self.quota,
            clock=self.clock,
        )
        self._open: list[Lease[Any]] = []
        self._rng = random.Random(20)

    def something_happens(self) -> None:
        """Let time pass, and a node fail, recover, be drained, resumed or limited."""
        rng, balancer = self._rng, self.balancer
        self.clock.advance(rng.random() * 3.0)
        node = rng.randrange(10)
        event = rng.random()
        assert balancer.health is not None
        if event < 0.25:
            balancer.health.report_failure(node)
        elif event < 0.5:
            balancer.health.report_success(node)
        elif event < 0.6:
            balancer.drain(node) if rng.random() < 0.4 else balancer.resume(node)
        elif event < 0.7:
            self.quota.record_usage(node, {"tpm": 200})
        elif event < 0.75:
            self.quota.mark_exhausted(node, 4.0)
        if len(self._open) > 6:
            for lease in self._open:
                lease.success() if rng.random() < 0.8 else lease.failure()
            self._open.clear()

    def request(self, keywords: dict[str, Any]) -> object:
        """Acquire a lease and hold it; return the id, or ``None`` when there was none."""
        try:
            lease = self.balancer.acquire(**keywords)
        except NoNodeAvailable:
            return None
        self._open.append(lease)
        found: object = lease.node.id
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for lease in self._open:
            lease.cancel()


def of_parity(parity: int) -> Callable[[Server], bool]:
    """Return a filter for nodes with an even (0) or odd (1) id."""
    return lambda node: node.id % 2 == parity


KINDS: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "plain": lambda _: {},
    "exclude": lambda rng: {"exclude": {rng.randrange(10) for _ in range(rng.randrange(6))}},
    "where": lambda rng: {"where": of_parity(rng.randrange(2))},
    "cost": lambda rng: {"cost": {"tpm": rng.randrange(1, 150)}},
}


@pytest.mark.parametrize("make", STRATEGIES, ids=NAMES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("node_type", [Server, Uneven])
def test_the_choice_told_is_the_next_one(
    make: Callable[[], Strategy[Any]], kind: str, node_type: type[Server]
) -> None:
    """What `explain` tells is where `acquire` goes next; a balancer never asked does the same.

    Only where nodes refuse a cost that is above their default, or are RECOVERING and have enough,
    may it say that it cannot tell.
    """
    rng = random.Random(21)
    wrong = 0
    with Story(make, node_type) as asked, Story(make, node_type) as left_alone:
        for number in range(80):
            asked.something_happens()
            left_alone.something_happens()
            keywords = {"hash_key": f"key-{number}", **KINDS[kind](rng)}
            told = asked.balancer.explain(**keywords)
            assert told == asked.balancer.explain(**keywords)
            assert told.foreseeable or kind == "cost" or "recovering" in told.ineligible.values()
            node = asked.request(keywords)
            assert left_alone.request(keywords) == node, "explain changed something"
            assert node is None or node in told.eligible
            assert set(told.ineligible) | set(told.eligible) == set(range(10))
            assert not set(told.ineligible) & set(told.eligible)
            wrong += told.foreseeable and told.choice != node
        assert asked.balancer.status() == left_alone.balancer.status()
    assert wrong == 0


@pytest.mark.parametrize("strategy", [Random(), WeightedRandom(), PowerOfTwoChoices(), LeastLoad()])
def test_the_shared_random_source_is_left_alone(strategy: Strategy[Any]) -> None:
    """Without an ``rng`` the choice is foretold from the module's generator, untouched."""
    balancer = Balancer([Server(number) for number in range(6)], strategy)
    state = random.getstate()
    for _ in range(40):
        before = random.getstate()
        told = balancer.explain().choice
        assert random.getstate() == before
        assert balancer.pick().id == told
    random.setstate(state)


@pytest.mark.parametrize("kind", [Random, WeightedRandom])
def test_the_choice_of_a_fallback_with_the_same_random_source(
    kind: type[Random[Any] | WeightedRandom[Any]],
) -> None:
    """A strategy that has nothing left to choose from draws nothing, so the next is foretold."""
    rng = random.Random(3)
    nodes = [Endpoint(str(number)) for number in range(9)]
    first = Filtered(kind(rng), lambda node: node.id in ("0", "1"))
    balancer = Balancer(nodes, WithFallback(first, kind(rng)))
    for _ in range(20):
        told = balancer.explain(exclude=["0", "1"]).choice
        assert balancer.pick(exclude=["0", "1"]).id == told


def test_it_takes_no_probe_and_no_quota() -> None:
    """A probe that is due stays due, and quota stays where it is, however often one asks."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    quota.register(0, QuotaConfig([QuotaDimension("rpm", limit=1)]))
    balancer = Balancer([Server(0)], quota=quota, clock=clock, panic_threshold=None)
    assert balancer.health is not None
    for _ in range(3):
        balancer.health.report_failure(0)
    assert balancer.explain().ineligible == {0: "unhealthy"}
    clock.advance(10.0)
    versions = (balancer.health.version, quota.version)
    for _ in range(5):
        assert balancer.explain(cost={"rpm": 1}).choice == 0
    assert (balancer.health.version, quota.version) == versions
    assert balancer.status()[0].next_probe == 0.0
    assert balancer.status()[0].picks == 0
    assert balancer.acquire().success()
    assert balancer.health.status(0) is HealthStatus.RECOVERING


def test_each_reason_is_told() -> None:
    """Every member is either eligible or has the reason why not."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    for number in range(8):
        dimensions = [QuotaDimension("tpm", limit=100, default_cost=0)]
        quota.register(number, QuotaConfig(dimensions))
    balancer = Balancer(
        [Server(number) for number in range(8)],
        WeightedRoundRobin(),
        quota=quota,
        clock=clock,
        where=lambda node: node.id != 1,
        name="search",
    )
    assert balancer.health is not None
    for _ in range(3):
        balancer.health.report_failure(2)
    balancer.drain(3)
    quota.mark_exhausted(4, 9.0)
    quota.record_usage(5, {"tpm": 60})
    told = balancer.explain(cost={"tpm": 50}, exclude=[6])
    assert told == Explanation(
        balancer="search",
        strategy="WeightedRoundRobin",
        ineligible={
            1: "filtered",
            2: "unhealthy",
            3: "drained",
            4: "rate_limited",
            5: "quota",
            6: "excluded",
        },
        eligible=(0, 7),
        seen={0: {"weight": 1}, 7: {"weight": 2}},
        choice=told.choice,
        foreseeable=told.foreseeable,
        cooldowns={4: Cooldown(9.0, 9.0, "marked as exhausted")},
        passed_over=told.passed_over,
    )
    text = str(told)
    for part in (
        "search: WeightedRoundRobin",
        "0: eligible (weight 1)",
        "4: rate_limited (marked as exhausted; 9 s left)",
    ):
        assert part in text


def test_nothing_to_choose() -> None:
    """An empty balancer, or one with nobody left, has no choice, and says so without raising."""
    assert Balancer(()).explain().choice is None
    told = Balancer(["a"]).explain(exclude=["a"])
    assert (told.choice, told.eligible, told.ineligible) == (None, (), {"a": "excluded"})
    assert "has nothing to choose" in str(told)


@pytest.mark.parametrize(
    ("strategy", "fact"),
    [
        (LeastLoad(), "load"),
        (PowerOfTwoChoices(load=InFlight()), "load"),
        (MostAvailable(), "remaining"),
        (WeightedRandom(), "weight"),
        (WithFallback(Filtered(LeastLoad(), lambda _: True), RoundRobin()), "load"),
        (RoundRobin(), None),
    ],
)
def test_what_the_strategy_saw(strategy: Strategy[Any], fact: str | None) -> None:
    """The numbers that a choice is based on are told, for the eligible nodes."""
    nodes = [Server(number) for number in range(4)]
    balancer = Balancer(nodes, strategy, health=False)
    leases = [balancer.acquire(exclude=[1, 2, 3]) for _ in range(3)]
    told = balancer.explain(exclude=[3])
    values: dict[str | None, list[float]] = {
        "load": [3, 0, 0] if "PowerOfTwo" in told.strategy else [0, 1, 2],
        "remaining": [0, 1, 2],
        "weight": [1, 2, 3],
    }
    expected = {} if fact is None else {fact: values[fact]}
    assert told.seen == {
        i: {name: numbers[i] for name, numbers in expected.items()} for i in range(3)
    }
    for lease in leases:
        lease.cancel()


def test_a_strategy_without_peek_cannot_be_foretold() -> None:
    """A strategy of a user's own is not asked; who is eligible is told all the same."""

    class Mine:
        asked = 0

        def select(
            self, candidates: Sequence[str], context: SelectionContext = EMPTY
        ) -> int | None:
            self.asked += 1
            return 0

    mine = Mine()
    told = Balancer(["a", "b"], mine).explain(exclude=["b"])
    assert (told.strategy, told.foreseeable, told.choice) == ("Mine", False, None)
    assert (told.eligible, mine.asked) == (("a",), 0)
    assert "Mine cannot predict its choice" in str(told)
    for outside in (2, -1):
        with pytest.raises(UnknownIndex, match=f"exclude has the index {outside}"):
            Balancer(["a", "b"], mine).explain(SelectionContext(exclude={outside}))


def test_no_choice_is_told_where_all_have_the_requests_they_need() -> None:
    """The balancer passes over one RECOVERING node after the other, and then draws again."""
    clock = ManualClock()
    health = HealthTracker(ConsecutiveFailurePolicy(1, 9), clock=clock)
    balancer = Balancer(["a", "b", "c"], PowerOfTwoChoices(load=InFlight()), health=health)
    for node in balancer.nodes:
        health.report_failure(node)
        health.report_success(node)
    leases = [balancer.acquire() for _ in range(40)]
    wrong = 0
    for _ in range(40):
        told = balancer.explain()
        assert set(told.eligible) == {"a", "b", "c"}
        assert told.foreseeable or "(recovering), and be asked again" in str(told)
        leases.append(balancer.acquire())
        wrong += told.foreseeable and told.choice != leases[-1].node
    assert wrong == 0
    for lease in leases:
        lease.cancel()


def test_a_first_choice_that_is_passed_over_is_named() -> None:
    """The strategy is then asked again; it is not said to lack ``peek``, which it has."""
    balancer = Balancer(["a", "b", "c"], ConsistentHash(), max_in_flight=1)
    home = balancer.acquire(hash_key="key")
    told = balancer.explain(hash_key="key")
    assert (told.choice, told.foreseeable, told.passed_over) == (None, False, home.node)
    first = str(told).splitlines()[0]
    assert first == f"default: ConsistentHash would choose {home.node!r} (full), and be asked again"
    home.success()
    told = balancer.explain(hash_key="key")
    assert (told.choice, told.passed_over) == (home.node, None)
