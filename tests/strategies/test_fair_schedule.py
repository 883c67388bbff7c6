"""The proportionate fair schedule: how far from proportional it ever gets."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable
from threading import Barrier, Lock, Thread
from types import FrameType
from typing import Any

import pytest
from tests.compiled import COMPILED
from tests.strategies.support import fair_sequence, furthest_from_proportional, shares

from loadwise.strategies._fair_schedule import FairSchedule

TraceFunction = Callable[[FrameType, str, Any], Any]  # as the standard library's stubs have it


def take(schedule: FairSchedule, count: int) -> list[int]:
    """Return the next picks."""
    return [schedule.pick() for _ in range(count)]


@pytest.mark.parametrize(
    ("weights", "count"),
    [
        ([1000.0, *[1.0] * 1000], 6000),
        ([1.0] * 500 + [500.0] + [1.0] * 500, 6000),
        ([65_536, 1], 70_000),
        ([math.pi, math.e, 1.0, 0.1], 20_000),
        ([1 / 3] * 7, 10_000),
        ([2.0**i for i in range(12)], 20_000),
        ([1e-300, 3e-300], 10_000),
        ([3.3000000000000003, 1.1, 2.2, 1.1], 10_000),
    ],
    ids=[
        "1000:1x1000",
        "heavy-in-the-middle",
        "65536:1",
        "odd",
        "thirds",
        "powers",
        "tiny",
        "rounded-past-a-deadline",
    ],
)
def test_never_more_than_a_pick_from_proportional(weights: list[float], count: int) -> None:
    """No node is more than one pick from its share, either way, at any prefix.

    That is the bound of Baruah et al., "Proportionate progress", Algorithmica 1996. Without the
    releases 1000 : 1 x 1000 starts with a burst of a thousand (envoy#31378). The margin is for
    periods, which are rounded.
    """
    chosen = take(FairSchedule(range(len(weights)), weights), count)
    behind, ahead = furthest_from_proportional(chosen, weights)
    assert behind < 1 + 1e-6
    assert ahead < 1 + 1e-6


@pytest.mark.parametrize(
    "weights",
    [[math.pi, math.e, 1.0, 0.1], [1 / 3] * 7, [2.0**i for i in range(12)], [5.0], [70_000, 1, 9]],
    ids=["odd", "thirds", "powers", "alone", "whole"],
)
def test_it_is_the_sequence_of_the_definition(weights: list[float]) -> None:
    """However many picks are laid out at once, they are those that one step at a time gives."""
    schedule = FairSchedule(range(len(weights)), weights)
    assert take(schedule, 1500) == fair_sequence(weights, 1500)


class CountingLock:
    """A lock that counts how often it is taken."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.taken = 0

    def __enter__(self) -> None:
        self._lock.acquire()
        self.taken += 1

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_most_picks_take_no_lock() -> None:
    """Of 640 picks 10 take the lock."""
    schedule, lock = FairSchedule(range(3), [3.0, 2.0, 0.5]), CountingLock()
    schedule._lock = lock  # type: ignore[assignment]  # to be counted
    take(schedule, 640)
    assert lock.taken == 10


def test_every_cycle_of_whole_weights_is_complete() -> None:
    """Whole weights that no table may hold are served exactly over each W picks."""
    weights = [70_000, 20_000, 10_000, 1]
    schedule = FairSchedule(range(4), weights)
    for _ in range(2):
        assert shares(take(schedule, sum(weights)), 4) == weights


def test_only_the_eligible_take_part() -> None:
    """Indices that are not eligible are neither picked nor counted as competition."""
    chosen = take(FairSchedule([1, 3], [9.0, 1.0, 9.0, 2.0]), 300)
    assert shares(chosen, 4) == [0, 100, 0, 200]


@pytest.mark.parametrize("tiny", [5e-324, 1e-300])
def test_a_weight_too_small_to_count_harms_nothing(tiny: float) -> None:
    """A share that rounds to nothing leaves all picks to the others, and raises nothing."""
    assert shares(take(FairSchedule([0, 1], [1e300, tiny]), 1000), 2) == [1000, 0]
    assert shares(take(FairSchedule([0, 1], [tiny, tiny]), 1000), 2) == [500, 500]


def test_huge_weights_do_not_overflow() -> None:
    """Weights whose sum is no finite float are served in proportion all the same."""
    assert shares(take(FairSchedule([0, 1], [1.5e308, 0.5e308]), 1000), 2) == [750, 250]
    assert shares(take(FairSchedule([0, 1], [3 * 10**400, 10**400]), 1000), 2) == [750, 250]


@pytest.mark.skipif(COMPILED, reason="compiled lines cannot be traced")
@pytest.mark.parametrize("step", [*range(40), *range(40, 900, 37)])
def test_ctrl_c_amid_the_lay_out_breaks_nothing(step: int) -> None:
    """Wherever Ctrl-C strikes, the sequence goes on, or begins anew."""
    weights = [math.pi, math.e, 1.0, 0.1]
    schedule, steps = FairSchedule(range(4), weights), itertools.count()

    def strike(frame: FrameType, event: str, _: object) -> TraceFunction | None:
        if frame.f_code.co_name != "_lay_out":
            return None
        if event == "line" and next(steps) == step:
            raise KeyboardInterrupt
        return strike

    before = sys.gettrace()
    sys.settrace(strike)
    try:
        with pytest.raises(KeyboardInterrupt):
            schedule.pick()
    finally:
        sys.settrace(before)
    sequence = fair_sequence(weights, 464)
    assert take(schedule, 400) in (sequence[:400], sequence[64:])


@pytest.mark.parametrize("taken", [0, 1, 5, 63, 64, 65, 127, 128, 200])
def test_a_copy_goes_on_alone(taken: int) -> None:
    """A copy continues the sequence from wherever it was, and neither disturbs the other."""
    weights = [3.0, 2.0, 0.5]
    expected = fair_sequence(weights, taken + 150)[taken:]
    schedule = FairSchedule(range(3), weights)
    take(schedule, taken)
    copied = schedule.copy()
    assert take(copied, 150) == expected
    assert take(schedule, 150) == expected


@pytest.mark.usefixtures("restless")
def test_a_copy_amid_picks_is_a_moment_of_the_sequence() -> None:
    """What a copy holds fits together, whatever other threads take while it is made."""
    weights = [math.pi, math.e, 1.0, 0.1]
    sequence = fair_sequence(weights, 4 * 1000 + 100)
    moments = {tuple(sequence[start : start + 100]) for start in range(4001)}
    schedule = FairSchedule(range(4), weights)
    workers = [Thread(target=take, args=(schedule, 1000)) for _ in range(4)]
    for worker in workers:
        worker.start()
    copies = [schedule.copy()]
    while any(worker.is_alive() for worker in workers):
        copies.append(schedule.copy())
    for worker in workers:
        worker.join(timeout=30)
    assert {tuple(take(copied, 100)) for copied in copies} <= moments
    assert take(schedule, 100) == sequence[4000:]


@pytest.mark.usefixtures("restless")
def test_threads_never_find_it_empty() -> None:
    """While one thread is amid a pick of the only node, others wait for it to be there again."""
    schedule = FairSchedule([1], [0.0, 0.5])
    begin = Barrier(8)
    chosen: list[list[int]] = []

    def work() -> None:
        begin.wait(timeout=30)
        chosen.append(take(schedule, 10_000))

    workers = [Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=30)
    assert chosen == [[1] * 10_000] * 8
