"""Which exceptions are the node's: the rule, where it is asked, and what it may be."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
from contextlib import suppress
from typing import Any

import pytest
from tests.balancer.blame.support import Send, failures, send_sync

from loadwise import (
    Balancer,
    Lease,
    NoNodeAvailable,
    Outcome,
)
from loadwise.testing import ManualClock

# Which exceptions are the node's.


@pytest.mark.parametrize(
    ("rule", "error", "outcome"),
    [
        (OSError, ConnectionError(), Outcome.FAILURE),
        (OSError, ValueError(), Outcome.CANCELLED),
        ((OSError, KeyError), KeyError(), Outcome.FAILURE),
        ((), OSError(), Outcome.CANCELLED),
        (BaseException, ValueError(), Outcome.FAILURE),
        (BaseException, KeyboardInterrupt(), Outcome.CANCELLED),
        (BaseException, GeneratorExit(), Outcome.CANCELLED),
        (BaseException, asyncio.CancelledError(), Outcome.CANCELLED),
        (BaseException, concurrent.futures.CancelledError(), Outcome.CANCELLED),
        (lambda error: isinstance(error, OSError), TimeoutError(), Outcome.FAILURE),
        (lambda error: isinstance(error, OSError), ValueError(), Outcome.CANCELLED),
        (lambda _: Outcome.FAILURE, ValueError(), Outcome.FAILURE),
        (lambda _: Outcome.CANCELLED, OSError(), Outcome.CANCELLED),
        (lambda _: Outcome.SUCCESS, LookupError("404"), Outcome.SUCCESS),
        (lambda _: Outcome.RATE_LIMITED, OSError("429"), Outcome.RATE_LIMITED),
    ],
)
def test_failures_say_which_exceptions_are_the_nodes(
    rule: Any, error: BaseException, outcome: Outcome
) -> None:
    """All others end the lease as cancelled; the exception goes on as it is."""
    clock = ManualClock()
    balancer = Balancer(["a"], failures=rule, clock=clock)
    lease = balancer.acquire()
    with pytest.raises(type(error)) as caught, lease:
        raise error
    assert caught.value is error
    assert lease.outcome is outcome
    assert failures(balancer) == {"a": int(outcome is Outcome.FAILURE)}
    if outcome is Outcome.RATE_LIMITED:
        with pytest.raises(NoNodeAvailable) as refused:
            balancer.acquire()
        assert refused.value.retry_after == 1.0
    else:
        balancer.acquire().success()


def test_an_async_block_asks_the_rule_too() -> None:
    """``async with`` on a lease judges like ``with``."""

    async def main() -> Lease[str]:
        lease = Balancer(["a"], failures=OSError).acquire()
        with suppress(ValueError):
            async with lease:
                raise ValueError
        return lease

    assert asyncio.run(main()).outcome is Outcome.CANCELLED


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError(), SystemExit()])
def test_a_rule_is_not_asked_of_cancellations_or_after_a_word(error: BaseException) -> None:
    """They are nobody's failure, and the first word counts."""

    def rule(error: Exception) -> bool:
        raise AssertionError(error)

    balancer = Balancer(["a"], failures=rule)
    with pytest.raises(type(error)), balancer.acquire():
        raise error
    lease = balancer.acquire()
    lease.failure("status 503")
    with pytest.raises(ValueError, match="mine"), lease:
        raise ValueError("mine")
    assert lease.outcome is Outcome.FAILURE


async def later(error: Exception) -> bool:
    """Judge an exception where nobody waits for it."""
    return bool(error)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("answer", [None, 1, "failure", OSError, later])
@pytest.mark.parametrize("loop", [False, True], ids=["acquire", "attempts"])
def test_a_rule_that_returns_nonsense_is_told_so(answer: Any, *, loop: bool) -> None:
    """The lease is ended as cancelled, and the original exception is the cause of the error."""

    def rule(error: Exception) -> Any:
        return later(error) if answer is later else answer

    balancer = Balancer(["a", "b"], failures=rule)
    error = OSError("lost")
    leases: list[Lease[str]] = []

    def request(lease: Lease[str]) -> None:
        leases.append(lease)
        raise error

    def send() -> None:
        with balancer.acquire() as lease:
            request(lease)

    with pytest.raises(TypeError, match="must return an Outcome or a bool") as caught:
        send_sync(balancer, request) if loop else send()
    assert caught.value.__cause__ is error
    assert repr(error) in str(caught.value)
    assert [lease.outcome for lease in leases] == [Outcome.CANCELLED]
    # A coroutine that nobody awaits is warned of as it goes.
    del caught
    gc.collect()


