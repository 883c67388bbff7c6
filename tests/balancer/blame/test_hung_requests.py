"""Requests given up too late count as failures of their node."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import Any

import pytest
from tests.balancer.blame.support import Events, InOrder, Request, Send, failures, send_sync

from loadwise import (
    Balancer,
    Lease,
    Outcome,
)
from loadwise.testing import ManualClock

# Requests that hung.


def give_up_by_word(lease: Lease[str]) -> None:
    """Give up a request by a word on its lease."""
    lease.cancel()


def give_up_by_error(lease: Lease[str]) -> None:
    """Give up a request as a cancelled task does."""
    with suppress(asyncio.CancelledError), lease:
        raise asyncio.CancelledError


def interrupted(lease: Lease[str]) -> None:
    """Give up a request by Ctrl-C."""
    with suppress(KeyboardInterrupt), lease:
        raise KeyboardInterrupt


@pytest.mark.parametrize("give_up", [give_up_by_word, give_up_by_error, interrupted])
@pytest.mark.parametrize(
    ("waited", "outcome"),
    [(1.9, Outcome.CANCELLED), (2.0, Outcome.FAILURE), (7.25, Outcome.FAILURE)],
)
def test_a_request_given_up_too_late_is_a_failure(
    give_up: Request, waited: float, outcome: Outcome
) -> None:
    """From ``hung_after`` seconds on, and for everybody: lease, health and metrics."""
    clock, events = ManualClock(), Events()
    balancer = Balancer(["a"], hung_after=2.0, clock=clock, metrics=events)
    lease = balancer.acquire()
    clock.advance(waited)
    give_up(lease)
    assert lease.outcome is outcome
    assert events.outcomes == [("a", outcome)]
    [status] = balancer.status()
    expected = f"1 failure, the last: no answer in {waited:.1f} s"
    assert status.health_reason == (expected if outcome is Outcome.FAILURE else None)
    assert status.in_flight == 0


def test_what_is_no_sign_of_a_hung_node() -> None:
    """An answer that has begun, another that was quicker, the caller's mistake, a lost lease."""
    clock = ManualClock()
    balancer = Balancer(["a"], hung_after=2.0, clock=clock, failures=OSError)

    def begun(lease: Lease[str]) -> None:
        lease.first_byte()
        clock.advance(60.0)
        lease.cancel()

    def quicker(lease: Lease[str]) -> None:
        clock.advance(60.0)
        assert lease.call_off() is True
        assert lease.call_off() is False

    def mistake(lease: Lease[str]) -> None:
        with suppress(ValueError), lease:
            clock.advance(60.0)
            raise ValueError

    for end in (begun, quicker, mistake):
        lease = balancer.acquire()
        end(lease)
        assert lease.outcome is Outcome.CANCELLED
    lost = [balancer.acquire()]
    clock.advance(60.0)
    with pytest.warns(ResourceWarning):
        lost.clear()
    assert failures(balancer) == {"a": 0}
    assert balancer.status()[0].in_flight == 0


def test_by_default_nothing_hangs() -> None:
    """Without ``hung_after`` a cancellation says nothing, however late it comes."""
    clock = ManualClock()
    balancer = Balancer(["a"], clock=clock)
    lease = balancer.acquire()
    clock.advance(1e6)
    lease.cancel()
    assert lease.outcome is Outcome.CANCELLED


@pytest.mark.parametrize("give_up", [give_up_by_word, interrupted, give_up_by_error])
def test_a_request_given_up_is_not_retried_although_it_failed(send: Send, give_up: Request) -> None:
    """The node has failed, the caller has gone."""
    clock = ManualClock()
    balancer = Balancer(["a", "b"], InOrder(), hung_after=2.0, clock=clock)
    leases: list[Lease[str]] = []

    def request(lease: Lease[str]) -> None:
        leases.append(lease)
        clock.advance(3.0)
        give_up(lease)

    send(balancer, request, retry_on=BaseException)
    assert [lease.outcome for lease in leases] == [Outcome.FAILURE]
    assert failures(balancer) == {"a": 1, "b": 0}


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt()])
def test_a_cancelled_attempt_that_hung_is_not_retried(error: BaseException) -> None:
    """Nor is one that was ended by the exception itself."""
    clock = ManualClock()
    balancer = Balancer(["a", "b"], InOrder(), hung_after=2.0, clock=clock)

    def request(lease: Lease[str]) -> None:
        clock.advance(3.0)
        raise error

    with pytest.raises(type(error)):
        send_sync(balancer, request, retry_on=BaseException)
    assert failures(balancer) == {"a": 1, "b": 0}


@pytest.mark.parametrize("seconds", [0, -1.0, math.nan, math.inf])
def test_hung_after_is_checked(seconds: float) -> None:
    """It is a finite number of seconds above 0."""
    with pytest.raises(ValueError, match=r"hung_after is .* a finite number of seconds above 0"):
        Balancer(["a"], hung_after=seconds)


def test_hung_after_is_a_number() -> None:
    """Anything else is a mistake in its type."""
    wrong: Any = "2"
    with pytest.raises(TypeError):
        Balancer(["a"], hung_after=wrong)
