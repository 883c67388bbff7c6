"""Slow start: who begins small, how shares grow in each strategy, and what stays as it was."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Thread
from typing import Any

import pytest
from tests.compiled import unexpected_keyword, wrong_type

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    Endpoint,
    HealthStatus,
    HealthTracker,
    SlowStart,
    Strategy,
    WeightedRoundRobin,
)
from loadwise.testing import ManualClock


def make(
    strategy: Strategy[Any] | None = None,
    nodes: str = "a",
    rule: SlowStart | None = None,
    **options: Any,
) -> tuple[Balancer[Any], ManualClock]:
    """Return a balancer whose first second is over, and its clock."""
    clock = ManualClock(100.0)
    balancer: Balancer[Any] = Balancer(
        [Endpoint(each) for each in nodes],
        strategy,
        clock=clock,
        slow_start=rule or SlowStart(),
        **options,
    )
    clock.advance(1.0)
    return balancer, clock


def factors(balancer: Balancer[Any]) -> dict[Hashable, float | None]:
    """Return the factor of each member, by id."""
    return {status.id: status.slow_start for status in balancer.status()}


def slow(balancer: Balancer[Any]) -> set[Hashable]:
    """Return the ids of members in slow start."""
    return {name for name, factor in factors(balancer).items() if factor is not None}


def down(balancer: Balancer[Any], node: str) -> HealthTracker:
    """Have a node be UNHEALTHY; return the tracker."""
    tracker = balancer.health
    assert tracker is not None
    while tracker.status(node) is not HealthStatus.UNHEALTHY:
        tracker.report_failure(node)
    return tracker


def revive(balancer: Balancer[Any], node: str) -> None:
    """Have a node be HEALTHY."""
    tracker = balancer.health
    assert tracker is not None
    while tracker.status(node) is not HealthStatus.HEALTHY:
        tracker.report_success(node)


def test_members_of_the_first_second_have_their_full_weight() -> None:
    """Whoever joins at the start of a program joins a fleet that is up; later ones are new."""
    clock = ManualClock()
    balancer = Balancer(["a"], clock=clock, slow_start=SlowStart())
    clock.advance(0.9)
    balancer.add("b")
    assert slow(balancer) == set()
    clock.advance(0.2)
    balancer.add("c")
    balancer.replace(["a", "b", "c", "d"])
    assert slow(balancer) == {"c", "d"}


def test_who_stays_starts_nothing_anew() -> None:
    """Same ids, other weights, drains and their ends begin no slow start, and end none."""
    balancer, clock = make(nodes="ab")
    balancer.add(Endpoint("c"))
    clock.advance(30.0)
    balancer.replace([Endpoint("c", 5), Endpoint("b", 2), Endpoint("a")])
    balancer.drain("a")
    balancer.resume("a")
    assert factors(balancer) == {"a": None, "b": None, "c": 0.5}


def test_who_comes_back_is_new() -> None:
    """A node that was removed and added again begins anew."""
    balancer, clock = make(nodes="ab")
    balancer.add(Endpoint("c"))
    clock.advance(30.0)
    balancer.remove("c")
    balancer.add(Endpoint("c"))
    balancer.remove("b")
    balancer.add(Endpoint("b"))
    assert factors(balancer) == {"a": None, "b": 0.1, "c": 0.1}


def test_it_begins_when_a_node_is_healthy_again() -> None:
    """RECOVERING is on trial anyway; the window begins at HEALTHY, and a fall ends it."""
    policy = ConsecutiveFailurePolicy(failure_threshold=3, recovery_successes=2)
    clock = ManualClock(100.0)
    tracker = HealthTracker(policy, clock=clock)
    balancer = Balancer(["a", "b", "c"], health=tracker, slow_start=SlowStart())
    tracker.report_failure("c")
    tracker.report_success("c")
    assert slow(balancer) == set(), "it has failed, and not fallen"
    down(balancer, "b")
    assert slow(balancer) == set()
    clock.advance(10.0)
    tracker.report_success("b")
    assert tracker.status("b") is HealthStatus.RECOVERING
    assert slow(balancer) == set()
    tracker.report_success("b")
    assert tracker.status("b") is HealthStatus.HEALTHY
    assert factors(balancer)["b"] == 0.1
    assert balancer.explain().seen["b"]["weight"] == 0.1
    clock.advance(30.0)
    down(balancer, "b")
    assert slow(balancer) == set()


def test_the_way_back_may_lead_over_degraded() -> None:
    """A policy of one's own may let a node back by other states: that it fell is what counts."""
    balancer, _ = make(nodes="ab", health=False)
    starts = balancer._fleet._grounds.slow
    assert starts is not None
    for old, new in ((1, 4), (4, 2), (2, 1)):
        starts.changed("b", HealthStatus(old), HealthStatus(new))
    starts.changed("a", HealthStatus.DEGRADED, HealthStatus.HEALTHY)
    assert slow(balancer) == {"b"}


