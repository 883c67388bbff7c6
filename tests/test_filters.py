"""The algebra of filters, what the ready-made ones accept, and how long their views are kept."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadwise import (
    AllOf,
    AnyOf,
    Balancer,
    ConsecutiveFailurePolicy,
    Endpoint,
    Filter,
    Filtered,
    FnFilter,
    HealthFilter,
    HealthStatus,
    HealthTracker,
    NodeSet,
    Not,
    Outcome,
    QuotaConfig,
    QuotaDimension,
    QuotaFilter,
    QuotaTracker,
    RoundRobin,
)
from loadwise.filters import StateSource
from loadwise.testing import ManualClock

HEALTHY, DEGRADED = HealthStatus.HEALTHY, HealthStatus.DEGRADED
UNHEALTHY, RECOVERING = HealthStatus.UNHEALTHY, HealthStatus.RECOVERING
NUMBERS = NodeSet(range(8))

Pair = tuple[Filter[int], Callable[[int], bool]]
"""A filter, and what it should say in Python's own words."""


def leaf(accepted: frozenset[int]) -> Pair:
    """Return a filter that accepts some numbers."""
    return FnFilter(lambda number: number in accepted), lambda number: number in accepted


def both(a: Pair, b: Pair) -> Pair:
    """Combine by &."""
    return a[0] & b[0], lambda number: a[1](number) and b[1](number)


def both_as_function(a: Pair, b: Pair) -> Pair:
    """Combine by &, the second being a plain function."""
    return a[0] & b[1], lambda number: a[1](number) and b[1](number)


def either(a: Pair, b: Pair) -> Pair:
    """Combine by |."""
    return a[0] | b[0], lambda number: a[1](number) or b[1](number)


def either_as_function(a: Pair, b: Pair) -> Pair:
    """Combine by |, the second being a plain function."""
    return a[0] | b[1], lambda number: a[1](number) or b[1](number)


def negated(a: Pair) -> Pair:
    """Negate by ~."""
    return ~a[0], lambda number: not a[1](number)


def all_of(parts: list[Pair]) -> Pair:
    """Combine any number by AllOf, every other one as a plain function."""
    filters = [part[i % 2] for i, part in enumerate(parts)]
    return AllOf(*filters), lambda number: all(part[1](number) for part in parts)


def any_of(parts: list[Pair]) -> Pair:
    """Combine any number by AnyOf, every other one as a plain function."""
    filters = [part[i % 2] for i, part in enumerate(parts)]
    return AnyOf(*filters), lambda number: any(part[1](number) for part in parts)


leaves = st.frozensets(st.integers(0, 7)).map(leaf)
pairs = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(both, inner, inner),
        st.builds(both_as_function, inner, inner),
        st.builds(either, inner, inner),
        st.builds(either_as_function, inner, inner),
        st.builds(negated, inner),
        st.builds(all_of, st.lists(inner, max_size=3)),
        st.builds(any_of, st.lists(inner, max_size=3)),
    ),
    max_leaves=12,
)


@given(pair=pairs, start=st.sets(st.integers(0, 7)))
@settings(max_examples=200, deadline=None)
def test_filters_obey_the_laws_of_booleans(pair: Pair, start: set[int]) -> None:
    """Any combination accepts what Python's and, or, not accept; views keep all positions."""
    accept, expected = pair
    assert [accept(number) for number in range(8)] == [expected(number) for number in range(8)]
    view = accept.view(NUMBERS.restrict(start))
    assert view.eligible == tuple(number for number in sorted(start) if expected(number))
    assert view.ids == NUMBERS.ids


@given(a=pairs, b=pairs, number=st.integers(0, 7))
@settings(max_examples=100, deadline=None)
def test_de_morgan(a: Pair, b: Pair, number: int) -> None:
    """Not (a and b) is (not a) or (not b), the other way round, and twice not is nothing."""
    one, other = a[0], b[0]
    assert (~(one & other))(number) == (~one | ~other)(number)
    assert (~(one | other))(number) == (~one & ~other)(number)
    assert (~~one)(number) == one(number) == Not(Not(one))(number)


def test_empty_combinations() -> None:
    """All of nothing accepts everything, any of nothing accepts nothing, as in Python."""
    assert AllOf[int]().view(NUMBERS).eligible == tuple(range(8))
    assert AnyOf[int]().view(NUMBERS).eligible == ()


def test_a_function_may_answer_by_any_truth() -> None:
    """What a function returns counts as true or false, and comes out as a bool."""
    named = FnFilter[str](lambda node: node[1:])
    assert named("ab") is True
    assert named("a") is False