def test_a_rule_that_raises_ends_the_lease_as_cancelled() -> None:
    """Its error is raised, and tells during which one it came."""

    def rule(error: Exception) -> bool:
        raise LookupError("no such code")

    balancer = Balancer(["a"], failures=rule, hung_after=1.0, clock=ManualClock())
    error = OSError("lost")
    with pytest.raises(LookupError) as caught, balancer.acquire() as lease:
        raise error
    assert caught.value.__context__ is error
    assert lease.outcome is Outcome.CANCELLED
    assert balancer.status()[0].in_flight == 0


class Async:
    """A rule by being callable, but to be awaited."""

    async def __call__(self, error: Exception) -> bool:
        """Judge an exception."""
        return True


@pytest.mark.parametrize(
    "rule", [int, (OSError, 5), (OSError, int), [OSError], None, "OSError", 503, OSError("x")]
)
def test_a_rule_that_is_none_is_refused(rule: Any) -> None:
    """What is neither exception types nor a function is told at construction."""
    with pytest.raises(TypeError, match=r"failures is .* must be an exception type, a tuple"):
        Balancer(["a"], failures=rule)


@pytest.mark.parametrize("rule", [later, Async()])
def test_a_rule_to_be_awaited_is_refused(rule: Any) -> None:
    """The end of a block cannot wait."""
    with pytest.raises(TypeError, match=r"failures is .*, which is to be awaited"):
        Balancer(["a"], failures=rule)


@pytest.mark.parametrize(
    ("retry_on", "error", "outcome"),
    [
        (ConnectionError, ConnectionResetError(), Outcome.FAILURE),
        (ConnectionError, TimeoutError(), Outcome.FAILURE),
        (ConnectionError, OSError(), Outcome.FAILURE),
        (ConnectionError, ValueError(), Outcome.CANCELLED),
        ((), OSError(), Outcome.FAILURE),
        ((LookupError, ValueError), KeyError(), Outcome.FAILURE),
        ((LookupError, ValueError), TypeError(), Outcome.CANCELLED),
        (Exception, TypeError(), Outcome.FAILURE),
    ],
)
def test_in_a_loop_the_nodes_are_those_worth_a_retry(
    send: Send, retry_on: Any, error: Exception, outcome: Outcome
) -> None:
    """Where the balancer has no rule: ``retry_on``, OSError and TimeoutError."""
    balancer = Balancer(["a"])
    leases: list[Lease[str]] = []

    def request(lease: Lease[str]) -> None:
        leases.append(lease)
        raise error

    with pytest.raises(type(error)):
        send(balancer, request, retry_on=retry_on)
    assert [lease.outcome for lease in leases] == [outcome]


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [
        (Exception, Outcome.FAILURE),
        (ConnectionError, Outcome.CANCELLED),
        (lambda _: Outcome.SUCCESS, Outcome.SUCCESS),
        (lambda _: Outcome.RATE_LIMITED, Outcome.RATE_LIMITED),
    ],
)
def test_a_rule_of_the_balancers_holds_in_its_loops(
    send: Send, rule: Any, outcome: Outcome
) -> None:
    """What is retried is another matter: ``retry_on`` says so, whoever is to blame."""
    balancer = Balancer(["a", "b", "c"], failures=rule)
    outcomes: list[Outcome | None] = []

    def fail(lease: Lease[str]) -> None:
        leases.append(lease)
        raise KeyError

    for retry_on, attempts in ((ValueError, 1), (LookupError, 2)):
        leases: list[Lease[str]] = []
        with pytest.raises(KeyError):
            send(balancer, fail, 2, retry_on=retry_on)
        assert len(leases) == attempts
        outcomes += [lease.outcome for lease in leases]
        balancer = Balancer(["a", "b", "c"], failures=rule)
    assert outcomes == [outcome] * 3
