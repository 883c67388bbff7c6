"""PeakEwma by the age of what is waiting: a model of it, a clock that steps back, many threads."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from math import exp, inf, nan
from threading import Barrier, Thread
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from loadwise import Balancer, Lease, LeastLoad, NodeSet, Outcome, PeakEwma, PowerOfTwoChoices
from loadwise.load import Cell
from loadwise.testing import ManualClock

NODES = ["a", "b", "c"]
PENALTY = 1e100


@dataclass
class Modelled:
    """A node as the definition has it: what was measured, and what is in flight."""

    cost: float = 0.0
    stamp: float = 0.0
    measured: bool = False
    given_up: bool = False
    too_quick: bool = False
    in_flight: int = 0
    waiting: dict[int, float] = field(default_factory=dict)

    def present(self, now: float, tau: float) -> float:
        """Return what is left of the cost."""
        return self.cost * exp((self.stamp - now) / tau)

    def oldest(self, now: float) -> float:
        """Return the age of the oldest request without a first byte, 0 without any."""
        return now - min(self.waiting.values(), default=now)

    def load(self, now: float, tau: float) -> float:
        """Return the load by its definition."""
        if self.too_quick and not self.in_flight:
            load = 0.0
        elif self.measured or (self.given_up and not self.in_flight):
            load = self.present(now, tau) * (self.in_flight + 1)
        else:
            load = PENALTY * self.in_flight
        return max(load, self.oldest(now))

    def end(self, latency: float, outcome: Outcome, now: float, tau: float) -> None:
        """Take a sample by its definition."""
        known = self.measured or self.given_up
        kept = exp((self.stamp - now) / tau)
        if outcome is Outcome.CANCELLED:
            if latency <= 0.0 or (known and latency <= self.cost * kept):
                return
            self.given_up = not self.measured
            self.too_quick = False
        else:
            self.too_quick = (
                latency <= 0.0 and outcome is Outcome.SUCCESS and (self.too_quick or not known)
            )
            latency = latency if latency > 0.0 else 0.001
            if known and outcome is Outcome.FAILURE:
                latency = max(latency, self.cost * kept * 2.0)
            elif known and latency <= self.cost:
                latency += (self.cost - latency) * kept
            self.measured, self.given_up = True, False
        self.cost, self.stamp = latency, now


class Ages(RuleBasedStateMachine):
    """Requests begin, get a first byte and end in any order, by a clock that goes as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(1000.0)
        # Time as the measure is to see it: it stands where the clock goes back.
        self.now = 1000.0
        self.nodes = {name: Modelled() for name in NODES}
        self.open: list[tuple[Lease[str], float]] = []
        self.heard: dict[int, float] = {}

    @initialize(tau=st.sampled_from([0.1, 1.0, 10.0]))
    def start(self, tau: float) -> None:
        """Make the measure, and who goes by it."""
        self.tau = tau
        self.measure = PeakEwma(tau=tau)
        self.least: LeastLoad[str] = LeastLoad(load=self.measure)
        self.two: PowerOfTwoChoices[str] = PowerOfTwoChoices(load=self.measure)
        self.balancer = Balancer(NODES, self.least, clock=self.clock, health=False)

    @rule(name=st.sampled_from(NODES))
    def begin(self, name: str) -> None:
        """Begin a request on a node."""
        lease = self.balancer.acquire(exclude=set(NODES) - {name})
        self.open.append((lease, self.clock()))
        node = self.nodes[name]
        node.in_flight += 1
        node.waiting[id(lease)] = self.now

    @rule(which=st.integers(0, 50))
    def first_byte(self, which: int) -> None:
        """Let an answer begin."""
        if self.open:
            lease, _ = self.open[which % len(self.open)]
            lease.first_byte()
            self.nodes[lease.node].waiting.pop(id(lease), None)
            self.heard.setdefault(id(lease), self.clock())

    @rule(
        which=st.integers(0, 50),
        outcome=st.sampled_from([Outcome.SUCCESS, Outcome.FAILURE, Outcome.CANCELLED]),
    )
    def end(self, which: int, outcome: Outcome) -> None:
        """End a request."""
        if not self.open:
            return
        lease, began = self.open.pop(which % len(self.open))
        heard = self.heard.pop(id(lease), None)
        node = self.nodes[lease.node]
        node.waiting.pop(id(lease), None)
        node.in_flight -= 1
        latency = max(0.0, (self.clock() if heard is None else heard) - began)
        if outcome is Outcome.CANCELLED and heard is not None:
            latency = 0.0
        node.end(latency, outcome, self.now, self.tau)
        if outcome is Outcome.SUCCESS:
            lease.success()
        elif outcome is Outcome.FAILURE:
            lease.failure()
        else:
            lease.cancel()

    @rule(share=st.floats(0.0, 5.0))
    def wait(self, share: float) -> None:
        """Let time pass, up to five tau."""
        self.clock.now += share * self.tau
        self.now += share * self.tau
        self.measure.load(self.measure.cell("a"))

    @rule(seconds=st.sampled_from([1e-4, 0.5, 60.0]))
    def step_back(self, seconds: float) -> None:
        """Set the clock back."""
        self.measure.load(self.measure.cell("a"))
        self.clock.now -= seconds
        self.measure.load(self.measure.cell("a"))

    @invariant()
    def loads_are_as_defined(self) -> None:
        """Counts are exact, and no load is below the age of the oldest request."""
        for name, node in self.nodes.items():
            cell = self.measure.cell(name)
            load = self.measure.load(cell)
            assert len(cell) == node.in_flight
            assert len(self.measure.waiting(cell)) == len(node.waiting)
            assert load == pytest.approx(node.load(self.now, self.tau), rel=1e-6, abs=1e-9)
            assert load >= node.oldest(self.now) - 1e-9
            assert load > 0 or not node.in_flight

    @invariant()
    def picks_go_by_the_load(self) -> None:
        """Strategies choose the node with the lowest load, though they ask for ranks first."""
        loads = {name: node.load(self.now, self.tau) for name, node in self.nodes.items()}
        nodes = NodeSet(NODES)
        for look in (self.least.select, self.least.peek):
            chosen = look(nodes)
            assert chosen is not None
            assert loads[NODES[chosen]] <= min(loads.values()) * (1 + 1e-6) + 1e-9
        for pair in (["a", "b"], ["b", "c"], ["c", "a"]):
            for look in (self.two.select, self.two.peek):
                chosen = look(NodeSet(pair))
                assert chosen is not None
                assert loads[pair[chosen]] <= min(loads[n] for n in pair) * (1 + 1e-6) + 1e-9

    def teardown(self) -> None:
        """End what is open."""
        for lease, _ in self.open:
            lease.cancel()