@pytest.mark.parametrize(
    "combine",
    [
        FnFilter,
        AllOf,
        AnyOf,
        Not,
        lambda wrong: FnFilter[int](bool) & wrong,
        lambda wrong: FnFilter[int](bool) | wrong,
    ],
    ids=["FnFilter", "AllOf", "AnyOf", "Not", "&", "|"],
)
def test_refuses_what_is_no_filter(combine: Callable[[Any], object]) -> None:
    """Something that cannot be called is refused where it is given, by value."""
    with pytest.raises(TypeError, match="the filter is 'eu'; it must be a Filter or a function"):
        combine("eu")


@pytest.mark.parametrize(
    "give",
    [
        FnFilter,
        AllOf,
        lambda accept: Filtered(RoundRobin(), accept),
        lambda accept: Balancer(["a"], where=accept),
        lambda accept: Balancer(["a"]).acquire(where=accept),
    ],
    ids=["FnFilter", "AllOf", "Filtered", "balancer", "request"],
)
def test_refuses_what_is_to_be_awaited(give: Callable[[Any], object]) -> None:
    """A coroutine would pass for true, and every node for accepted."""

    async def accept(_: object) -> bool:
        return False

    with pytest.raises(TypeError, match=r"the filter is <function .*accept.*to be awaited; a pick"):
        give(accept)


@pytest.fixture
def clock() -> ManualClock:
    """A clock at 0 seconds."""
    return ManualClock()


@pytest.fixture
def health(clock: ManualClock) -> HealthTracker:
    """One node in each state, named after it."""
    health = HealthTracker(ConsecutiveFailurePolicy(2, 2, 10.0), clock)
    health.report_failure("degraded")
    for identity in ("unhealthy", "recovering"):
        health.report_failure(identity)
        health.report_failure(identity)
    health.report_success("recovering")
    return health


STATES = [Endpoint(name) for name in ("healthy", "degraded", "unhealthy", "recovering")]


@pytest.mark.parametrize(
    ("make", "accepted"),
    [
        (HealthFilter.available, ["healthy", "degraded", "recovering"]),
        (HealthFilter.healthy_only, ["healthy"]),
        (lambda tracker: HealthFilter(tracker, UNHEALTHY), ["unhealthy"]),
        (lambda tracker: HealthFilter(tracker, HEALTHY | RECOVERING), ["healthy", "recovering"]),
        (lambda tracker: ~HealthFilter.available(tracker), ["unhealthy"]),
        (
            lambda tracker: HealthFilter.available(tracker) & (lambda node: node.id > "h"),
            ["healthy", "recovering"],
        ),
    ],
    ids=["available", "healthy_only", "one", "two", "inverted", "combined"],
)
def test_health_filters(
    health: HealthTracker, make: Callable[[HealthTracker], Filter[Any]], accepted: list[str]
) -> None:
    """Each accepts the nodes in the states it names, found by the nodes' ids."""
    view = make(health).view(NodeSet(STATES))
    assert [view.ids[i] for i in view.eligible] == accepted


@pytest.mark.parametrize("arguments", [(None, HEALTHY), ("tracker", HEALTHY), (None, "HEALTHY")])
def test_refuses_what_health_filters_cannot_read(arguments: tuple[Any, Any]) -> None:
    """A tracker or states of the wrong kind are refused at construction."""
    with pytest.raises(TypeError, match=r"(tracker|statuses) is"):
        HealthFilter(*arguments)


@pytest.mark.parametrize(
    "tracker", [None, QuotaTracker, QuotaConfig([QuotaDimension("rpm", limit=1)])]
)
def test_refuses_what_quota_filters_cannot_read(tracker: Any) -> None:
    """A tracker of the wrong kind is refused at construction, not at the first pick."""
    with pytest.raises(TypeError, match=r"tracker is .*; it must be a QuotaTracker"):
        QuotaFilter(tracker)


def one_request(clock: ManualClock) -> QuotaTracker:
    """Return a tracker that allows node "a" one request a minute."""
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", 1)]))
    return quota


def test_quota_filter(clock: ManualClock) -> None:
    """Nodes without room or on cooldown are out; those without limits are in."""
    quota = one_request(clock)
    accept, nodes = QuotaFilter(quota), NodeSet([Endpoint("a"), Endpoint("b"), Endpoint("c")])
    assert accept.view(nodes).eligible == (0, 1, 2)
    quota.try_acquire("a")
    quota.mark_exhausted("c", 5.0)
    assert accept.view(nodes).eligible == (1,)
    clock.advance(5.0)
    assert accept.view(nodes).eligible == (1, 2)


