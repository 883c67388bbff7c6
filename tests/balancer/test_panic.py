"""Panic: whom it spares, and what holds in spite of it.

Who is given requests in panic is compared with a model in tests/properties/test_balancer.py.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.balancer.panicking import RECOVERING, UNHEALTHY, kill, picked, sicken, tracker_of
from tests.compiled import wrong_type

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    Endpoint,
    FallbackChain,
    Filtered,
    HealthFilter,
    HealthStatus,
    HealthTracker,
    InFlight,
    LeastLoad,
    NoNodeAvailable,
    NoopCollector,
    Outcome,
    PeakEwma,
    PowerOfTwoChoices,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    Random,
    RoundRobin,
    Strategy,
)
from loadwise.balancer.panic import Panic
from loadwise.testing import ManualClock


def test_below_the_threshold_ailing_nodes_are_candidates_and_dead_ones_are_not() -> None:
    """Two of five available is panic: the two ailing serve, too, the dead one does not."""
    balancer = Balancer(["a", "b", "ill-1", "ill-2", "dead"], clock=ManualClock())
    sicken(balancer, "ill-1")
    assert balancer.panic is None
    assert picked(balancer) == {"a", "b", "ill-2", "dead"}
    sicken(balancer, "ill-2")
    assert balancer.panic is None, "three of five are available"
    kill(balancer, "dead")
    assert balancer.panic == Panic(
        available=2, ailing=2, members=5, threshold=0.5, last_resort=False
    )
    assert picked(balancer) == {"a", "b", "ill-1", "ill-2"}


def test_all_dead_is_the_last_resort() -> None:
    """Where nobody is available or ailing everybody is asked, rather than nobody."""
    balancer = Balancer(["a", "b", "c"], clock=ManualClock())
    kill(balancer, "a", "b", "c")
    panic = balancer.panic
    assert panic is not None
    assert panic.last_resort
    assert picked(balancer) == {"a", "b", "c"}


def test_the_first_to_recover_is_not_left_alone() -> None:
    """When the last resort ends because a node answers, all others are probed at once."""
    clock = ManualClock()
    balancer = Balancer(list("abcd"), RoundRobin(), clock=clock)
    kill(balancer, *"abcd")
    clock.advance(1.0)
    lease = balancer.acquire()
    assert lease.node == "a"
    lease.success()
    leases = [balancer.acquire() for _ in range(8)]
    assert Counter(each.node for each in leases) == {"a": 5, "b": 1, "c": 1, "d": 1}
    for each in leases:
        each.success()
    assert {each.health for each in balancer.status()} <= {RECOVERING, HealthStatus.HEALTHY}


@pytest.mark.parametrize("threshold", [0.0, None])
def test_thresholds_that_mean_only_when_nobody_is_left_and_never(threshold: float | None) -> None:
    """With 0 one node that is available keeps the balancer calm; ``None`` is never to panic."""
    balancer = Balancer(["a", "ill"], clock=ManualClock(), panic_threshold=threshold)
    sicken(balancer, "ill")
    assert balancer.panic is None
    assert picked(balancer) == {"a"}
    kill(balancer, "a")
    if threshold is None:
        with pytest.raises(NoNodeAvailable) as caught:
            balancer.acquire()
        assert caught.value.reason == "unhealthy"
        assert caught.value.retry_after == 10.0
    else:
        assert picked(balancer) == {"ill"}


def test_what_is_no_member_does_not_count() -> None:
    """Drained nodes, and those that the balancer's own filter refuses, neither calm nor alarm."""
    nodes = [Endpoint(name) for name in ("a", "b", "other-1", "other-2", "drained")]
    filters: list[Any] = [
        lambda node: not node.id.startswith("other"),
        ~HealthFilter(HealthTracker(), HealthStatus.UNHEALTHY)
        & (lambda node: not node.id.startswith("other")),
    ]
    for where in filters:
        balancer = Balancer(nodes, clock=ManualClock(), where=where, panic_threshold=0.6)
        balancer.drain("drained")
        kill(balancer, "other-1", "other-2", "drained")
        assert balancer.panic is None
        kill(balancer, "b")
        assert balancer.panic == Panic(1, 0, 2, 0.6, last_resort=False)
        kill(balancer, "a")
        assert picked(balancer) == {"a", "b"}


