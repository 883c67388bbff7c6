"""A lease gives its slot back exactly once, whatever happens, and says what happened."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import math
import sys
from collections.abc import Callable, Hashable, Iterator
from threading import Barrier, Thread
from types import FrameType
from typing import Any

import pytest
from tests.compiled import COMPILED

from loadwise import (
    Balancer,
    FallbackChain,
    HealthPolicy,
    HealthStatus,
    HealthTracker,
    InFlight,
    Lease,
    LoadMeasure,
    LoadwiseError,
    NodeHealth,
    NoNodeAvailable,
    NoopCollector,
    Outcome,
    PeakEwma,
    PowerOfTwoChoices,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    Strategy,
)
from loadwise.testing import ManualClock


class Recorder(NoopCollector):
    """Remembers how requests ended."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Hashable, Outcome, float]] = []

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:
        self.outcomes.append((node_id, outcome, latency))


def in_flight(balancer: Balancer[Any]) -> int:
    """Return the requests in flight on all nodes."""
    return sum(status.in_flight for status in balancer.status())


def down_and_due(clock: ManualClock, health: HealthTracker | None = None) -> Balancer[str]:
    """Return a balancer of one node that is UNHEALTHY and due for its probe."""
    tracker = health or HealthTracker(clock=clock)
    balancer = Balancer(["a"], clock=clock, health=tracker, panic_threshold=None)
    assert balancer.health is not None
    while balancer.health.status("a") is not HealthStatus.UNHEALTHY:
        balancer.health.report_failure("a")
    clock.advance(10.0)
    return balancer


def raising(error: BaseException) -> Callable[[Lease[str]], None]:
    """Return a way to end a lease: its block is left by ``error``."""

    def use(lease: Lease[str]) -> None:
        with pytest.raises(type(error)) as caught, lease:
            raise error
        assert caught.value is error

    return use


def normally(lease: Lease[str]) -> None:
    """End a lease by leaving its block."""
    with lease as inner:
        assert inner is lease


def closing_a_generator(lease: Lease[str]) -> None:
    """End a lease by closing the generator that holds it."""

    def stream() -> Iterator[str]:
        with lease:
            yield lease.node

    chunks = stream()
    assert next(chunks) == "a"
    chunks.close()  # type: ignore[attr-defined]  # generators have it


WAYS = [
    pytest.param(normally, Outcome.SUCCESS, id="normal-exit"),
    pytest.param(raising(ValueError("bad")), Outcome.FAILURE, id="exception"),
    pytest.param(raising(TimeoutError()), Outcome.FAILURE, id="timeout"),
    pytest.param(raising(ExceptionGroup("g", [OSError()])), Outcome.FAILURE, id="group"),
    pytest.param(raising(asyncio.CancelledError()), Outcome.CANCELLED, id="asyncio-cancel"),
    pytest.param(
        raising(concurrent.futures.CancelledError()), Outcome.CANCELLED, id="future-cancel"
    ),
    pytest.param(
        raising(BaseExceptionGroup("g", [asyncio.CancelledError()])),
        Outcome.CANCELLED,
        id="cancelled-group",
    ),
    pytest.param(raising(KeyboardInterrupt()), Outcome.CANCELLED, id="ctrl-c"),
    pytest.param(raising(SystemExit(1)), Outcome.CANCELLED, id="exit"),
    pytest.param(closing_a_generator, Outcome.CANCELLED, id="generator-close"),
    pytest.param(Lease.success, Outcome.SUCCESS, id="success()"),
    pytest.param(Lease.failure, Outcome.FAILURE, id="failure()"),
    pytest.param(Lease.rate_limited, Outcome.RATE_LIMITED, id="rate_limited()"),
    pytest.param(Lease.cancel, Outcome.CANCELLED, id="cancel()"),
]

AGAIN: list[Callable[[Lease[Any]], object]] = [
    Lease.success,
    Lease.failure,
    Lease.rate_limited,
    Lease.cancel,
]


