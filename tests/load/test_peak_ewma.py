"""PeakEwma: the published formula, its decay, and what newcomers and failures count for."""

from __future__ import annotations

import math
import random
from math import exp
from threading import Thread

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.compiled import COMPILED

from loadwise import LeastLoad, LoadMeasure, NodeSet, Outcome, PeakEwma
from loadwise._gil import HAS_GIL
from loadwise.load import Cell
from loadwise.testing import ManualClock

seconds = st.floats(min_value=0.0, max_value=60.0)
latencies = st.floats(min_value=1e-6, max_value=60.0)


@given(
    tau=st.floats(min_value=0.1, max_value=100.0),
    samples=st.lists(st.tuples(seconds, latencies, st.integers(0, 3)), min_size=1, max_size=20),
    wait=seconds,
)
def test_the_published_formula(
    tau: float, samples: list[tuple[float, float, int]], wait: float
) -> None:
    """A peak becomes the cost; less pulls it down by w = exp(-dt/tau); load = cost * (n + 1).

    Finagle's PeakEwma: on a sample, cost = rtt if rtt > cost, else cost * w + rtt * (1 - w).
    Between samples the cost fades by exp(-dt/tau).
    """
    clock = ManualClock(100.0)
    measure = PeakEwma(tau=tau, clock=clock)
    cell = measure.cell("a")
    cost = 0.0
    for passed, latency, pending in samples:
        clock.advance(passed)
        cell[:] = [None] * pending
        measure.observe(cell, latency, Outcome.SUCCESS, clock())
        w = exp(-passed / tau)
        cost = latency if latency > cost else cost * w + latency * (1 - w)
        assert measure.cost(cell) == pytest.approx(cost)
        assert measure.load(cell) == pytest.approx(cost * (pending + 1))
    clock.advance(wait)
    assert measure.cost(cell) == pytest.approx(cost * exp(-wait / tau))


def test_towers_compound_decay() -> None:
    """Two overlapping requests of 200 ms, tau 1 s: loads of 400 ms, then 200 ms, then decay.

    The figures of tower's unit test load::peak_ewma::tests::compound_decay, after its default
    latency, which this measure does without.
    """
    clock = ManualClock()
    measure = PeakEwma(tau=1.0, clock=clock)
    cell = measure.cell("svc")
    clock.advance(0.1)
    cell.append(None)
    clock.advance(0.1)
    cell.append(None)
    clock.advance(0.1)
    cell.pop()
    measure.observe(cell, 0.2, Outcome.SUCCESS, clock())
    assert measure.load(cell) == pytest.approx(0.4)
    clock.advance(0.1)
    cell.pop()
    measure.observe(cell, 0.2, Outcome.SUCCESS, clock())
    assert measure.load(cell) == pytest.approx(0.2)
    clock.advance(1.0)
    assert measure.load(cell) < 0.1
    clock.advance(10.0)
    assert measure.load(cell) < 0.0001


def test_towers_default_decay() -> None:
    """10 ms fade to 9-10 ms in 100 ms and 8-9 ms in 200 ms at tau 1 s (tower: default_decay)."""
    clock = ManualClock()
    measure = PeakEwma(tau=1.0, clock=clock)
    cell = measure.cell("svc")
    measure.observe(cell, 0.010, Outcome.SUCCESS, clock())
    assert measure.load(cell) == pytest.approx(0.010)
    clock.advance(0.1)
    assert 0.009 < measure.load(cell) < 0.010
    clock.advance(0.1)
    assert 0.008 < measure.load(cell) < 0.009


def test_reading_changes_nothing() -> None:
    """However often a load is read, the next sample meets the same cost."""
    clock = ManualClock()
    read, unread = PeakEwma(clock=clock), PeakEwma(clock=clock)
    cells = [read.cell("a"), unread.cell("a")]
    for measure, cell in zip((read, unread), cells, strict=True):
        measure.observe(cell, 2.0, Outcome.SUCCESS, clock())
    for _ in range(50):
        clock.advance(0.1)
        read.load(cells[0])
    for measure, cell in zip((read, unread), cells, strict=True):
        measure.observe(cell, 1.5, Outcome.SUCCESS, clock())
    assert read.cost(cells[0]) == unread.cost(cells[1]) == pytest.approx(1.5 + 0.5 * exp(-0.5))


def test_a_newcomer_is_probed_once() -> None:
    """A node never measured is taken first, then not again until its first answer is there."""
    clock = ManualClock()
    measure = PeakEwma(clock=clock)
    strategy, nodes = LeastLoad[str](load=measure, rng=random.Random(21)), NodeSet(list("abcn"))
    known = [measure.cell(name) for name in "abc"]
    for cell in known:
        measure.observe(cell, 5.0, Outcome.SUCCESS, clock())
    newcomer = measure.cell("n")
    assert measure.cost(newcomer) is None
    assert measure.load(newcomer) == 0
    assert strategy.select(nodes) == 3
    newcomer.append(None)
    for number in range(300):
        assert strategy.select(nodes) != 3
        known[number % 3].append(None)
    newcomer.pop()
    measure.observe(newcomer, 0.1, Outcome.SUCCESS, clock())
    assert strategy.select(nodes) == 3


