"""The retry budget: what it allows, for how long, and that threads cannot overdraw it."""

from __future__ import annotations

import math
import multiprocessing
import os
from threading import Barrier, Event, Thread

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loadwise.retry_budget import RetryBudget
from loadwise.testing import ManualClock


def withdraw_all(budget: RetryBudget, at_most: int = 10_000) -> int:
    """Withdraw until it is refused, and return how often it was not."""
    return next(n for n in range(at_most) if not budget.try_withdraw())


@pytest.mark.parametrize(
    ("ratio", "floor", "window", "requests", "allowed"),
    [
        (0.2, 10.0, 10.0, 0, 100),
        (0.2, 10.0, 10.0, 50, 110),
        (0.2, 0.0, 10.0, 4, 0),
        (0.2, 0.0, 10.0, 5, 1),
        (0.5, 0.0, 60.0, 9, 4),
        (2.0, 0.0, 1.0, 3, 6),
        (0.0, 2.5, 2.0, 1_000, 5),
        (0.0, 0.0, 10.0, 1_000, 0),
    ],
)
def test_a_share_of_the_requests_and_a_floor(
    ratio: float, floor: float, window: float, requests: int, allowed: int
) -> None:
    """Retries are allowed up to ratio * requests + floor * window.

    Source: Finagle's RetryBudget: 20 %, 10 per second and a time to live of 10 s by default.
    """
    budget = RetryBudget(ratio, floor, window, clock=ManualClock())
    for _ in range(requests):
        budget.deposit()
    assert budget.balance() == pytest.approx(floor * window + ratio * requests)
    assert withdraw_all(budget) == allowed
    assert 0 <= budget.balance() < 1


def test_defaults_are_finagles() -> None:
    """Without arguments: 20 % of the requests and 10 per second, over 10 s."""
    clock = ManualClock()
    budget = RetryBudget(clock=clock)
    for _ in range(50):
        budget.deposit()
    assert withdraw_all(budget) == 110
    clock.advance(9.9)
    assert not budget.try_withdraw()
    clock.advance(0.1)
    assert withdraw_all(budget) == 100


def test_a_balance_is_never_negative() -> None:
    """Requests may be forgotten before the retries they paid for; that leaves nothing, not less."""
    clock = ManualClock()
    budget = RetryBudget(ratio=1.0, floor=0.0, window=10.0, clock=clock)
    for _ in range(4):
        budget.deposit()
    clock.advance(9.0)
    assert withdraw_all(budget) == 4
    clock.advance(1.5)
    assert budget.balance() == 0.0
    for _ in range(5):
        budget.deposit()
    assert withdraw_all(budget) == 1


STEPS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6), st.integers(0, 6)), max_size=60)


@given(ratio=st.sampled_from([0.0, 0.25, 0.5, 1.0]), floor=st.integers(0, 2), steps=STEPS)
@example(ratio=0.25, floor=0, steps=[(9, 1, 0)] * 40 + [(0, 0, 6)])
@settings(max_examples=300, deadline=None)
def test_against_a_full_log(ratio: float, floor: int, steps: list[tuple[int, int, int]]) -> None:
    """What is granted keeps within the bound, and what is refused would have broken it.

    Windows slide by tenths, so a request or retry counts for one window at least and for a tenth
    of a window more at most. Times are multiples of 1/8 s, so that sums are exact.
    """
    clock, window = ManualClock(), 10.0
    budget = RetryBudget(ratio, floor, window, clock=clock)
    requests: list[float] = []
    granted: list[float] = []

    def since(log: list[float], seconds: float) -> int:
        return sum(moment > clock() - seconds for moment in log)

    for wait, deposits, withdrawals in steps:
        clock.advance(wait / 8)
        for _ in range(deposits):
            budget.deposit()
            requests.append(clock())
        for _ in range(withdrawals):
            if budget.try_withdraw():
                granted.append(clock())
                allowed = floor * window + ratio * since(requests, 1.1 * window)
                assert since(granted, window) <= allowed
            else:
                allowed = floor * window + ratio * since(requests, window)
                assert since(granted, 1.1 * window) + 1 > allowed


def test_threads_cannot_overdraw_it() -> None:
    """Eight threads that withdraw at once get what one would get; no deposit is lost."""
    budget = RetryBudget(ratio=0.5, floor=0.0, clock=ManualClock())
    barrier = Barrier(8)
    granted: list[int] = []

    def work() -> None:
        barrier.wait(10)
        for _ in range(500):
            budget.deposit()
        barrier.wait(10)
        granted.append(sum(budget.try_withdraw() for _ in range(500)))

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sum(granted) == 2_000


def test_deposits_alone_do_not_pile_up() -> None:
    """A program that never retries keeps no more of its past than a window's worth."""
    clock = ManualClock()
    budget = RetryBudget(clock=clock)
    for _ in range(1_000):
        clock.advance(1.0)
        budget.deposit()
    assert len(budget._requests.buckets) <= 12
    assert budget.balance() == pytest.approx(100 + 0.2 * 10)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_goes_on_with_its_copy() -> None:
    """A lock held by another thread at the fork holds up no child, and the counts go on."""
    budget = RetryBudget(ratio=0.0, floor=0.3, window=10.0, clock=ManualClock())
    assert budget.try_withdraw()
    held, done = Event(), Event()

    def hold() -> None:
        with budget._lock:
            held.set()
            done.wait(20)

    def child() -> None:
        os._exit(withdraw_all(budget))

    thread = Thread(target=hold)
    thread.start()
    assert held.wait(10)
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(20)
    process.kill()
    done.set()
    thread.join(10)
    assert process.exitcode == 2, "the child waits for a lock that nobody will release"
    assert withdraw_all(budget) == 2


@pytest.mark.parametrize("name", ["ratio", "floor", "window"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_arguments_are_checked(name: str, value: float) -> None:
    """Numbers that are negative or not finite are refused by name; so is a window of 0."""
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        RetryBudget(**{name: value})  # type: ignore[arg-type]  # the clock is not among them
    with pytest.raises(ValueError, match=r"window is 0\.0"):
        RetryBudget(window=0.0)