@pytest.mark.parametrize(("end", "outcome"), WAYS)
def test_every_end_counts_once(end: Callable[[Lease[str]], object], outcome: Outcome) -> None:
    """Each way to end a request is recorded once, with its outcome and its latency."""
    clock, recorder = ManualClock(50.0), Recorder()
    balancer = Balancer(["a"], clock=clock, metrics=recorder)
    other = balancer.acquire()
    lease = balancer.acquire()
    assert (lease.outcome, lease.latency, in_flight(balancer)) == (None, None, 2)
    clock.advance(2.5)
    end(lease)
    clock.advance(1.0)
    told = [again(lease) for again in AGAIN]
    normally(lease)
    assert told == [False] * len(AGAIN)
    assert (lease.outcome, lease.latency) == (outcome, 2.5)
    assert in_flight(balancer) == 1
    assert recorder.outcomes == [("a", outcome, 2.5)]
    [status] = balancer.status()
    assert status.latency == (2.5 if outcome is Outcome.SUCCESS else None)
    assert balancer.health is not None
    failures = balancer.health.health("a").consecutive_failures
    assert failures == (1 if outcome is Outcome.FAILURE else 0)
    other.cancel()
    assert in_flight(balancer) == 0


@pytest.mark.parametrize("first", range(len(AGAIN)))
def test_the_first_word_counts(first: int) -> None:
    """A word inside the block stands, whatever leaves the block."""
    balancer = Balancer(["a"])
    lease = balancer.acquire()

    def request() -> None:
        with lease:
            assert AGAIN[first](lease) is True
            assert in_flight(balancer) == 0
            raise RuntimeError

    with pytest.raises(RuntimeError):
        request()
    assert lease.outcome is list(Outcome)[first]
    assert in_flight(balancer) == 0


def test_a_failure_keeps_its_reason() -> None:
    """What went wrong can be read from the status: text as given, or type and text of an error."""
    balancer = Balancer(["a", "b"])
    leases = {lease.node: lease for lease in (balancer.acquire(), balancer.acquire())}
    leases["a"].failure("status 503")
    with pytest.raises(ConnectionError), leases["b"]:
        raise ConnectionError("refused")
    reasons = {status.id: str(status.health_reason) for status in balancer.status()}
    assert reasons["a"].endswith("status 503")
    assert reasons["b"].endswith("ConnectionError: refused")


def test_the_latency_shown_is_a_moving_average_of_successes() -> None:
    """The first success sets the average, each later one moves it by a tenth; others do not."""
    clock = ManualClock()
    balancer = Balancer(["a"], clock=clock)
    for seconds, end in ((1.0, Lease.success), (9.0, Lease.failure), (2.0, Lease.success)):
        lease = balancer.acquire()
        clock.advance(seconds)
        end(lease)
    assert balancer.status()[0].latency == pytest.approx(1.0 + 0.1 * (2.0 - 1.0))


def test_a_clock_that_steps_back_gives_no_negative_latency() -> None:
    """A broken clock must not make a request end before it began."""
    clock = ManualClock(100.0)
    balancer = Balancer(["a"], clock=clock)
    lease = balancer.acquire()
    clock.now = 40.0
    assert lease.success()
    assert lease.latency is not None
    assert lease.latency >= 0


def test_ended_by_many_threads_at_once() -> None:
    """Of eight threads that end the same lease, one is told that it was first."""
    rounds, threads = 200, 8
    balancer = Balancer(["a"], health=False)
    leases = [balancer.acquire() for _ in range(rounds)]
    told: list[list[bool]] = [[] for _ in range(rounds)]
    barrier = Barrier(threads, timeout=20)

    def work(number: int) -> None:
        for lease, answers in zip(leases, told, strict=True):
            barrier.wait()
            answers.append(bool(AGAIN[number % len(AGAIN)](lease)))

    workers = [Thread(target=work, args=(number,)) for number in range(threads)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(timeout=30)
    finally:
        sys.setswitchinterval(interval)
    assert [(len(answers), sum(answers)) for answers in told] == [(threads, 1)] * rounds
    assert in_flight(balancer) == 0


def test_a_cancelled_task_gives_its_slot_back() -> None:
    """A real task that is cancelled inside ``async with`` says nothing about the node."""

    async def main() -> None:
        balancer = Balancer(["a"])
        inside = asyncio.Event()
        leases: list[Lease[str]] = []

        async def request() -> None:
            async with balancer.acquire() as lease:
                leases.append(lease)
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(request())
        await asyncio.wait_for(inside.wait(), timeout=10)
        assert in_flight(balancer) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert leases[0].outcome is Outcome.CANCELLED
        assert in_flight(balancer) == 0
        assert balancer.health is not None
        assert balancer.health.snapshot() == {}

    asyncio.run(main())


def test_a_timeout_tells_of_the_node_only_inside_the_lease() -> None:
    """A deadline around the lease cancels; one within it is a failure of the node."""

    async def main() -> None:
        balancer = Balancer(["a"])
        around, within = balancer.acquire(), balancer.acquire()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0), around:
                await asyncio.Event().wait()
        with pytest.raises(TimeoutError):
            async with within, asyncio.timeout(0):
                await asyncio.Event().wait()
        assert (around.outcome, within.outcome) == (Outcome.CANCELLED, Outcome.FAILURE)

    asyncio.run(main())