def test_newcomers_among_themselves_share() -> None:
    """Where nobody was measured yet, requests in flight decide."""
    measure = PeakEwma(clock=ManualClock())
    strategy, nodes = LeastLoad[str](load=measure, rng=random.Random(22)), NodeSet(list("abc"))
    cells = [measure.cell(name) for name in nodes]
    for _ in range(30):
        index = strategy.select(nodes)
        assert index is not None
        cells[index].append(None)
    assert [len(cell) for cell in cells] == [10, 10, 10]


@pytest.mark.parametrize(
    ("outcome", "latency", "expected"),
    [
        (Outcome.SUCCESS, 0.5, 0.5),
        (Outcome.FAILURE, 0.001, 1.5),
        (Outcome.FAILURE, 3.0, 3.0),
        (Outcome.RATE_LIMITED, 0.001, 0.5),
        (Outcome.CANCELLED, 0.4, 0.5),
        (Outcome.CANCELLED, 9.0, 9.0),
    ],
)
def test_what_an_outcome_counts_for(outcome: Outcome, latency: float, expected: float) -> None:
    """A fast failure is no fast answer (fasthttp#865); what says nothing of speed is no sample."""
    clock = ManualClock()
    measure = PeakEwma(failure_factor=3.0, clock=clock)
    cell = measure.cell("a")
    measure.observe(cell, 0.5, Outcome.SUCCESS, clock())
    measure.observe(cell, latency, outcome, clock())
    assert measure.cost(cell) == pytest.approx(expected)


def test_a_failure_multiplies_what_has_not_faded() -> None:
    """Failures compound on the faded cost; the first one of a node counts as what it took."""
    clock = ManualClock()
    measure = PeakEwma(tau=10.0, failure_factor=2.0, clock=clock)
    cell = measure.cell("a")
    measure.observe(cell, 0.01, Outcome.FAILURE, clock())
    assert measure.cost(cell) == pytest.approx(0.01)
    clock.advance(10.0)
    measure.observe(cell, 0.001, Outcome.FAILURE, clock())
    assert measure.cost(cell) == pytest.approx(0.02 * exp(-1))
    measure.forget(cell)
    assert (measure.cost(cell), measure.load(cell)) == (None, 0.0)


def test_the_clock_is_the_balancers_unless_one_was_given() -> None:
    """A clock given at construction is kept; otherwise the last one that is offered is used."""
    given_clock, balancers = ManualClock(50.0), ManualClock(1000.0)
    for measure, clock, now in [
        (PeakEwma(clock=given_clock), given_clock, 1000.0),
        (PeakEwma(), balancers, 1000.0),
    ]:
        measure.use_clock(balancers)
        cell = measure.cell("a")
        measure.observe(cell, 1.0, Outcome.SUCCESS, now)
        assert measure.cost(cell) == pytest.approx(1.0)
        clock.advance(10.0)
        assert measure.cost(cell) == pytest.approx(exp(-1))
        assert isinstance(measure, LoadMeasure)


@pytest.mark.parametrize("back", [1.0, 1e6])
def test_a_clock_that_steps_back_is_taken_for_one_that_stands(back: float) -> None:
    """After a step back nothing fades, nothing grows, and nothing raises (Finagle: max(dt, 0))."""
    clock = ManualClock(2e6)
    measure = PeakEwma(clock=clock)
    cell = measure.cell("a")
    measure.observe(cell, 0.5, Outcome.SUCCESS, clock())
    clock.now -= back
    assert measure.load(cell) == pytest.approx(0.5)
    assert measure.cost(cell) == pytest.approx(0.5)
    measure.observe(cell, 0.1, Outcome.SUCCESS, clock())
    assert measure.cost(cell) == pytest.approx(0.5)


def test_threads_agree_on_the_peak() -> None:
    """Samples that many threads take at one time leave their peak as the cost."""
    measure = PeakEwma(clock=ManualClock())
    cell = measure.cell("a")

    def work(part: int) -> None:
        for number in range(500):
            latency = ((number * 37 + part) % 500) / 500
            measure.observe(cell, latency, Outcome.SUCCESS, 0.0)

    workers = [Thread(target=work, args=(part,)) for part in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=30)
    assert measure.cost(cell) == 499 / 500


def test_a_cost_may_be_forgotten_while_it_is_read() -> None:
    """Who reads the cost of a node that another thread forgets gets a cost or ``None``."""
    measure = PeakEwma(clock=ManualClock())
    cell = measure.cell("a")

    def forget() -> None:
        for _ in range(5000):
            measure.observe(cell, 0.5, Outcome.SUCCESS, 0.0)
            measure.forget(cell)

    worker = Thread(target=forget)
    worker.start()
    seen = {None, 0.5}
    while worker.is_alive():
        seen.add(measure.cost(cell))
    worker.join(timeout=30)
    assert seen == {None, 0.5}