TestAges = Ages.TestCase
TestAges.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_two_equal_starts_are_two_requests() -> None:
    """Requests that began in the same tick are told apart."""
    clock, measure = ManualClock(), PeakEwma()
    balancer = Balancer(["a"], LeastLoad(load=measure), clock=clock)
    leases = [balancer.acquire() for _ in range(3)]
    clock.advance(1.0)
    cell = measure.cell("a")
    for lease in leases:
        assert len(measure.waiting(cell)) == len(cell)
        lease.success()
    assert not measure.waiting(cell)


def test_a_latency_of_zero_counts_as_a_millisecond() -> None:
    """By a coarse clock a node is quick, not free: what is in flight there counts (F6)."""
    clock = ManualClock()
    balancer = Balancer(["quick", "b"], LeastLoad(load=PeakEwma()), clock=clock)
    balancer.acquire(exclude=["b"]).success()
    other = balancer.acquire(exclude=["quick"])
    clock.advance(0.01)
    other.success()
    leases = [balancer.acquire() for _ in range(300)]
    # Loads are equal where 0.001 * (quick + 1) = 0.01 * (b + 1).
    assert 24 <= sum(lease.node == "b" for lease in leases) <= 30
    for lease in leases:
        lease.cancel()


def test_a_clock_that_steps_back_favours_nobody() -> None:
    """Two equal nodes share what comes in the 20 s after the clock has gone back 60 s (F9)."""
    clock = ManualClock(1000.0)
    balancer = Balancer(list("ab"), PowerOfTwoChoices(load=PeakEwma()), clock=clock)
    for _ in range(20):
        lease = balancer.acquire()
        clock.advance(0.01)
        lease.success()
    clock.now -= 60.0
    picked = []
    for _ in range(400):
        lease = balancer.acquire()
        picked.append(lease.node)
        clock.advance(0.05)
        lease.success()
    assert 160 <= picked.count("a") <= 240


@pytest.mark.parametrize("back", [0.5, 60.0])
def test_a_silent_node_stays_late_when_the_clock_steps_back(back: float) -> None:
    """What has been waited for is not forgotten with the time."""
    clock, measure = ManualClock(1000.0), PeakEwma()
    balancer = Balancer(list("ab"), LeastLoad(load=measure), clock=clock)
    silent = balancer.acquire(exclude=["b"])
    clock.advance(30.0)
    assert measure.load(measure.cell("a")) >= 30.0
    clock.now -= back
    for _ in range(100):
        lease = balancer.acquire()
        assert lease.node == "b"
        clock.advance(0.05)
        lease.success()
    assert len(measure.waiting(measure.cell("a"))) == 1
    silent.success()