@pytest.mark.parametrize("in_a_cycle", [False, True])
def test_dropped_without_a_word(in_a_cycle: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """A lease that is collected gives its slot back, warns, and is recorded as cancelled."""
    clock, recorder = ManualClock(), Recorder()
    balancer = Balancer(["a"], clock=clock, metrics=recorder)
    held: list[object] = [balancer.acquire()]
    clock.advance(4.0)
    drop = held.clear
    if in_a_cycle:
        held.append(held)
        drop = gc.collect  # type: ignore[assignment]  # what it returns does not matter
    del held
    assert in_flight(balancer) == 1
    with pytest.warns(ResourceWarning, match="lease on node 'a' was dropped"):
        drop()
    assert in_flight(balancer) == 0
    balancer.acquire().success()
    assert [outcome for _, outcome, _ in recorder.outcomes] == [Outcome.CANCELLED, Outcome.SUCCESS]
    assert balancer.health is not None
    assert balancer.health.snapshot() == {}


def test_an_ended_lease_is_dropped_in_silence() -> None:
    """Collection of a lease that was ended is nobody's concern (warnings are errors here)."""
    balancer = Balancer(["a"])
    lease = balancer.acquire()
    lease.success()
    cycle: list[object] = [lease]
    cycle.append(cycle)
    del lease, cycle
    gc.collect()
    assert in_flight(balancer) == 0


@pytest.mark.parametrize("asked_by", ["acquire", "explain", "status"])
def test_a_dropped_probe_is_free_again(asked_by: str) -> None:
    """When the lease that held a node's one probe is collected, the node may be probed again."""
    balancer = down_and_due(ManualClock())
    held = [balancer.acquire()]
    with pytest.raises(NoNodeAvailable):
        balancer.acquire()
    with pytest.warns(ResourceWarning, match="dropped"):
        held.clear()
    if asked_by == "explain":
        assert balancer.explain().choice == "a"
    elif asked_by == "status":
        assert balancer.status()[0].next_probe == 0.0
    probe = balancer.acquire()
    assert probe.success()
    assert balancer.status()[0].health is HealthStatus.RECOVERING


class Collecting(HealthPolicy):
    """A policy in whose midst, under the tracker's lock, garbage is collected."""

    @property
    def probe_interval(self) -> float:
        return 10.0

    def next_status(self, health: NodeHealth, outcome: Outcome) -> HealthStatus:
        gc.collect()
        return HealthStatus.UNHEALTHY


def test_a_stream_with_a_probe_may_be_collected_anywhere() -> None:
    """A generator that holds a probe waits for no lock when the collector closes it."""
    clock, recorder = ManualClock(), Recorder()
    health = HealthTracker(Collecting(), clock)
    balancer = Balancer(["a"], health=health, metrics=recorder)
    health.report_failure("a")
    clock.advance(10.0)
    leases: list[Lease[str]] = []

    def stream(_: object) -> Iterator[str]:
        with balancer.acquire() as lease:
            leases.append(lease)
            yield lease.node

    cycle: list[object] = []
    cycle.append(stream(cycle))
    assert next(cycle[0]) == "a"  # type: ignore[call-overload]  # it is the stream
    clock.advance(4.0)
    del cycle
    reporting = Thread(target=health.report_failure, args=("b",), daemon=True)
    reporting.start()
    reporting.join(10.0)
    assert not reporting.is_alive(), "it waits for the lock that it holds"
    assert (leases[0].outcome, leases[0].latency) == (Outcome.CANCELLED, 4.0)
    clock.advance(1.0)
    assert balancer.acquire().success(), "the probe is free again"
    assert recorder.outcomes[0] == ("a", Outcome.CANCELLED, 4.0)
    assert in_flight(balancer) == 0


class WordlessError(Exception):
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (503, "503"),
        (ConnectionError, "<class 'ConnectionError'>"),
        (WordlessError(), "WordlessError"),
        (ValueError("bad"), "ValueError: bad"),
    ],
)
def test_any_reason_is_told(reason: Any, words: str) -> None:  # also what types forbid
    """A failure counts whatever is given as its reason, and is told in words as far as it goes."""
    balancer = Balancer(["a"])
    assert balancer.acquire().failure(reason)
    assert balancer.status()[0].health_reason == f"1 failure, the last: {words}"