def test_not_in_panic() -> None:
    """In panic all have their full weight; after it the window goes on where time has led it."""
    balancer, clock = make(WeightedRoundRobin(), nodes="abc")
    balancer.add(Endpoint("d"))
    for node in "abc":
        down(balancer, node)
    assert balancer.panic is not None
    assert slow(balancer) == set()
    assert "slow_start" not in balancer.explain().seen["d"]
    clock.advance(15.0)
    for node in "abc":
        revive(balancer, node)
    assert balancer.panic is None
    assert factors(balancer) == {"a": 0.1, "b": 0.1, "c": 0.1, "d": 0.25}


def test_weights_are_refreshed_at_most_50_times_a_window() -> None:
    """A pick every tenth of a second sees other weights 50 times a window, and not more often."""
    balancer, clock = make(WeightedRoundRobin(), nodes="ab")
    balancer.add(Endpoint("c"))
    seen: dict[int, object] = {}
    for _ in range(700):
        balancer.acquire().success()
        weights = balancer._fleet.view.nodes.weights
        seen[id(weights)] = weights
        clock.advance(0.1)
    assert 40 < len(seen) - 1 <= 50
    assert balancer._fleet.view.nodes.weights == (1, 1, 1)
    assert balancer._fleet.view.quota_version == balancer._fleet._quota.version, (
        "nobody looks closer"
    )


def test_a_change_of_health_refreshes_no_weights() -> None:
    """Views that are made for another reason go on with the weights there are."""
    balancer, clock = make(nodes="abcd")
    balancer.add(Endpoint("e"))
    balancer.pick()
    before = balancer._fleet.view.nodes.weights
    clock.advance(1.0)
    down(balancer, "a")
    balancer.pick()
    assert balancer._fleet.view.nodes.weights is before
    assert 0 not in balancer._fleet.view.nodes.eligible


def test_it_is_told_in_status_and_explanation() -> None:
    """``status``, its dict and ``explain`` show the factor and the weight that comes of it."""
    balancer, clock = make()
    balancer.add(Endpoint("b", 4))
    clock.advance(30.0)
    status = balancer.status()[1]
    assert (status.slow_start, status.weight, status.drained) == (0.5, 4, False)
    assert status.to_dict()["slow_start"] == 0.5
    told = balancer.explain()
    assert told.seen == {"a": {"load": 0}, "b": {"load": 0, "weight": 2.0, "slow_start": 0.5}}
    assert "'b': eligible (load 0, weight 2, slow_start 0.5)" in str(told)


def test_a_clock_that_goes_back_keeps_nobody_small() -> None:
    """The window begins anew then, and ends."""
    balancer, clock = make(nodes="ab")
    balancer.add(Endpoint("c"))
    clock.advance(30.0)
    balancer.pick()
    clock.now = 5.0
    balancer.pick()
    assert factors(balancer)["c"] == 0.1
    clock.advance(30.0)
    assert factors(balancer)["c"] == 0.5
    clock.advance(30.0)
    balancer.pick()
    assert slow(balancer) == set()
    clock.now = 100.5
    balancer.add(Endpoint("d"))
    assert slow(balancer) == {"d"}, "the first second has been over"


