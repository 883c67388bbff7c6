"""A lease gives its slot back exactly once, whatever happens, and says what happened."""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import sys
from collections.abc import Callable, Iterator
from threading import Barrier, Thread
from typing import Any

import pytest
from tests.balancer.leases import Recorder, both_loads, in_flight, peak_ewma

from loadwise import (
    Balancer,
    Lease,
    LoadMeasure,
    LoadwiseError,
    Outcome,
    PeakEwma,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    Strategy,
)
from loadwise.testing import ManualClock


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
