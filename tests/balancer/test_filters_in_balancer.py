"""A filter holds, whatever the strategy, the fallback, the retry and the exclusions."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from loadwise import (
    Balancer,
    ConsistentHash,
    FallbackChain,
    Filter,
    Filtered,
    FnFilter,
    HealthFilter,
    HealthTracker,
    InFlight,
    LeastLoad,
    LoadwiseError,
    MostAvailable,
    NoNodeAvailable,
    PeakEwma,
    PowerOfTwoChoices,
    QuotaConfig,
    QuotaDimension,
    QuotaFilter,
    QuotaTracker,
    Random,
    RoundRobin,
    SelectionContext,
    Strategy,
    WeightedRandom,
    WeightedRoundRobin,
    WithFallback,
)
from loadwise.testing import ManualClock

EMPTY = SelectionContext()


class Server:
    """A node that every strategy can work with."""

    def __init__(self, number: int) -> None:
        self.id = f"server-{number}"
        self.number = number
        self.weight = 1 + number % 3
        self.zone = "eu" if number % 2 else "us"

    def load_score(self) -> float:
        return float(self.number % 4)

    def remaining(self) -> float:
        return float(self.number % 5)


class First(Strategy[Any]):
    """A rule of a user's own that knows nothing of exclusions and views."""

    def select(self, candidates: Sequence[Any], context: SelectionContext = EMPTY) -> int | None:
        return 0 if candidates else None


class Reading(Strategy[Any]):
    """A rule of a user's own that looks at the nodes, all that it is shown."""

    def select(self, candidates: Sequence[Any], context: SelectionContext = EMPTY) -> int | None:
        if not len(candidates):
            return None
        return max(range(len(candidates)), key=lambda i: candidates[i].number % 6)


class FirstByInheritance(RoundRobin[Any]):
    """A built-in strategy with a `select` of a user's own, which knows nothing of views."""

    def select(self, candidates: Sequence[Any], context: SelectionContext = EMPTY) -> int | None:
        return 0 if candidates else None


def in_us(server: Server) -> bool:
    """Whether a server is in the zone that some strategies here prefer."""
    return server.zone == "us"


BUILT_IN: list[Callable[[], Strategy[Any]]] = [
    RoundRobin,
    WeightedRoundRobin,
    lambda: Random(rng=random.Random(1)),
    lambda: WeightedRandom(rng=random.Random(2)),
    LeastLoad,
    lambda: LeastLoad(load=InFlight()),
    lambda: PowerOfTwoChoices(load=PeakEwma(), rng=random.Random(3)),
    lambda: ConsistentHash(virtual_nodes=8),
    lambda: MostAvailable(epsilon=1.0),
    lambda: Filtered(RoundRobin(), in_us),
    lambda: WithFallback(Filtered(LeastLoad(), lambda node: node.number > 90), RoundRobin()),
    lambda: FallbackChain([Filtered(RoundRobin(), in_us), Random(rng=random.Random(4))]),
]
OWN: list[Callable[[], Strategy[Any]]] = [
    First,
    Reading,
    lambda: Filtered(First(), in_us),
    lambda: WithFallback(Filtered(First(), lambda node: node.number > 90), Reading()),
]


def even_third(server: Server) -> bool:
    """What the balancer accepts: servers 0, 3, 6, ... of both zones."""
    return server.number % 3 == 0


def not_the_sixth(server: Server) -> bool:
    """What a request accepts."""
    return server.number != 6


@pytest.mark.parametrize("make", BUILT_IN + OWN)
@pytest.mark.parametrize("place", ["balancer", "request", "both"])
@pytest.mark.parametrize("wrap", [lambda f: f, FnFilter], ids=["function", "filter"])
def test_filters_hold(
    make: Callable[[], Strategy[Any]], place: str, wrap: Callable[[Any], Any]
) -> None:
    """No pick, lease or retry goes to a node that the balancer or the request filtered out."""
    nodes = [Server(number) for number in range(20)]
    own = wrap(even_third) if place != "request" else None
    asked = {"balancer": None, "request": wrap(even_third), "both": wrap(not_the_sixth)}[place]
    balancer = Balancer(nodes, make(), where=own)
    rng = random.Random(5)
    found: list[str | None] = []
    accepted = {n.id for n in nodes if even_third(n) and (place != "both" or not_the_sixth(n))}
    for number in range(60):
        exclude = {f"server-{rng.randrange(20)}" for _ in range(rng.randrange(4))}
        try:
            node = balancer.pick(hash_key=str(number), exclude=exclude, where=asked)
        except NoNodeAvailable:
            found.append(None)
            continue
        assert node.id in accepted - exclude
        found.append(node.id)
    if not isinstance(make(), Filtered):
        assert None not in found
    tried: list[str] = []
    with pytest.raises((ConnectionError, NoNodeAvailable)):
        _fail_everywhere(balancer, tried, asked)
    assert len(tried) == len(set(tried))
    assert set(tried) <= accepted
    if not isinstance(make(), Filtered):
        assert set(tried) == accepted


def _fail_everywhere(
    balancer: Balancer[Server], tried: list[str], where: Callable[[Server], bool] | None
) -> None:
    for attempt in balancer.attempts(30, hash_key="user-42", where=where):
        with attempt as lease:
            tried.append(lease.node.id)
            raise ConnectionError


@pytest.mark.parametrize("make", [*BUILT_IN, *OWN])
def test_nothing_accepted(make: Callable[[], Strategy[Any]]) -> None:
    """When a filter accepts no node, there is none, and the error says that all are filtered."""
    balancer = Balancer([Server(number) for number in range(4)], make())
    with pytest.raises(NoNodeAvailable) as caught:
        balancer.acquire(hash_key="k", where=lambda _: False)
    assert dict(caught.value.reasons) == {"filtered": 4}