@pytest.mark.parametrize(
    "make",
    [
        HealthFilter.available,
        HealthFilter.healthy_only,
        lambda tracker: ~HealthFilter(tracker, UNHEALTHY),
        lambda tracker: AllOf(HealthFilter.available(tracker)) | AnyOf[object](),
        lambda tracker: HealthFilter.available(tracker) & QuotaFilter(QuotaTracker()),
    ],
    ids=["available", "healthy_only", "inverted", "either", "with quotas"],
)
def test_a_view_is_kept_until_health_changes(
    health: HealthTracker, make: Callable[[HealthTracker], Filter[Any]]
) -> None:
    """The same object comes back until a state changes; then a right one is made, and kept."""
    accept, nodes = make(health), NodeSet(["a", "b"])
    first = accept.view(nodes)
    assert first.eligible == (0, 1)
    health.report_success("a")
    health.report("a", Outcome.RATE_LIMITED)
    assert accept.view(nodes) is first
    health.report_failure("a")
    health.report_failure("a")
    second = accept.view(nodes)
    assert second.eligible == (1,)
    health.report_success("b")
    assert accept.view(nodes) is second
    assert accept.view(NodeSet(["a", "b"])) is not second, "another membership"


def test_a_view_is_kept_until_time_frees_a_node(clock: ManualClock) -> None:
    """Nothing is told when a window ends, yet the next view has the node back, and is kept."""
    quota, nodes = one_request(clock), NodeSet(["a", "b"])
    accept = QuotaFilter(quota)
    full = accept.view(nodes)
    quota.record_usage("b", {"rpm": 1})
    assert accept.view(nodes) is full
    quota.try_acquire("a")
    rest = accept.view(nodes)
    assert rest.eligible == (1,)
    clock.advance(59.875)
    assert accept.view(nodes) is rest
    clock.advance(0.125)
    again = accept.view(nodes)
    assert again.eligible == (0, 1)
    clock.advance(1000.0)
    assert accept.view(nodes) is again


@pytest.mark.parametrize(
    "make",
    [
        FnFilter,
        Not,
        lambda fn: AllOf(HealthFilter.available(HealthTracker()), fn),
        lambda fn: AnyOf(fn, QuotaFilter(QuotaTracker())) & fn,
    ],
    ids=["function", "negated", "with health", "with quotas"],
)
def test_functions_are_asked_every_time(
    make: Callable[[Callable[[str], bool]], Filter[str]],
) -> None:
    """Nobody knows when a function changes its mind, so no view that depends on it is kept."""
    accepted, nodes = {"a"}, NodeSet(["a", "b"])
    accept = make(lambda node: node in accepted)
    first = accept.view(nodes).eligible
    accepted.symmetric_difference_update({"a", "b"})
    assert accept.view(nodes).eligible == tuple({0, 1} - set(first))


def test_plain_sequences_are_looked_at_every_time(health: HealthTracker) -> None:
    """A list may have changed since, so its view is made anew."""
    accept, nodes = HealthFilter.available(health), ["unhealthy", "healthy"]
    assert accept.view(nodes).eligible == (1,)
    nodes.append("degraded")
    assert accept.view(nodes).eligible == (1, 2)


class Maintenance(Filter[str]):
    """A filter of a user's own, which says what its answer depends on."""

    def __init__(self) -> None:
        self.version = 0
        self.clock = ManualClock()
        self.until: dict[str, float] = {}

    def next_change(self) -> float:
        return min((t for t in self.until.values() if t > self.clock.now), default=float("inf"))

    def __call__(self, node: str) -> bool:
        return self.until.get(node, 0.0) <= self.clock.now

    def sources(self) -> tuple[StateSource, ...]:
        return (self,)


def test_a_filter_of_ones_own_can_have_its_views_kept() -> None:
    """A version and the time of the next change are all it takes, alone and negated."""
    mine, nodes = Maintenance(), NodeSet(["a", "b"])
    inverse = ~mine
    first = mine.view(nodes)
    assert mine.view(nodes) is first
    mine.until["a"] = 10.0
    mine.version += 1
    assert (mine.view(nodes).eligible, inverse.view(nodes).eligible) == ((1,), (0,))
    mine.clock.advance(10.0)
    assert (mine.view(nodes).eligible, inverse.view(nodes).eligible) == ((0, 1), ())


def test_no_thread_keeps_a_view_that_has_become_wrong(clock: ManualClock) -> None:
    """After 2,000 flaps seen by 4 threads at once, the view shows the last state."""
    health = HealthTracker(ConsecutiveFailurePolicy(1, 1), clock)
    accept, nodes = HealthFilter.available(health), NodeSet(["a", "b"])
    seen: set[tuple[int, ...]] = set()

    def look() -> None:
        for _ in range(2_000):
            seen.add(accept.view(nodes).eligible)

    threads = [Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(1_000):
        health.report_failure("a")
        assert accept.view(nodes).eligible == (1,)
        health.report_success("a")
        assert accept.view(nodes).eligible == (0, 1)
    for thread in threads:
        thread.join()
    assert seen <= {(0, 1), (1,)}
    assert accept.view(nodes).eligible == (0, 1)