def test_a_filter_that_changes_its_mind_is_asked_at_every_pick() -> None:
    """So panic follows it at once, though nobody tells when it changes."""
    admitted = {"a", "b"}
    balancer = Balancer(["a", "b", "c"], clock=ManualClock(), where=admitted.__contains__)
    kill(balancer, "a")
    assert balancer.panic is None
    admitted.discard("b")
    assert balancer.panic is not None
    assert picked(balancer) == {"a"}
    admitted.add("c")
    assert balancer.panic is None
    assert picked(balancer) == {"c"}


def test_conditions_of_one_request_never_start_panic() -> None:
    """A request that admits only dead nodes is refused; the others do not hear of it."""
    told: list[bool] = []

    class Told(NoopCollector):
        def on_panic(self, entered: bool) -> None:  # noqa: FBT001
            told.append(entered)

    balancer = Balancer(["a", "b", "c"], clock=ManualClock(), metrics=Told())
    kill(balancer, "c")
    for request in ({"where": lambda node: node == "c"}, {"exclude": ["a", "b"]}):
        with pytest.raises(NoNodeAvailable):
            balancer.acquire(**request)
    assert told == []


def test_a_retry_in_panic_may_go_to_the_other_members_before_it_goes_nowhere() -> None:
    """Of three tries two have candidates; the third, which excludes both, has a dead node."""
    balancer = Balancer(["ill", "a", "dead-1", "dead-2", "dead-3"], clock=ManualClock())
    sicken(balancer, "ill")
    kill(balancer, "dead-1", "dead-2", "dead-3")
    assert picked(balancer) == {"ill", "a"}
    assert picked(balancer, exclude=["a"]) == {"ill"}
    others = {"dead-1", "dead-2", "dead-3"}
    assert picked(balancer, exclude=["a", "ill"]) == others
    told = balancer.explain(exclude=["a", "ill"])
    assert set(told.eligible) == others
    assert told.ineligible == {"a": "excluded", "ill": "excluded"}
    with pytest.raises(NoNodeAvailable):
        balancer.pick(exclude=["a", "ill", *others])