def test_a_silent_node_stays_late_through_a_step_back_while_measured() -> None:
    """A measured node that has not answered for 30 s is as old after a step back as before it."""
    clock, measure = ManualClock(1000.0), PeakEwma()
    balancer = Balancer(list("ab"), LeastLoad(load=measure), clock=clock)
    for excluded in "ab":
        lease = balancer.acquire(exclude=[excluded])
        clock.advance(0.02)
        lease.success()
    silent = balancer.acquire(exclude=["b"])
    clock.advance(30.0)
    balancer.acquire(exclude=["a"]).success()
    clock.now -= 60.0
    assert measure.load(measure.cell("a")) == pytest.approx(30.0)
    clock.advance(5.0)
    assert measure.load(measure.cell("a")) == pytest.approx(35.0)
    silent.success()


def test_a_reading_from_before_another_threads_is_no_step_back() -> None:
    """A moment that is handed in late stands, and time goes on as the clock says."""
    clock, measure = ManualClock(100.0), PeakEwma(tau=0.1)
    measure.use_clock(clock)
    cell = measure.cell("a")
    for token, started in enumerate([100.0, 95.0, 99.0]):
        measure.begin(cell, token, started)
    assert list(measure.waiting(cell).values()) == [100.0, 95.0, 99.0]
    clock.advance(1.0)
    measure.waiting(cell).pop(0)
    assert measure.load(cell) == pytest.approx(6.0)


@pytest.mark.parametrize("broken", [nan, inf])
def test_a_start_that_is_no_time_stops_nobody(broken: float) -> None:
    """A reading of a broken clock neither raises nor holds."""
    clock, measure = ManualClock(100.0), PeakEwma()
    measure.use_clock(clock)
    cell = measure.cell("a")
    measure.begin(cell, 1, broken)
    measure.begin(cell, 2, 100.0)
    clock.advance(5.0)
    assert measure.load(cell) < 10.0
    assert LeastLoad[str](load=measure).select(NodeSet(list("a"))) == 0
    measure.waiting(cell).pop(1)
    assert measure.load(cell) == pytest.approx(5.0)


def test_balancers_with_different_clocks_share_no_measure() -> None:
    """Ages by one clock would be compared with those by the other."""
    early, late, measure = ManualClock(10.0), ManualClock(1e6), PeakEwma()
    one = Balancer(["a", "b"], LeastLoad(load=measure), clock=early)
    with pytest.raises(ValueError, match="give all of them the same clock"):
        Balancer(["a", "b"], LeastLoad(load=measure), clock=late)
    with one.acquire() as lease:
        early.advance(1.0)
    assert lease.latency == 1.0
    assert measure.clock == early


def test_a_given_clock_times_what_waits() -> None:
    """Ages are by the clock of the measure where it was given one of its own."""
    own = ManualClock(5.0)
    measure = PeakEwma(clock=own)
    measure.use_clock(ManualClock(1000.0))
    cell = measure.cell("a")
    measure.begin(cell, 1, 1000.0)
    own.advance(3.0)
    assert measure.waiting(cell) == {1: 5.0}
    assert measure.load(cell) == 3.0


@pytest.mark.parametrize(
    ("measured", "waited", "expected"), [(0.5, 9.0, 9.0), (0.5, 0.4, 0.5), (None, 9.0, 9.0)]
)
def test_a_cancelled_wait_is_a_lower_bound(
    measured: float | None, waited: float, expected: float
) -> None:
    """A request given up after longer than the cost raises it to that; a shorter one does not."""
    clock, measure = ManualClock(), PeakEwma()
    measure.use_clock(clock)
    cell = measure.cell("a")
    if measured is not None:
        measure.observe(cell, measured, Outcome.SUCCESS, clock())
    measure.observe(cell, waited, Outcome.CANCELLED, clock())
    assert measure.cost(cell) == pytest.approx(expected)


def test_the_cost_that_a_cancelled_wait_is_compared_to_has_faded() -> None:
    """What a peak of long ago has come down to is the cost."""
    clock, measure = ManualClock(), PeakEwma(tau=1.0)
    measure.use_clock(clock)
    cell = measure.cell("a")
    measure.observe(cell, 10.0, Outcome.SUCCESS, clock())
    clock.advance(5.0)
    measure.observe(cell, 1.0, Outcome.CANCELLED, clock())
    assert measure.cost(cell) == pytest.approx(1.0)


def test_a_newcomer_that_was_given_up_is_still_probed_once() -> None:
    """It waits its turn by the time that was waited for it, and then gets one request at a time."""
    clock, measure = ManualClock(), PeakEwma(tau=1.0)
    balancer = Balancer(list("ab"), LeastLoad(load=measure), clock=clock)
    lease = balancer.acquire(exclude=["a"])
    clock.advance(0.1)
    lease.success()
    lease = balancer.acquire()
    assert lease.node == "a"
    clock.advance(1.0)
    lease.cancel()
    assert balancer.explain().choice == "b"
    clock.advance(10.0)
    with balancer.acquire(exclude=["a"]):
        clock.advance(0.1)
    probe = balancer.acquire()
    assert probe.node == "a"
    leases = [balancer.acquire() for _ in range(300)]
    assert {lease.node for lease in leases} == {"b"}
    for lease in (probe, *leases):
        lease.success()