@pytest.mark.skipif(not HAS_GIL, reason="without the GIL a sample holds a lock")
@pytest.mark.skipif(COMPILED, reason="compiled code calls nothing of a latency's class")
def test_a_sample_that_a_forget_came_into_begins_anew() -> None:
    """What was known of a node when a sample began is not worked in once it has been forgotten."""
    measure = PeakEwma(clock=ManualClock())
    cell = measure.cell("a")
    measure.observe(cell, 5.0, Outcome.SUCCESS, 0.0)

    class Meanwhile(float):
        """A latency that has the node forgotten when it is first compared with its cost."""

        def __lt__(self, other: float) -> bool:
            if measure.cost(cell) == 5.0:
                measure.forget(cell)
            return float(self) < other

    measure.observe(cell, Meanwhile(0.5), Outcome.FAILURE, 0.0)
    assert measure.cost(cell) == 0.5


@pytest.mark.parametrize(("latency", "now"), [(math.nan, 1.0), (1.0, math.nan)])
def test_a_broken_clock_stops_nobody(latency: float, now: float) -> None:
    """A sample that is no number is overwritten by the next that is one."""
    measure = PeakEwma()
    measure.use_clock(ManualClock(2.0))
    cell = measure.cell("a")
    measure.observe(cell, latency, Outcome.SUCCESS, now)
    measure.observe(cell, 0.5, Outcome.SUCCESS, 2.0)
    assert math.isfinite(measure.load(cell))
    assert math.isfinite(measure.rank(cell))


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_tau_is_finite_and_positive(bad: float) -> None:
    """Any other tau is refused at construction."""
    with pytest.raises(ValueError, match=f"tau is {bad!r}; it must be a finite number"):
        PeakEwma(tau=bad)


@pytest.mark.parametrize("bad", [0.9, -1.0, math.nan, math.inf])
def test_failure_factor_is_finite_and_at_least_one(bad: float) -> None:
    """Any other failure_factor is refused at construction."""
    with pytest.raises(ValueError, match=f"failure_factor is {bad!r}; it must be a finite"):
        PeakEwma(failure_factor=bad)


EVENTS = st.one_of(
    st.tuples(st.just("sample"), st.integers(0, 1), st.floats(0.0, 1e3)),
    st.tuples(st.just("failure"), st.integers(0, 1), st.floats(0.0, 1e3)),
    st.tuples(st.just("begin"), st.integers(0, 1), st.integers(1, 300)),
    st.tuples(st.just("forget"), st.integers(0, 1), st.just(0.0)),
    st.tuples(st.just("wait"), st.just(0), st.floats(0.0, 1e4)),
)


@given(st.lists(EVENTS, max_size=30), st.floats(0.01, 100.0))
@example(
    [
        ("sample", 0, 441.0),
        *[("failure", 0, 0.0)] * 4,
        ("begin", 0, 141),
        ("begin", 1, 1),
    ],
    1.0,
)
def test_the_rank_orders_as_the_load_does(events: list[tuple[str, int, float]], tau: float) -> None:
    """Of two nodes, the one with the higher load has the higher rank, whatever happened to them.

    Loads that are equal but for rounding may be ranked either way.
    """
    clock = ManualClock(1000.0)
    measure = PeakEwma(tau=tau, clock=clock)
    cells = [measure.cell("a"), measure.cell("b")]
    for what, index, value in events:
        if what == "wait":
            clock.advance(min(value, 20 * tau))
        elif what == "begin":
            cells[index].extend([None] * int(value))
        elif what == "forget":
            measure.forget(cells[index])
        else:
            outcome = Outcome.SUCCESS if what == "sample" else Outcome.FAILURE
            measure.observe(cells[index], value, outcome, 0.0)
        loads = [measure.load(cell) for cell in cells]
        ranks = [measure.rank(cell) for cell in cells]
        if loads[0] == loads[1] == 0.0 or loads[0] == pytest.approx(loads[1], rel=1e-6):
            continue
        assert (loads[0] < loads[1]) == (ranks[0] < ranks[1])


def test_a_load_of_a_subclass_is_not_passed_over() -> None:
    """The rank that is inherited does not go with it, so strategies ask for the load."""

    class Contrary(PeakEwma):
        def load(self, cell: Cell) -> float:
            return -super().load(cell)

    measure = Contrary(clock=ManualClock(1.0))
    strategy: LeastLoad[str] = LeastLoad(load=measure)
    cells = [measure.cell("a"), measure.cell("b")]
    measure.observe(cells[0], 0.1, Outcome.SUCCESS, 1.0)
    measure.observe(cells[1], 5.0, Outcome.SUCCESS, 1.0)
    assert strategy.select(NodeSet(["a", "b"])) == 1