def test_cooldowns_and_quotas_hold_in_panic() -> None:
    """A node that is on cooldown or has no quota left is given nothing, however bad it is."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    quota.register("poor", QuotaConfig([QuotaDimension("rpm", limit=1)]))
    quota.record_usage("poor", {"rpm": 1})
    quota.mark_exhausted("resting", 30.0)
    balancer = Balancer(["poor", "resting", "a"], quota=quota, clock=clock)
    kill(balancer, "poor", "resting", "a")
    assert balancer.panic is not None
    assert balancer.panic.last_resort
    assert picked(balancer) == {"a"}
    assert balancer.explain().ineligible == {"poor": "quota", "resting": "rate_limited"}


def test_it_ends_when_the_last_success_is_too_old() -> None:
    """A node counts as ailing for a window since it last answered well, rounded up by a tenth."""
    clock = ManualClock()
    balancer = Balancer(["a", "b", "ill"], clock=clock, panic_threshold=1.0, panic_window=5.0)
    sicken(balancer, "ill")
    assert picked(balancer) == {"a", "b", "ill"}
    clock.advance(4.9)
    assert picked(balancer) == {"a", "b", "ill"}
    clock.advance(0.6)
    assert picked(balancer) == {"a", "b"}
    assert balancer.panic == Panic(2, 0, 3, 1.0, last_resort=False)


@pytest.mark.parametrize(("interval", "window"), [(0.0, 1.0), (10.0, 10.0), (200.0, 60.0)])
def test_the_window_is_the_probe_interval_within_bounds(interval: float, window: float) -> None:
    """At least a second and at most a minute."""
    clock = ManualClock()
    policy = ConsecutiveFailurePolicy(probe_interval=interval)
    balancer = Balancer(["a", "ill"], clock=clock, health=HealthTracker(policy, clock))
    assert tracker_of(balancer).panic_window == window
    sicken(balancer, "ill")
    clock.advance(window * 0.99)
    assert balancer.status()[1].ailing
    clock.advance(window * 0.2)
    assert not balancer.status()[1].ailing


def test_success_of_a_node_that_never_failed_is_remembered() -> None:
    """With a threshold of 1 the first failure is one that any node would have: it is ailing.

    Until the window is over, or it fails again.
    """
    clock = ManualClock()
    policy = ConsecutiveFailurePolicy(failure_threshold=1)
    balancer = Balancer(["a"], clock=clock, health=HealthTracker(policy, clock))
    balancer.acquire().success()
    clock.advance(3.0)
    balancer.acquire().failure()
    assert balancer.status()[0].ailing
    balancer.acquire().failure()
    assert not balancer.status()[0].ailing


def test_late_results_of_an_ailing_node_count_and_those_of_a_dead_one_do_not() -> None:
    """Requests that began before the node was found UNHEALTHY; three failures, three successes."""
    for prepare, expected in ((sicken, RECOVERING), (kill, UNHEALTHY)):
        clock = ManualClock()
        balancer = Balancer(["a", "b"], clock=clock)
        leases = [balancer.acquire(exclude=["b"]) for _ in range(2)]
        prepare(balancer, "a")
        clock.advance(1.0)
        leases[0].success()
        assert tracker_of(balancer).status("a") is expected
        leases[1].cancel()


def test_outcomes_from_the_very_moment_of_an_ejection_are_old_news() -> None:
    """On a coarse clock three late successes do not undo the three failures before them."""
    clock = ManualClock()
    balancer = Balancer(["a"], clock=clock)
    leases = [balancer.acquire() for _ in range(6)]
    for lease in leases[:3]:
        lease.failure()
    for lease in leases[3:]:
        lease.success()
    assert tracker_of(balancer).status("a") is UNHEALTHY


def test_what_was_sent_in_the_last_resort_counts_at_once() -> None:
    """A request that is sent to a node known to be down is news, even in the same moment."""
    balancer = Balancer(["a"], clock=ManualClock())
    kill(balancer, "a")
    balancer.acquire().success()
    assert tracker_of(balancer).status("a") is RECOVERING


def test_failures_in_panic_do_not_put_the_probe_off() -> None:
    """They are no probes, so the one that is due stays due."""
    clock = ManualClock()
    balancer = Balancer(["a", "dead"], clock=clock, panic_threshold=1.0)
    kill(balancer, "dead")
    clock.advance(9.0)
    for _ in range(3):
        balancer.acquire(exclude=["a"]).failure()
    assert balancer.status()[1].next_probe == 1.0


def test_peak_ewma_does_not_forget_an_ailing_node() -> None:
    """It still serves, so what is known of its speed is needed; of a dead node nothing is."""
    for prepare, remembered in ((sicken, True), (kill, False)):
        clock, load = ManualClock(), PeakEwma()
        strategy: PowerOfTwoChoices[str] = PowerOfTwoChoices(load=load)
        balancer = Balancer(["a", "b"], strategy, clock=clock, panic_threshold=1.0)
        lease = balancer.acquire(exclude=["b"])
        clock.advance(0.5)
        lease.success()
        prepare(balancer, "a")
        cell = load.cell("a")
        lease = balancer.acquire(exclude=["b"])
        lease.failure()
        assert (load.cost(cell) is not None) is remembered


def test_tiers_try_every_available_node_before_any_ailing_one() -> None:
    """An ailing node of the first tier comes after an available one of the second."""
    nodes = [Endpoint("main-1"), Endpoint("main-2"), Endpoint("spare", priority=1)]
    makers: tuple[Callable[[], Strategy[Endpoint]], ...] = (
        RoundRobin,
        lambda: LeastLoad(load=InFlight()),
    )
    for inner in makers:
        tiers: FallbackChain[Endpoint] = FallbackChain(
            [
                Filtered(inner(), lambda node: node.priority == 0),
                Filtered(inner(), lambda node: node.priority == 1),
            ]
        )
        balancer = Balancer(nodes, tiers, clock=ManualClock())
        sicken(balancer, "main-1")
        assert picked(balancer) == {"main-2"}
        sicken(balancer, "main-2")
        assert balancer.panic is not None
        assert picked(balancer) == {"spare"}
        assert balancer.explain().choice == "spare"
        kill(balancer, "spare")
        assert picked(balancer) == {"main-1", "main-2"}
        assert balancer.explain().choice in {"main-1", "main-2"}
        assert picked(balancer, exclude=["main-1"]) == {"main-2"}


def test_a_recovering_node_has_no_more_requests_than_it_needs() -> None:
    """One of five successes is in: four more at a time, while others can serve."""
    clock = ManualClock()
    health = HealthTracker(ConsecutiveFailurePolicy(3, 5, 10.0), clock)
    balancer = Balancer(range(4), LeastLoad(load=InFlight()), health=health, clock=clock)
    held = [balancer.acquire(exclude=[0]) for _ in range(60)]
    for _ in range(3):
        health.report_failure(0)
    clock.advance(10.0)
    probe = balancer.acquire()
    assert probe.node == 0
    probe.success()
    burst = [balancer.acquire() for _ in range(20)]
    assert sum(lease.node == 0 for lease in burst) == 4
    assert balancer.explain().ineligible == {0: "recovering"}
    alone = balancer.acquire(exclude=[1, 2, 3])
    assert alone.node == 0, "where there is nobody else it is asked all the same"
    for lease in (*held, *burst, alone):
        lease.cancel()


def test_many_recovering_nodes_are_passed_over_in_one_go() -> None:
    """A request asks no more than a handful of them before it leaves them all out."""
    asked = 0

    class Counting(LeastLoad[int]):
        def select(self, candidates: Any, context: Any = None) -> int | None:
            nonlocal asked
            asked += 1
            return super().select(candidates, context)

        def peek(self, candidates: Any, context: Any = None) -> int | None:
            return super().peek(candidates, context)

    clock = ManualClock()
    health = HealthTracker(ConsecutiveFailurePolicy(1, 2, 10.0), clock)
    balancer = Balancer(range(300), Counting(load=InFlight()), health=health, clock=clock)
    ones = list(range(200, 300))
    for node in range(200):
        health.report_failure(node)
        health.report_success(node)
    held = [balancer.acquire(exclude=range(200)) for _ in range(1000)]
    held += [balancer.acquire(exclude=ones) for _ in range(200)]
    assert all(status.in_flight for status in balancer.status())
    asked = 0
    lease = balancer.acquire()
    assert lease.node >= 200
    assert asked < 10
    for each in (*held, lease):
        each.cancel()


def test_a_recovering_node_with_room_is_found_among_a_few_that_have_none() -> None:
    """Where all are RECOVERING, up to 16 are asked for room, and no more however many there are."""
    asked = 0

    class Counting(HealthTracker):
        def successes_needed(self, node_id: Any) -> int | None:
            nonlocal asked
            asked += 1
            return super().successes_needed(node_id)

    found: list[int] = []
    for size in (12, 300):
        clock = ManualClock()
        health = Counting(ConsecutiveFailurePolicy(1, 2, 10.0), clock)
        rule: Random[int] = Random(rng=random.Random(1))
        balancer = Balancer(range(size), rule, health=health, clock=clock)
        for node in range(size):
            health.report_failure(node)
            health.report_success(node)
        room = size - 1
        held = [balancer.acquire(exclude=set(range(size)) - {node}) for node in range(room)]
        asked = 0
        held.append(balancer.acquire())
        assert held[-1].node == room or size > 16
        held += [balancer.acquire() for _ in range(2)]
        found.append(asked)
        for lease in held:
            lease.cancel()
    assert found[1] <= 3 * 20
    assert found[0] <= found[1]


@pytest.mark.parametrize("window", [5e-324, 1e-310, 1e-9])
@pytest.mark.parametrize("start", [0.0, 1e9])
def test_a_window_that_is_next_to_nothing_is_one(window: float, start: float) -> None:
    """No more than that: requests go on."""
    clock = ManualClock(start)
    balancer = Balancer(["a", "ill"], clock=clock, panic_window=window)
    sicken(balancer, "ill")
    clock.advance(1.0)
    kill(balancer, "a")
    assert picked(balancer) == {"a", "ill"}
    assert balancer.panic is not None
    assert balancer.panic.last_resort


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_broken_clock_stops_no_request(broken: float) -> None:
    """It makes no sense of windows, but every pick is answered."""
    now = [1.0]
    balancer = Balancer(["a", "b"], clock=lambda: now[0])
    now[0] = broken
    for outcome in (Outcome.SUCCESS, *[Outcome.FAILURE] * 9, Outcome.SUCCESS) * 3:
        balancer.report(balancer.pick(), outcome)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("panic_threshold", -0.1),
        ("panic_threshold", 1.1),
        ("panic_threshold", math.nan),
        ("panic_threshold", 50),
        ("panic_window", 0),
        ("panic_window", -1.0),
        ("panic_window", math.inf),
    ],
)
@pytest.mark.parametrize("health", [True, False])
def test_refuses_what_makes_no_sense(argument: str, value: float, *, health: bool) -> None:
    """At construction, with the name, the value and the remedy, also where it is not used."""
    options: dict[str, Any] = {argument: value}
    with pytest.raises(ValueError, match=f"{argument} is {value}; it must be"):
        Balancer(["a"], health=health, **options)


@pytest.mark.parametrize("argument", ["panic_threshold", "panic_window"])
def test_refuses_what_is_no_number(argument: str) -> None:
    """At construction, by name."""
    options: dict[str, Any] = {argument: "0.5"}
    with pytest.raises(TypeError, match=wrong_type(f"{argument} is '0.5'; it must be a number")):
        Balancer(["a"], **options)