def test_an_error_without_words_leaves_the_block() -> None:
    """The caller gets its own exception, not one from the attempt to describe it."""
    balancer = Balancer(["a"])
    with pytest.raises(WordlessError), balancer.acquire():
        raise WordlessError
    assert balancer.status()[0].health_reason == "1 failure, the last: WordlessError"


class Unreliable(HealthPolicy):
    """A policy that fails when it is asked about a success."""

    @property
    def probe_interval(self) -> float:
        return 10.0

    def next_status(self, health: NodeHealth, outcome: Outcome) -> HealthStatus:
        if outcome is Outcome.SUCCESS:
            raise RuntimeError("no opinion")
        return HealthStatus.UNHEALTHY


def test_a_failing_policy_does_not_keep_the_probe() -> None:
    """An error in a policy of the user's own must not leave the node without probes for ever."""
    clock = ManualClock()
    balancer = down_and_due(clock, health=HealthTracker(Unreliable(), clock))
    probe = balancer.acquire()
    with pytest.raises(RuntimeError, match="no opinion"):
        probe.success()
    clock.advance(10.0)
    assert in_flight(balancer) == 0
    assert balancer.acquire().failure()


class Interrupting:
    """A clock and a collector in whose midst Ctrl-C strikes."""

    def __init__(self) -> None:
        self.strikes = False
        self.now = 0.0

    def __call__(self) -> float:
        self._strike()
        return self.now

    def on_selection(self, node_id: Hashable, strategy: str) -> None:
        self._strike()

    def on_health_change(self, node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        self._strike()

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:
        self._strike()

    def on_unavailable(self, reason: str) -> None:
        self._strike()

    def _strike(self) -> None:
        if self.strikes:
            raise KeyboardInterrupt


@pytest.mark.parametrize("place", ["clock", "metrics"])
def test_interrupted_while_acquiring(place: str) -> None:
    """Ctrl-C between the pick and the lease leaves nothing counted."""
    interrupting = Interrupting()
    balancer = Balancer(
        ["a"],
        clock=interrupting if place == "clock" else ManualClock(),
        metrics=interrupting if place == "metrics" else None,
    )
    interrupting.strikes = True
    with pytest.raises(KeyboardInterrupt):
        balancer.acquire()
    interrupting.strikes = False
    balancer.acquire().success()
    assert in_flight(balancer) == 0


@pytest.mark.skipif(COMPILED, reason="compiled code cannot be interrupted there, nor profiled")
@pytest.mark.filterwarnings("ignore:a lease on node:ResourceWarning")
def test_interrupted_anywhere() -> None:
    """Wherever Ctrl-C strikes in a request, its slot is given back when the lease is collected.

    Python runs signal handlers when a function begins and after a call of a built-in one. The
    profiler is called at the same places, so it can strike at each of them in turn.
    """
    balancer = Balancer(["a"])
    strikes = 0
    while strike_at(strikes, lambda: balancer.acquire().success()):
        strikes += 1
        assert in_flight(balancer) == 0, f"leaked by strike {strikes}"
    assert strikes > 5


def both_loads() -> tuple[Strategy[str], tuple[LoadMeasure, ...]]:
    """Return a strategy that feeds several measures, and these."""
    measures = (InFlight(), PeakEwma(), PeakEwma(tau=1.0))
    strategies = [PowerOfTwoChoices[str](load=measure) for measure in measures]
    return FallbackChain(strategies), measures


def peak_ewma() -> tuple[Strategy[str], tuple[LoadMeasure, ...]]:
    """Return a strategy that feeds one measure, and that."""
    measure = PeakEwma()
    return PowerOfTwoChoices(load=measure), (measure,)


@pytest.mark.skipif(COMPILED, reason="compiled code cannot be interrupted there, nor profiled")
@pytest.mark.filterwarnings("ignore:a lease on node:ResourceWarning")
@pytest.mark.parametrize("make", [peak_ewma, both_loads])
@pytest.mark.parametrize("end", [Lease.success, Lease.failure, Lease.cancel])
@pytest.mark.parametrize("streamed", [False, True])
def test_interrupted_anywhere_nothing_is_left_waiting(
    make: Callable[[], tuple[Strategy[str], tuple[LoadMeasure, ...]]],
    end: Callable[[Lease[str]], bool],
    streamed: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    """Wherever Ctrl-C strikes, no measure counts a request that is no more, nor has it age."""
    strategy, measures = make()
    balancer = Balancer(["a"], strategy, health=False)

    def request() -> None:
        lease = balancer.acquire()
        if streamed:
            lease.first_byte()
        end(lease)

    strikes, struck = 0, True
    while struck:
        other = balancer.acquire()
        struck = strike_at(strikes, request)
        for measure in measures:
            cell = measure.cell("a")
            assert len(cell) == 1, f"leaked by strike {strikes}"
            if isinstance(measure, PeakEwma):
                assert list(measure.waiting(cell)) == [id(other)], f"left by strike {strikes}"
        other.success()
        strikes += 1
    assert strikes > 8


def test_a_dropped_lease_waits_no_more_and_is_no_news() -> None:
    """Nobody waits for a lease that was collected, and how long it was waited for is not known."""
    clock, measure = ManualClock(), PeakEwma()
    balancer = Balancer(["a"], PowerOfTwoChoices(load=measure), clock=clock)
    with balancer.acquire():
        clock.advance(0.5)
    held = [balancer.acquire()]
    clock.advance(60.0)
    with pytest.warns(ResourceWarning, match="dropped"):
        held.clear()
    cell = measure.cell("a")
    assert (len(cell), measure.waiting(cell)) == (0, {})
    balancer.status()
    assert measure.cost(cell) == pytest.approx(0.5 * math.exp(-6.0))


@pytest.mark.parametrize("make", [peak_ewma, both_loads])
def test_past_its_first_byte_a_request_does_not_age(
    make: Callable[[], tuple[Strategy[str], tuple[LoadMeasure, ...]]],
) -> None:
    """A stream or long poll makes its node no older, and to cancel it says nothing of the node."""
    strategy, measures = make()
    clock = ManualClock()
    balancer = Balancer(["a"], strategy, clock=clock)
    with balancer.acquire():
        clock.advance(0.5)
    stream = balancer.acquire()
    clock.advance(0.25)
    stream.first_byte()
    clock.advance(60.0)
    ewma = [measure for measure in measures if isinstance(measure, PeakEwma)]
    loads = [2 * 0.5 * math.exp(-60.25 / tau) for tau in (10.0, 1.0)]
    for measure, load in zip(ewma, loads, strict=False):
        assert measure.load(measure.cell("a")) == pytest.approx(load)
    assert in_flight(balancer) == 1
    assert stream.cancel()
    assert stream.latency == 0.25
    for measure, load in zip(ewma, loads, strict=False):
        assert measure.cost(measure.cell("a")) == pytest.approx(load / 2)
    assert in_flight(balancer) == 0


def test_a_request_without_a_first_byte_ages_and_its_cancellation_is_news() -> None:
    """What was waited for in vain is a lower bound of what the node takes."""
    strategy, (measure,) = peak_ewma()
    assert isinstance(measure, PeakEwma)
    clock = ManualClock()
    balancer = Balancer(["a"], strategy, clock=clock)
    with balancer.acquire():
        clock.advance(0.5)
    lease = balancer.acquire()
    clock.advance(60.0)
    assert measure.load(measure.cell("a")) == 60.0
    assert lease.cancel()
    assert measure.cost(measure.cell("a")) == 60.0


@pytest.mark.skipif(COMPILED, reason="compiled code cannot be interrupted there, nor profiled")
@pytest.mark.filterwarnings("ignore:a lease on node:ResourceWarning")
def test_ctrl_c_in_a_loop_of_attempts_leaks_nothing() -> None:
    """Wherever it strikes while failures are held or reported, slots are given back.

    No node is blamed twice.
    """
    strikes, struck = 0, True
    while struck:
        balancer = Balancer(["a", "b", "c"], hung_after=1.0, failures=OSError)

        def request() -> None:
            for attempt in balancer.attempts(3):  # noqa: B023 - used at once
                with attempt as lease:
                    if attempt.number == 2:
                        lease.failure("status 503", retry_after=1.0)
                    elif attempt.number == 1:
                        raise OSError

        gc.disable()  # what it calls is none of this
        try:
            struck = strike_at(strikes, request)
        finally:
            gc.enable()
        strikes += 1
        assert in_flight(balancer) == 0, f"leaked by strike {strikes}"
        assert balancer.health is not None
        known = balancer.health.snapshot().values()
        assert all(health.consecutive_failures == 1 for health in known)
        assert len(known) <= 2
    assert strikes > 50
    assert len(known) == 2


@pytest.mark.skipif(COMPILED, reason="compiled code cannot be interrupted there, nor profiled")
@pytest.mark.filterwarnings("ignore:a lease on node:ResourceWarning")
@pytest.mark.parametrize("with_quota", [False, True])
@pytest.mark.parametrize("after_a_drop", [False, True])
def test_a_probe_interrupted_anywhere_is_free_again(
    with_quota: bool,  # noqa: FBT001 - a parameter of pytest
    after_a_drop: bool,  # noqa: FBT001
) -> None:
    """Wherever Ctrl-C strikes in the request that is a probe, the node may be probed again."""
    clock = ManualClock()
    quota = QuotaTracker(clock) if with_quota else None
    strikes, struck = 0, True
    while struck:
        health = HealthTracker(clock=clock)
        balancer = Balancer(["a"], health=health, quota=quota)
        for _ in range(3):
            health.report_failure("a")
        clock.advance(10.0)
        if after_a_drop:
            balancer.acquire()
        struck = strike_at(strikes, lambda: balancer.acquire().failure())  # noqa: B023 - used at once
        clock.advance(10.0)
        assert balancer.acquire().success(), f"kept by strike {strikes}"
        assert in_flight(balancer) == 0, f"leaked by strike {strikes}"
        strikes += 1
    assert strikes > 5


@pytest.mark.parametrize("call", [Balancer.pick, Balancer.acquire])
def test_a_wrong_cost_does_not_keep_the_probe(call: Callable[..., object]) -> None:
    """What raises after the probe was granted gives it back."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", limit=10)]))
    balancer = Balancer(["a"], quota=quota, clock=clock)
    assert balancer.health is not None
    for _ in range(3):
        balancer.health.report_failure("a")
    clock.advance(10.0)
    with pytest.raises(ValueError, match="did you mean 'rpm'"):
        call(balancer, cost={"rmp": 1})
    assert balancer.acquire().success()


def strike_at(place: int, work: Callable[[], object]) -> bool:
    """Do some work, and raise KeyboardInterrupt at one place; return whether it got that far."""
    left = place

    def profile(frame: FrameType, event: str, arg: object) -> None:
        nonlocal left
        # Python ignores what is raised in a finalizer, in a WeakKeyDictionary's `remove`, or in a
        # callback of the collector, such as Hypothesis has one. And in `logging` it would leave a
        # lock of the whole process held.
        if (
            event in ("call", "c_return")
            and frame.f_code.co_name not in ("__del__", "remove", "gc_callback")
            and not str(frame.f_globals.get("__name__")).startswith("logging")
        ):
            left -= 1
            if left < 0:
                raise KeyboardInterrupt

    # Else it may strike in what is called for garbage of other tests, and Python ignores that.
    gc.disable()
    sys.setprofile(profile)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
        gc.enable()
    return False


@pytest.mark.parametrize("end", ["success", "failure"])
def test_a_probe_whose_end_is_interrupted_is_free_again(end: str) -> None:
    """Ctrl-C or an error at the end of a probe must not leave the node without probes for ever."""
    interrupting = Interrupting()
    health = HealthTracker(clock=interrupting)
    for _ in range(3):
        health.report_failure("a")
    interrupting.now = 10.0
    balancer = Balancer(["a"], health=health)
    probe = balancer.acquire()
    interrupting.strikes = True
    with pytest.raises(KeyboardInterrupt):
        getattr(probe, end)()
    interrupting.strikes = False
    assert balancer.acquire().success()


@pytest.mark.parametrize("wrong", [-1, -0.1, math.nan, math.inf])
def test_a_wrong_pause_leaves_the_lease_open(wrong: float) -> None:
    """A retry-after that is no number of seconds is an error, and ends nothing."""
    balancer = Balancer(["a"])
    lease = balancer.acquire()
    with pytest.raises(ValueError, match="retry_after is"):
        lease.rate_limited(wrong)
    assert (lease.outcome, in_flight(balancer)) == (None, 1)
    assert lease.cancel()


@pytest.mark.parametrize("when", ["before", "after"])
def test_settle_replaces_what_was_reserved(when: str) -> None:
    """The true cost replaces the reserved one, before or after the end of the lease, but once."""
    quota = QuotaTracker(ManualClock())
    quota.register("a", QuotaConfig([QuotaDimension("tpm", limit=1000, window=60.0)]))
    balancer = Balancer(["a"], quota=quota)
    lease = balancer.acquire(cost={"tpm": 700})
    assert balancer.status()[0].quota_remaining == {"tpm": 300}
    if when == "after":
        lease.success()
    lease.settle({"tpm": 150})
    lease.success()
    assert balancer.status()[0].quota_remaining == {"tpm": 850}
    with pytest.raises(LoadwiseError, match="already been settled"):
        lease.settle({"tpm": 1})


def test_a_refund_gives_the_reservation_back() -> None:
    """A request that was never sent costs nothing; once it is settled there is no refund."""
    quota = QuotaTracker(ManualClock())
    quota.register("a", QuotaConfig([QuotaDimension("tpm", limit=1000, window=60.0)]))
    balancer = Balancer(["a"], quota=quota)
    unsent, sent = balancer.acquire(cost={"tpm": 700}), balancer.acquire(cost={"tpm": 300})
    unsent.refund()
    unsent.refund()
    assert balancer.status()[0].quota_remaining == {"tpm": 700}
    assert unsent.cancel()
    sent.settle({"tpm": 250})
    sent.refund()
    assert balancer.status()[0].quota_remaining == {"tpm": 750}
    assert sent.success()


def test_quota_calls_without_quota_do_nothing() -> None:
    """A caller may settle and refund whether or not the balancer has quotas."""
    lease = Balancer(["a"]).acquire()
    lease.settle({"tpm": 5})
    lease.refund()
    assert lease.success()


def test_the_first_byte_ends_the_latency_but_not_the_request() -> None:
    """For a streamed answer the latency ends at its start, the slot is held to its end."""
    clock, recorder = ManualClock(), Recorder()
    balancer = Balancer(["a"], clock=clock, metrics=recorder)
    lease = balancer.acquire()
    clock.advance(0.25)
    lease.first_byte()
    clock.advance(60.0)
    lease.first_byte()  # the first call counts
    assert (lease.outcome, lease.latency, in_flight(balancer)) == (None, None, 1)
    lease.success()
    assert (lease.latency, in_flight(balancer)) == (0.25, 0)
    assert recorder.outcomes == [("a", Outcome.SUCCESS, 0.25)]
    assert balancer.status()[0].latency == 0.25


def test_the_old_name_of_first_byte_warns() -> None:
    """`stop_clock` does the same, and names its successor."""
    clock = ManualClock()
    lease = Balancer(["a"], clock=clock).acquire()
    clock.advance(0.25)
    with pytest.warns(DeprecationWarning, match="first_byte"):
        lease.stop_clock()
    clock.advance(60.0)
    lease.success()
    assert lease.latency == 0.25


def test_repr_tells_node_and_state() -> None:
    """The text of a lease names its node and how it ended."""
    lease = Balancer(["a"]).acquire()
    assert repr(lease) == "<Lease on 'a': open>"
    lease.cancel()
    assert repr(lease) == "<Lease on 'a': cancelled>"
