"""The collector may strike at any line of the library, and end what itself asks for nodes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from tests.balancer.test_dead_waiters import in_time
from tests.compiled import COMPILED

import loadwise
from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    ConsistentHash,
    Endpoint,
    HealthTracker,
    InFlight,
    Lease,
    LeastLoad,
    NoNodeAvailable,
    PeakEwma,
    PowerOfTwoChoices,
    QuotaTracker,
    RetryBudget,
    RoundRobin,
    Strategy,
    WeightedRoundRobin,
    by_zone,
)
from loadwise.testing import VirtualClock

_LIBRARY = str(Path(loadwise.__file__).parent)


class Fleet:
    """A balancer with everything, and what may be done with it."""

    def __init__(self, strategy: Strategy[Endpoint]) -> None:
        self.clock = VirtualClock()
        policy = ConsecutiveFailurePolicy(2, probe_interval=1.0)
        self.health = HealthTracker(policy=policy, clock=self.clock)
        self.balancer = Balancer(
            self.nodes(0),
            strategy,
            health=self.health,
            quota=QuotaTracker(self.clock),
            max_in_flight=2,
        )
        self._budget = RetryBudget(0.5, clock=self.clock)
        self._numbers = count()

    @staticmethod
    def nodes(turn: int) -> list[Endpoint]:
        return [Endpoint(f"n{i}", weight=1 + (i + turn) % 3, zone=f"z{i % 2}") for i in range(4)]

    def one_fails(self) -> None:
        self.balancer.acquire(hash_key="a", exclude={"n0"}).failure("refused")

    def one_is_limited(self) -> None:
        self.balancer.acquire(hash_key="b", where=by_zone("z1")).rate_limited(0.5)

    def one_is_tried_again(self) -> None:
        def fail_first(_node: Endpoint) -> None:
            if next(self._numbers) % 2:
                raise OSError

        self.balancer.call(fail_first, hash_key="c", budget=self._budget)

    def one_waits(self) -> None:
        held: list[Lease[Endpoint]] = []
        with suppress(NoNodeAvailable):
            while True:
                held.append(self.balancer.acquire(hash_key="d"))
        with suppress(NoNodeAvailable):
            self.balancer.acquire(hash_key="e", timeout=1e-9).success()
        for lease in held:
            lease.success()

    def members_change(self) -> None:
        self.balancer.replace(self.nodes(next(self._numbers)))
        self.balancer.drain("n1")
        self.balancer.resume("n1")

    def somebody_looks(self) -> None:
        self.balancer.status_dict()
        self.balancer.explain(hash_key="f")

    def anything_is_collected(self) -> None:
        for work in (self.one_fails, self.one_is_limited, self.one_is_tried_again):
            with suppress(NoNodeAvailable, OSError):
                work()
        self.clock.advance(0.3)
        self.somebody_looks()


def strike(place: int, work: Callable[[], object], collected: Callable[[], object]) -> bool:
    """Do something in the midst of something else, at a line of the library by its number.

    Returns:
        Whether there are so many lines.
    """
    lines, struck = count(), False

    def at_line(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal struck
        if event == "line" and not struck and next(lines) == place:
            struck = True
            sys.settrace(None)
            collected()
        return at_line

    def at_call(frame: FrameType, _event: str, _argument: Any) -> Any:
        return at_line if frame.f_code.co_filename.startswith(_LIBRARY) and not struck else None

    before = sys.gettrace()
    sys.settrace(at_call)
    try:
        work()
    finally:
        sys.settrace(before)
    return struck


STRATEGIES: list[Callable[[], Strategy[Endpoint]]] = [
    RoundRobin,
    WeightedRoundRobin,
    lambda: PowerOfTwoChoices(load=PeakEwma()),
    lambda: LeastLoad(load=InFlight()),
    lambda: ConsistentHash(virtual_nodes=4),
]
WORK = [
    Fleet.one_fails,
    Fleet.one_is_limited,
    Fleet.one_is_tried_again,
    Fleet.one_waits,
    Fleet.members_change,
    Fleet.somebody_looks,
]


@pytest.fixture(autouse=True)
def _coverage_goes_on() -> Iterator[None]:
    before = sys.gettrace()
    yield
    sys.settrace(before)


@pytest.mark.skipif(COMPILED, reason="compiled code has no lines")
@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_requests_of_what_is_collected_disturb_nobody(
    strategy: Callable[[], Strategy[Endpoint]], work: Callable[[Fleet], None]
) -> None:
    """Neither does one lock out the other, nor does it break what the other is in the midst of."""

    def everywhere() -> int:
        place, struck = STRATEGIES.index(strategy), True
        while struck:
            fleet = Fleet(strategy())
            fleet.health.report_failure("n2")
            fleet.health.report_failure("n2")
            with suppress(NoNodeAvailable, OSError):
                struck = strike(place, lambda: work(fleet), fleet.anything_is_collected)  # noqa: B023
            fleet.clock.advance(10.0)
            for _ in range(2):
                fleet.balancer.acquire(hash_key="z").success()
            assert not fleet.balancer.waiting
            assert not any(status.in_flight for status in fleet.balancer.status())
            place += 31
            assert place < 20_000
        return place

    assert in_time(everywhere) > 100