def test_a_view_that_was_made_before_the_news_is_made_again() -> None:
    """Whoever asks as a node is back, before the balancer has heard of it, fixes no weights."""
    tracker = HealthTracker(clock=ManualClock(100.0))
    asks: list[Callable[[], object]] = []

    def ask(_id: Hashable, _old: HealthStatus, _new: HealthStatus) -> None:
        for each in asks:
            each()

    tracker.subscribe(ask)
    balancer = Balancer([*"abcd"], health=tracker, slow_start=SlowStart())
    asks.append(lambda: balancer.acquire().success())
    down(balancer, "d")
    revive(balancer, "d")
    balancer.acquire().success()
    warm_up = balancer._fleet.view.nodes.warm_up
    assert warm_up is not None
    assert warm_up.factors == {3: 0.1}


def test_a_start_amid_a_look_is_not_overlooked() -> None:
    """A node that is back while a view is worked out is in the next request's weights."""
    balancer, _ = make(nodes="abcd")
    fleet = balancer._fleet
    made_before = fleet.look()
    assert fleet.note_change("b", HealthStatus.UNHEALTHY, HealthStatus.HEALTHY)
    fleet._publish(made_before)
    balancer.acquire().success()
    warm_up = fleet.view.nodes.warm_up
    assert warm_up is not None
    assert warm_up.factors == {1: 0.1}


def test_threads_that_pick_while_nodes_come_and_go() -> None:
    """Picks go on, whoever joins, falls or is back meanwhile; in the end weights are full."""
    balancer, clock = make(WeightedRoundRobin(), nodes="abcd", rule=SlowStart(window=1.0))
    errors: list[BaseException] = []

    def pick() -> None:
        try:
            for _ in range(400):
                balancer.acquire().success()
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    threads = [Thread(target=pick) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(40):
        balancer.add(Endpoint(f"new-{number}"))
        clock.advance(0.03)
        down(balancer, "b")
        revive(balancer, "b")
        if number > 5:
            balancer.remove(f"new-{number - 5}")
    for thread in threads:
        thread.join(30.0)
    clock.advance(2.0)
    balancer.pick()
    assert errors == []
    assert slow(balancer) == set()
    starts = balancer._fleet._grounds.slow
    assert starts is not None
    assert not starts._starts, "who has its full weight is not remembered"
    balancer.add(Endpoint("last"))
    balancer.remove("last")
    assert not starts._starts, "nor who has left"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0.0}, r"window of SlowStart is 0\.0; it must be a finite number of seconds"),
        ({"window": float("inf")}, "window of SlowStart is inf"),
        ({"aggression": -1}, r"aggression of SlowStart is -1\.?0?; it must be a finite number"),
        ({"min_weight": 0}, r"min_weight of SlowStart is 0(\.0)?; .* above 0 .* at most 1"),
        ({"min_weight": 1.5}, r"min_weight of SlowStart is 1\.5"),
    ],
)
def test_bad_rules_are_refused(options: dict[str, float], message: str) -> None:
    """Each value out of range is named, with what it must be."""
    with pytest.raises(ValueError, match=message):
        SlowStart(**options)


def test_what_is_no_rule_is_refused() -> None:
    """Wrong types are named, and so are unknown options."""
    with pytest.raises(TypeError, match="window of SlowStart is '60'"):
        SlowStart(window="60")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=unexpected_keyword("windows")):
        SlowStart(windows=60.0)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=wrong_type(r"slow_start is 60\.0; give SlowStart\(window")):
        Balancer(["a"], slow_start=60.0)  # type: ignore[arg-type]


def test_the_curve() -> None:
    """The factor starts at its least, is 1 after the window, and never falls."""
    rule = SlowStart(window=10.0, aggression=0.5, min_weight=0.05)
    found = [rule.factor(tenth / 10) for tenth in range(-5, 120)]
    assert found == sorted(found)
    assert (found[0], found[-1], rule.factor(5.0)) == (0.05, 1.0, 0.25)