@pytest.mark.parametrize("strategy_type", [LeastLoad, PowerOfTwoChoices])
def test_a_load_of_a_subclass_hides_no_age(strategy_type: type[Any]) -> None:
    """Strategies that ask for the load itself get it with the ages."""

    class Doubled(PeakEwma):
        def load(self, cell: Cell) -> float:
            return 2 * super().load(cell)

    clock, measure = ManualClock(), Doubled()
    balancer = Balancer(list("ab"), strategy_type(load=measure), clock=clock)
    for excluded in "ab":
        with balancer.acquire(exclude=[excluded]):
            clock.advance(0.01)
    silent = balancer.acquire(exclude=["b"])
    clock.advance(5.0)
    assert measure.load(measure.cell("a")) == pytest.approx(10.0)
    assert balancer.pick() == "b"
    silent.success()


def test_many_threads_leave_nothing_waiting() -> None:
    """Whatever order 8 threads begin, hear and end in, what is left is what is open."""
    measure = PeakEwma()
    balancer = Balancer(range(3), PowerOfTwoChoices(load=measure), health=False)
    held = [balancer.acquire() for _ in range(9)]
    barrier = Barrier(8, timeout=30)
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        own: list[Lease[Any]] = []
        barrier.wait()
        try:
            for number in range(600):
                own.append(balancer.acquire())
                if (number + seed) % 3 == 0:
                    own[-1].first_byte()
                if len(own) > 5:
                    lease = own.pop((number * 7 + seed) % 6)
                    (lease.success, lease.failure, lease.cancel)[number % 3]()
            for lease in own:
                lease.success()
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    workers = [Thread(target=work, args=(seed,)) for seed in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(timeout=60)
    finally:
        sys.setswitchinterval(interval)
    assert errors == []
    cells = [measure.cell(node) for node in range(3)]
    assert sorted(token for cell in cells for token in measure.waiting(cell)) == sorted(
        map(id, held)
    )
    assert sum(map(len, cells)) == 9
    for lease in held:
        lease.success()
    assert not any(measure.waiting(cell) for cell in cells)


@pytest.mark.parametrize("strategy_type", [LeastLoad, PowerOfTwoChoices])
@pytest.mark.parametrize("order", [["a", "b"], ["b", "a"]])
def test_of_two_late_nodes_the_younger_is_chosen(
    strategy_type: type[Any], order: list[str]
) -> None:
    """Where all are late it is not the cost that decides, nor who was looked at first."""
    clock, measure = ManualClock(), PeakEwma()
    strategy = strategy_type(load=measure)
    balancer = Balancer(order, strategy, clock=clock)
    for node, seconds in (("b", 0.5), ("a", 0.01)):
        with balancer.acquire(exclude=set("ab") - {node}):
            clock.advance(seconds)
    leases = [balancer.acquire(exclude=["b"])]
    clock.advance(5.0)
    leases.append(balancer.acquire(exclude=["a"]))
    clock.advance(5.0)
    # By cost alone "a" has the lower load; by age it is 10 s against 5 s.
    assert measure.rank(measure.cell("a")) < measure.rank(measure.cell("b"))
    assert {balancer.pick() for _ in range(20)} == {"b"}
    leases[1].first_byte()
    leases.append(balancer.acquire(exclude=["a"]))
    clock.advance(20.0)
    # Now "b" has waited for 20 s, and "a" for 30 s; without its oldest, "a" is free.
    assert {balancer.pick() for _ in range(20)} == {"b"}
    leases[0].first_byte()
    assert {balancer.pick() for _ in range(20)} == {"a"}
    for lease in leases:
        lease.success()


@pytest.mark.parametrize("strategy_type", [LeastLoad, PowerOfTwoChoices])
def test_who_seems_the_better_may_be_older_than_who_is_late(strategy_type: type[Any]) -> None:
    """That the better one is late does not make the other the better one: it may be later."""
    clock, measure = ManualClock(), PeakEwma()
    balancer = Balancer(["a", "b"], strategy_type(load=measure), clock=clock)
    for node, seconds in (("b", 0.5), ("a", 0.01)):
        with balancer.acquire(exclude=set("ab") - {node}):
            clock.advance(seconds)
    leases = [balancer.acquire(exclude=["a"])]
    clock.advance(5.0)
    leases.append(balancer.acquire(exclude=["b"]))
    clock.advance(5.0)
    assert {balancer.pick() for _ in range(20)} == {"a"}
    for lease in leases:
        lease.success()