def test_a_filter_by_state_is_heeded_at_once() -> None:
    """A filter over trackers holds from the next pick on, also one by another's clock."""
    clock = ManualClock()
    other_health, other_quota = HealthTracker(clock=clock), QuotaTracker(clock)
    accept: Filter[Any] = HealthFilter.healthy_only(other_health) & QuotaFilter(other_quota)
    for where in (accept, HealthFilter.healthy_only(other_health)):
        balancer = Balancer(["a", "b"], RoundRobin(), where=where)
        assert {balancer.pick() for _ in range(4)} == {"a", "b"}
        other_health.report_failure("a")
        other_health.report_failure("a")
        assert {balancer.pick() for _ in range(4)} == {"b"}
        assert balancer.explain().ineligible == {"a": "filtered"}
        other_health.report_success("a")
        assert {balancer.pick() for _ in range(4)} == {"a", "b"}
    timed = Balancer(["a", "b"], RoundRobin(), where=accept)
    other_quota.mark_exhausted("b", 5.0)
    assert {timed.pick() for _ in range(4)} == {"a"}
    clock.advance(5.0)
    assert {timed.pick() for _ in range(4)} == {"a", "b"}


def test_a_function_is_asked_each_time() -> None:
    """Nobody knows when a plain function changes its mind, so its answer is never kept."""
    open_zones = {"eu"}
    nodes = [Server(0), Server(1)]
    balancer = Balancer(nodes, RoundRobin(), where=lambda node: node.zone in open_zones)
    assert {balancer.pick().zone for _ in range(4)} == {"eu"}
    open_zones.add("us")
    assert {balancer.pick().zone for _ in range(4)} == {"eu", "us"}


@pytest.mark.parametrize(
    "make", [FirstByInheritance, lambda: Filtered(FirstByInheritance(), in_us)]
)
def test_a_subclass_cannot_break_a_filter(make: Callable[[], Strategy[Any]]) -> None:
    """A user's ``select`` on top of a built-in strategy is no way round filters or exclusions."""
    nodes = [Server(number) for number in range(4)]
    balancer = Balancer(nodes, make(), where=lambda node: node.number > 1)
    asked: list[dict[str, Any]] = [
        {},
        {"exclude": ["server-2"]},
        {"where": lambda node: node.number > 2},
    ]
    for keywords in asked:
        try:
            node = balancer.pick(**keywords)
        except LoadwiseError:
            continue
        assert node.number > (2 if keywords else 1)


def test_a_strategy_that_ignores_refusals_is_not_asked_for_ever() -> None:
    """With quotas, one that insists on a node without room is shown the others instead."""

    class Stubborn(RoundRobin[str]):
        asked = 0

        def select(
            self, candidates: Sequence[str], context: SelectionContext = EMPTY
        ) -> int | None:
            self.asked += 1
            assert self.asked < 100, "asked 100 times for one pick"
            return 0

    quota = QuotaTracker(ManualClock())
    quota.register("a", QuotaConfig([QuotaDimension("tpm", limit=10)]))
    balancer = Balancer(["a", "b"], Stubborn(), quota=quota)
    assert balancer.pick(cost={"tpm": 11}) == "b"


@pytest.mark.parametrize("answer", [-1, 2, 7, "a", 1.0, float("nan"), object(), [0]])
@pytest.mark.parametrize("wrapped", [False, True])
def test_garbage_is_an_error_that_names_it(
    answer: object,
    wrapped: bool,  # noqa: FBT001 - from pytest
) -> None:
    """A strategy that returns no index into its candidates is told so by name and value."""

    class Broken:
        def select(
            self, candidates: Sequence[str], context: SelectionContext = EMPTY
        ) -> int | None:
            return answer  # type: ignore[return-value]  # what is tested

    strategy = WithFallback(Broken(), RoundRobin()) if wrapped else Broken()
    balancer = Balancer(["a", "b"], strategy, where=lambda _: True)
    for ask in (balancer.pick, balancer.acquire, lambda: balancer.pick(exclude=["z"])):
        with pytest.raises(LoadwiseError, match=r"Broken\.select returned"):
            ask()
    assert [status.in_flight for status in balancer.status()] == [0, 0]


def test_a_strategy_of_ones_own_sees_the_request() -> None:
    """Key, tags and cost of a request reach the strategy, also in a ready context."""
    seen: list[SelectionContext] = []

    class Watching:
        def select(
            self, candidates: Sequence[str], context: SelectionContext = EMPTY
        ) -> int | None:
            seen.append(context)
            return len(candidates) - 1

    balancer = Balancer(["a", "b", "c"], Watching())
    assert balancer.pick(hash_key=b"k", cost={"tpm": 5}, tags={"model": "m"}, exclude=["c"]) == "b"
    ready = SelectionContext("user", frozenset({2}), {"model": "n"}, 12.5)
    assert balancer.pick(ready) == "b"
    told = [(c.hash_key, c.tag("model"), c.estimated_cost, c.exclude) for c in seen]
    assert told == [
        (b"k", "m", {"tpm": 5}, frozenset()),
        ("user", "n", 12.5, frozenset()),
    ]


@pytest.mark.parametrize("wrong", [5, "zone", object()])
def test_a_filter_must_be_callable(wrong: Any) -> None:
    """What is neither a filter nor a function is refused, by the balancer and by the request."""
    with pytest.raises(TypeError, match="it must be a Filter or a function of a node"):
        Balancer(["a"], where=wrong)
    with pytest.raises(TypeError, match="it must be a Filter or a function of a node"):
        Balancer(["a"]).pick(where=wrong)
