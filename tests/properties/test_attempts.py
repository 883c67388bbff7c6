"""Rounds of attempts: what holds whatever fails, comes, goes and rests in the meantime."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from loadwise import Attempts, Backoff, Balancer, Lease, NoNodeAvailable, RetryBudget
from loadwise.testing import ManualClock

IDS = ("a", "b", "c", "d")
WORDS = ("success", "failure", "limited", "raise", "mistake", "remove", "slow")
BACKOFF = Backoff(base=1.0, cap=8.0, jitter=False)

Request = Callable[[Lease[str]], None]


def send_sync(attempts: Attempts[str], request: Request) -> None:
    """Send a request by ``with`` blocks."""
    for attempt in attempts:
        with attempt as lease:
            request(lease)


def send_async(attempts: Attempts[str], request: Request) -> None:
    """Send a request by ``async with`` blocks."""

    async def main() -> None:
        for attempt in attempts:
            async with attempt as lease:
                request(lease)

    asyncio.run(main())


class Fleet:
    """A fleet that does as a script says, on a clock that goes when it is waited."""

    def __init__(self, size: int, script: list[str]) -> None:
        self.clock = ManualClock()
        self.balancer = Balancer(IDS[:size], clock=self.clock)
        self.rounds: list[list[str]] = [[]]
        self.slept: list[float] = []
        self._words = iter(script)

    def sleep(self, seconds: float) -> None:
        """Wait for the next round."""
        self.slept.append(seconds)
        self.clock.advance(seconds)
        self.rounds.append([])

    async def sleep_async(self, seconds: float) -> None:
        """Wait for the next round."""
        self.sleep(seconds)

    def answer(self, lease: Lease[str]) -> None:
        """Do what the script says next."""
        self.rounds[-1].append(lease.node)
        word = next(self._words)
        if word == "failure":
            lease.failure()
        elif word == "limited":
            lease.rate_limited(5.0)
        elif word == "mistake":
            raise KeyError
        elif word != "success":
            if word == "remove":
                self.balancer.remove(lease.node)
            if word == "slow":
                self.clock.advance(7.0)
            raise ConnectionError


@given(
    script=st.lists(st.sampled_from(WORDS), min_size=12, max_size=12),
    n=st.integers(1, 12),
    size=st.integers(1, 4),
    deadline=st.none() | st.integers(1, 40),
    backoff=st.none() | st.just(BACKOFF),
    retries=st.none() | st.integers(0, 5),
    excluded=st.sets(st.sampled_from(IDS), max_size=2),
    send=st.sampled_from([send_sync, send_async]),
)
def test_rounds(
    script: list[str],
    n: int,
    size: int,
    deadline: int | None,
    backoff: Backoff | None,
    retries: int | None,
    excluded: set[str],
    send: Callable[[Attempts[str], Request], None],
) -> None:
    """No node twice in a round, no more than allowed, none past the deadline, nothing held."""
    fleet = Fleet(size, script)
    budget = None
    if retries is not None:
        # A floor of so many in a window that does not end.
        budget = RetryBudget(ratio=0.0, floor=retries / 1e6, window=1e6, clock=fleet.clock)
    attempts = fleet.balancer.attempts(
        n, OSError, deadline=deadline, backoff=backoff, budget=budget, exclude=excluded
    )
    if attempts.pacing is not None:
        attempts.pacing.sleep = fleet.sleep
        attempts.pacing.sleep_async = fleet.sleep_async

    def request(lease: Lease[str]) -> None:
        assert deadline is None or fleet.clock() < deadline
        assert lease.node not in fleet.rounds[-1]
        assert lease.node not in excluded
        fleet.answer(lease)

    with suppress(ConnectionError, KeyError, NoNodeAvailable):
        send(attempts, request)
    tried = sum(map(len, fleet.rounds))
    assert tried <= n
    assert retries is None or tried <= retries + 1
    assert backoff is not None or len(fleet.rounds) == 1
    assert all(pause >= min(8.0, 2.0**k) for k, pause in enumerate(fleet.slept))
    assert sum(status.in_flight for status in fleet.balancer.status()) == 0
