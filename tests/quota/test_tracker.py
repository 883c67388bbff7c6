"""Reservations, cooldowns, errors, threads and forks of the quota tracker.

That windows slide as they should is compared with a full log in tests/properties.
"""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Thread, current_thread
from typing import Any, TypeVar

import pytest

from loadwise import (
    Balancer,
    Endpoint,
    LoadwiseError,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    Reservation,
)
from loadwise.testing import ManualClock

THREADS = 8
TIMEOUT = 30.0

T = TypeVar("T")


@pytest.fixture
def clock() -> ManualClock:
    """A clock at 0 seconds."""
    return ManualClock()


@pytest.fixture
def quota(clock: ManualClock) -> QuotaTracker:
    """Node "a" may get 10 requests (1 each) and 100 tokens (5 each) per minute."""
    quota = QuotaTracker(clock)
    requests, tokens = QuotaDimension("rpm", 10), QuotaDimension("tpm", 100, default_cost=5)
    quota.register("a", QuotaConfig([requests, tokens]))
    return quota


def reserve(quota: QuotaTracker, **amounts: float) -> Reservation:
    """Return a reservation on node "a" that must be granted."""
    reservation = quota.try_acquire("a", amounts)
    assert reservation is not None
    return reservation


def left(quota: QuotaTracker) -> tuple[float, float]:
    """Return how many requests and tokens node "a" has left."""
    return quota.remaining("a", "rpm"), quota.remaining("a", "tpm")


def together(work: Callable[[], T]) -> list[T]:
    """Return what ``work`` returns in each of 8 threads that start together and switch often."""
    barrier = Barrier(THREADS)

    def start(_: int) -> T:
        barrier.wait(TIMEOUT)
        return work()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(start, range(THREADS)))
    finally:
        sys.setswitchinterval(interval)


def test_no_double_allowance_at_a_minute_boundary(quota: QuotaTracker, clock: ManualClock) -> None:
    """10 requests at second 59 leave none at second 61; a calendar minute would allow 10 more."""
    clock.advance(59.0)
    assert all(quota.try_acquire("a") for _ in range(10))
    clock.advance(2.0)
    assert quota.try_acquire("a") is None
    assert quota.available_at("a") == 119.0
    clock.now = 119.0
    assert quota.try_acquire("a") is not None


def test_default_costs_are_charged_where_no_amount_is_named(quota: QuotaTracker) -> None:
    """A dimension that is not named costs its default; 0 is an amount like any other."""
    assert reserve(quota).amounts == {"rpm": 1, "tpm": 5}
    reservation = reserve(quota, tpm=0)
    assert (reservation.node_id, reservation.amounts) == ("a", {"rpm": 1, "tpm": 0})
    assert quota.record_usage("a", {"tpm": 20})
    assert left(quota) == (8, 75)
    assert quota.remaining_by_dimension("a") == {"rpm": 8, "tpm": 75}


def test_what_does_not_fit_in_all_dimensions_is_charged_in_none(quota: QuotaTracker) -> None:
    """Without tokens for it, a request is not charged either; at the limit exactly it fits."""
    reserve(quota, tpm=60)
    assert quota.try_acquire("a", {"tpm": 41}) is None
    assert left(quota) == (9, 40)
    reserve(quota, tpm=40)
    assert left(quota) == (8, 0)
    assert quota.available_at("a", {"tpm": 101}) == math.inf


def test_settling_replaces_what_was_reserved(quota: QuotaTracker) -> None:
    """Less is given back at once, more is charged even above the limit, the rest stays."""
    low, high = reserve(quota, tpm=50), reserve(quota, tpm=50)
    assert not quota.is_available("a")
    low.settle({"tpm": 20})
    assert quota.is_available("a")
    assert left(quota) == (8, 30)
    high.settle({"tpm": 90, "rpm": 1})
    assert left(quota) == (8, 0)
    assert not quota.is_available("a")


def test_a_reservation_ends_once(quota: QuotaTracker) -> None:
    """A second settle raises, cancel after the end does nothing, cancel gives all back."""
    settled, cancelled = reserve(quota), reserve(quota, tpm=40)
    settled.settle({})
    assert left(quota) == (8, 55)
    with pytest.raises(LoadwiseError, match="on node 'a' has already been settled or cancelled"):
        settled.settle({"tpm": 0})
    settled.cancel()
    cancelled.cancel()
    cancelled.cancel()
    with pytest.raises(LoadwiseError, match="already"):
        cancelled.settle({"tpm": 1})
    assert left(quota) == (9, 95)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (lambda reservation: reservation.settle({"tpm": 0}), (10, 100)),
        (lambda reservation: reservation.settle({"tpm": 70}), (10, 70)),
        (lambda reservation: reservation.cancel(), (10, 100)),
    ],
    ids=["less", "more", "cancel"],
)
def test_reservations_settle_after_they_have_expired(
    quota: QuotaTracker,
    clock: ManualClock,
    end: Callable[[Reservation], None],
    expected: tuple[float, float],
) -> None:
    """What has left the window is not given back twice; what was used beyond it counts now."""
    reservation = reserve(quota, tpm=40)
    clock.advance(1000.0)
    end(reservation)
    assert left(quota) == expected


def test_reservations_outlive_their_node(quota: QuotaTracker) -> None:
    """Settling after the node has left, or has come back anew, gives nothing back."""
    first, second = reserve(quota), reserve(quota)
    quota.remove("a")
    first.settle({"tpm": 1})
    quota.register("a", QuotaConfig([QuotaDimension("rpm", 3), QuotaDimension("tpm", 100)]))
    reserve(quota)
    second.cancel()
    assert left(quota) == (2, 99)


@pytest.mark.parametrize(
    "end",
    [
        lambda reservation: reservation.settle({"rpm": 0, "tpm": 30}),
        lambda reservation: reservation.cancel(),
    ],
    ids=["settle", "cancel"],
)
def test_reservations_outlive_their_dimensions(
    quota: QuotaTracker, end: Callable[[Reservation], None]
) -> None:
    """A limit lifted meanwhile needs no settling, and does not stop the others from it."""
    reservation = reserve(quota, tpm=40)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", 10)]))
    end(reservation)
    assert quota.remaining("a", "rpm") == 10


def test_a_pause(quota: QuotaTracker, clock: ManualClock) -> None:
    """A node is on cooldown, registered or not; of two cooldowns the one that ends later holds."""
    for identity in ("a", "unregistered"):
        quota.mark_exhausted(identity, 30.0)
        quota.mark_exhausted(identity, 10.0)
    clock.advance(29.0)
    for identity in ("a", "unregistered"):
        assert not quota.is_available(identity)
        assert quota.try_acquire(identity) is None
        assert quota.cooldown_until(identity) == quota.available_at(identity) == 30.0
    assert sorted(map(str, quota.unavailable())) == ["a", "unregistered"]
    assert left(quota) == (10, 100)
    clock.advance(1.0)
    assert quota.unavailable() == []
    for identity in ("a", "unregistered"):
        assert quota.cooldown_until(identity) is None
        assert quota.try_acquire(identity) is not None


def test_a_cooldown_of_no_time_ends_one_under_way(quota: QuotaTracker) -> None:
    """`mark_exhausted(id, 0)` lifts a cooldown, as `lift` does; without one it changes nothing."""
    for identity in ("a", "unregistered"):
        quota.mark_exhausted(identity, 30.0)
        quota.mark_exhausted(identity, 0)
        assert quota.cooldown_until(identity) is None
        assert quota.is_available(identity)
    version = quota.version
    quota.mark_exhausted("a", 0.0)
    assert quota.version == version


def test_a_refusal_without_a_wait_ends_no_cooldown(clock: ManualClock) -> None:
    """A node whose cooldown is to take no time goes on with what another request was told."""
    quota = QuotaTracker(clock)
    balancer = Balancer(["a"], quota=quota, clock=clock)
    first, second = balancer.acquire(), balancer.acquire()
    first.rate_limited(30.0)
    second.rate_limited(0.0)
    assert quota.cooldown_until("a") == 30.0


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_refuses_a_pause_that_makes_no_sense(quota: QuotaTracker, seconds: float) -> None:
    """A cooldown that is negative, NaN or infinite is refused with its value."""
    with pytest.raises(ValueError, match=f"seconds is {seconds}; it must be finite"):
        quota.mark_exhausted("a", seconds)
    assert quota.is_available("a")


def test_without_limits_nothing_is_counted(quota: QuotaTracker) -> None:
    """An unregistered node is unlimited, and record_usage says that there was nothing to do."""
    for _ in range(1_000):
        assert not quota.record_usage("free", {"rpm": 1e9})
        reservation = quota.try_acquire("free", {"rpm": 1e9})
        assert reservation is not None
        assert reservation.amounts == {}
        reservation.settle({"rpm": 2e9})
    assert quota.is_available("free")
    assert quota.remaining("free", "rpm") == math.inf
    assert quota.remaining_by_dimension("free") == {}
    assert quota.available_at("free", {"rpm": 1e9}) == 0.0


def test_registering_again_keeps_what_was_used(quota: QuotaTracker, clock: ManualClock) -> None:
    """New limits hold at once, for use before as well; a new dimension begins empty."""
    reservation = reserve(quota, rpm=6, tpm=5)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", 6), QuotaDimension("images", 3)]))
    assert quota.remaining_by_dimension("a") == {"rpm": 0, "images": 3}
    assert not quota.is_available("a")
    reservation.settle({"rpm": 4})
    assert quota.remaining("a", "rpm") == 2
    clock.advance(60.0)
    assert quota.remaining("a", "rpm") == 6


def test_a_shorter_window_holds_at_once(clock: ManualClock) -> None:
    """After an hourly limit has become one per minute, use is given back by the minute.

    2 requests a minute are far below 100, for however long they go on.
    """
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", 100, 3600.0, 1)]))
    reserve(quota)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", 100, 60.0, 6)]))
    for _ in range(110):
        clock.advance(30.0)
        assert quota.try_acquire("a") is not None
    assert quota.remaining("a", "rpm") >= 97


def test_removing_forgets_use_and_pause(quota: QuotaTracker) -> None:
    """A node that has left is unlimited, and starts anew when it comes back."""
    quota.record_usage("a", {"rpm": 10})
    quota.mark_exhausted("a", 30.0)
    version = quota.version
    quota.remove("a")
    quota.remove("never seen")
    assert quota.is_available("a")
    assert quota.version != version
    assert quota.remaining("a", "rpm") == math.inf
    quota.register("a", QuotaConfig([QuotaDimension("rpm", 10)]))
    assert quota.remaining("a", "rpm") == 10


def test_record_usage_ignores_unknown_dimensions(quota: QuotaTracker) -> None:
    """As in the crate (docs.rs, record_usage: "silently ignored"); the others are charged."""
    assert quota.record_usage("a", {"rpm": 2, "images": 1})
    assert left(quota) == (8, 100)


def test_a_dimension_of_other_nodes_is_free(quota: QuotaTracker) -> None:
    """In a mixed fleet a request may name what only other nodes limit; the rest is charged."""
    quota.register("other", QuotaConfig([QuotaDimension("images", 5)]))
    assert quota.record_usage("a", {"rpm": 2, "images": 1})
    assert quota.try_acquire("a", {"images": 99}) is not None
    assert left(quota)[0] == 7


@pytest.mark.parametrize(
    "use",
    [
        lambda quota, amounts: quota.try_acquire("a", amounts),
        lambda quota, amounts: (quota.mark_exhausted("a", 5.0), quota.try_acquire("a", amounts)),
        lambda quota, amounts: quota.remaining("a", next(iter(amounts))),
        lambda quota, amounts: reserve(quota, tpm=0, rpm=0).settle(amounts),
    ],
    ids=["try_acquire", "try_acquire during a pause", "remaining", "settle"],
)
def test_an_unknown_dimension_is_an_error(
    quota: QuotaTracker, use: Callable[[QuotaTracker, dict[str, float]], object]
) -> None:
    """It names the node, the dimension, the nearest name and all others; nothing is charged."""
    with pytest.raises(ValueError, match="'a' has no quota dimension 'tmp'") as caught:
        use(quota, {"tmp": 1})
    assert "did you mean 'tpm'?" in str(caught.value)
    assert "'rpm', 'tpm'" in str(caught.value)
    assert left(quota) == (10, 100)


@pytest.mark.parametrize("amount", [-1, math.nan, math.inf])
@pytest.mark.parametrize(
    "use",
    [
        lambda quota, amounts: quota.try_acquire("a", amounts),
        lambda quota, amounts: quota.record_usage("a", amounts),
        lambda quota, amounts: quota.available_at("a", amounts),
    ],
    ids=["try_acquire", "record_usage", "available_at"],
)
def test_amounts_that_make_no_sense_are_errors(
    quota: QuotaTracker,
    use: Callable[[QuotaTracker, dict[str, float]], object],
    amount: float,
) -> None:
    """A negative, NaN or infinite amount is refused by name and value; nothing is charged."""
    with pytest.raises(ValueError, match=f"tpm: the amount is {amount}; it must be finite"):
        use(quota, {"rpm": 1, "tpm": amount})
    assert left(quota) == (10, 100)


@pytest.mark.parametrize("amount", [-1, math.nan, math.inf])
def test_settling_by_mistake_leaves_the_reservation_open(
    quota: QuotaTracker, amount: float
) -> None:
    """After an amount that makes no sense, the right one can still be told."""
    reservation = reserve(quota, tpm=40)
    with pytest.raises(ValueError, match="the amount is"):
        reservation.settle({"rpm": 0, "tpm": amount})
    assert left(quota) == (9, 60)
    reservation.settle({"tpm": 10})
    assert left(quota) == (9, 90)


@pytest.mark.parametrize("wrong", [{"rpm": 10}, QuotaDimension("rpm", 10), None])
def test_refuses_what_is_no_config(quota: QuotaTracker, wrong: Any) -> None:
    """Limits that are not a QuotaConfig are refused, and the former ones stay."""
    with pytest.raises(TypeError, match="it must be a QuotaConfig"):
        quota.register("a", wrong)
    assert left(quota) == (10, 100)


def test_a_node_without_room_says_when_it_is_back(clock: ManualClock) -> None:
    """A used-up dimension that costs nothing by default blocks as well, whoever is asked."""
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("tpm", 10, default_cost=0)]))
    quota.record_usage("a", {"tpm": 10})
    assert not quota.is_available("a")
    assert quota.try_acquire("a") is None
    assert quota.next_change() == quota.available_at("a") == 60.0


def test_memory_stays_within_the_resolution(quota: QuotaTracker, clock: ManualClock) -> None:
    """However often it is used, a window of 6 buckets keeps no more than 8 of them."""
    for step in range(5_000):
        clock.advance(0.5 + step % 7)
        quota.record_usage("a", {"rpm": 1, "tpm": step % 3})
        for window in quota._nodes["a"].windows.values():
            assert len(window.buckets) <= 8


class Polite(int):
    """A number that lets other threads go first whenever it is added to another."""

    def __radd__(self, other: int) -> int:
        time.sleep(0)
        return other + int(self)


def test_threads_acquire_exactly_the_limit(clock: ManualClock) -> None:
    """8 threads that ask 250 times each for 1 of 1,000 units get exactly 1,000, each window."""
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", 1_000, 60.0)]))

    def work() -> int:
        return sum(quota.try_acquire("a", {"rpm": Polite(1)}) is not None for _ in range(250))

    assert sum(together(work)) == 1_000
    assert quota.remaining("a", "rpm") == 0
    clock.advance(60.0)
    assert sum(together(work)) == 1_000


def test_threads_are_charged_in_all_dimensions_or_none(clock: ManualClock) -> None:
    """What is refused, settled or cancelled under 8 threads leaves exact counts behind."""
    quota = QuotaTracker(clock)
    tokens = QuotaDimension("tpm", 700, default_cost=7)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", 10_000), tokens]))

    def work() -> int:
        kept = 0
        for number in range(300):
            reservation = quota.try_acquire("a")
            if reservation is None:
                continue
            if number % 3 == 0:
                kept += 1
            elif number % 3 == 1:
                reservation.cancel()
            else:
                reservation.settle({"rpm": 0, "tpm": 0})
        return kept

    kept = sum(together(work))
    assert left(quota) == (10_000 - kept, 700 - 7 * kept)
    assert kept <= 100


def test_threads_that_race_to_end_a_reservation(clock: ManualClock) -> None:
    """Of 8 threads that settle one wins; of 8 that cancel none hears of the others."""
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", 10_000)]))
    to_settle, to_cancel = ([reserve(quota) for _ in range(4_000)] for _ in range(2))

    def work() -> int:
        won = 0
        for settled, cancelled in zip(to_settle, to_cancel, strict=True):
            cancelled.cancel()
            try:
                settled.settle({"rpm": 0})
            except LoadwiseError:
                continue
            won += 1
        return won

    assert sum(together(work)) == 4_000
    assert quota.remaining("a", "rpm") == 10_000


class CollectingClock(ManualClock):
    """A clock in whose midst, under the tracker's lock, garbage is collected."""

    def __call__(self) -> float:
        gc.collect()
        return super().__call__()


def test_a_stream_that_settles_may_be_collected_anywhere() -> None:
    """A generator that settles at its end waits for no lock when the collector closes it."""
    quota = QuotaTracker(CollectingClock())
    quota.register("a", QuotaConfig([QuotaDimension("tpm", limit=100)]))

    def stream(_: object) -> Iterator[None]:
        reservation = quota.try_acquire("a", {"tpm": 60})
        assert reservation is not None
        try:
            yield
        finally:
            reservation.settle({"tpm": 10})

    cycle: list[Any] = []
    cycle.append(stream(cycle))
    next(cycle[0])
    del cycle
    asking = Thread(target=quota.try_acquire, args=("a", {"tpm": 30}), daemon=True)
    asking.start()
    asking.join(TIMEOUT)
    assert not asking.is_alive(), "it waits for the lock that it holds"
    assert quota.remaining("a", "tpm") == 100 - 10 - 30


def test_a_clock_that_steps_backwards_frees_nothing(clock: ManualClock) -> None:
    """Nothing is raised, and what was used counts until a window after it by the clock."""
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", 1)]))
    clock.now = 100.0
    reserve(quota)
    quota.mark_exhausted("b", 10.0)
    clock.now = 40.0
    assert quota.try_acquire("a") is None
    assert quota.unavailable() == ["a", "b"]
    clock.now = 159.0
    assert quota.try_acquire("a") is None
    clock.now = 160.0
    assert quota.try_acquire("a") is not None


def test_use_after_a_step_backwards_lets_nothing_be_forgotten_early(clock: ManualClock) -> None:
    """What was used before the step counts for a window, whatever is used after it."""
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", 10, 60.0)]))
    clock.now = 100.0
    quota.record_usage("a", {"rpm": 9})
    clock.now = 50.0
    quota.record_usage("a", {"rpm": 1})
    clock.now = 159.0
    assert quota.remaining("a", "rpm") == 0
    clock.now = 160.0
    assert quota.remaining("a", "rpm") == 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_goes_on_from_the_counts_of_its_parent() -> None:
    """A lock held by another thread at the fork holds up no child."""
    inside, release = Event(), Event()

    def clock() -> float:
        if current_thread().name == "holder":
            inside.set()
            assert release.wait(TIMEOUT)
        return 0.0

    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", 10), QuotaDimension("tpm", 100)]))
    kept = reserve(quota, rpm=4)
    holder = Thread(target=quota.remaining, args=("a", "rpm"), name="holder")
    holder.start()
    assert inside.wait(TIMEOUT)

    def child() -> None:
        assert quota.remaining("a", "rpm") == 6
        assert quota.try_acquire("a", {"rpm": 7}) is None
        kept.cancel()
        assert quota.remaining("a", "rpm") == 10

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(TIMEOUT)
    hung = process.is_alive()
    process.kill()
    release.set()
    holder.join(TIMEOUT)
    assert not hung, "the child waits for a lock that nobody will release"
    assert process.exitcode == 0
    assert quota.remaining("a", "rpm") == 6, "the child's counts are its own"


def test_a_node_is_taken_by_its_id(quota: QuotaTracker, clock: ManualClock) -> None:
    """A node in the place of its id is as good, in every method, whatever else it has."""
    node, again = Endpoint("n"), Endpoint("n", weight=3)
    quota.register(node, QuotaConfig([QuotaDimension("rpm", 2)]))
    assert quota.record_usage(again, {"rpm": 1})
    assert quota.remaining(again, "rpm") == quota.remaining("n", "rpm") == 1
    assert quota.try_acquire(again) is not None
    assert quota.try_acquire("n") is None
    assert not quota.is_available(again)
    assert quota.remaining_by_dimension(again) == {"rpm": 0}
    assert quota.available_at(again) == quota.available_at("n") == clock() + 60.0
    quota.mark_exhausted(again, 90.0)
    assert quota.cooldown_until(node) == quota.cooldown_until("n") == clock() + 90.0
    quota.remove(again)
    assert quota.unavailable() == []


def test_a_pause_can_be_lifted() -> None:
    """It is over at once, for registered nodes and others; what was used still counts."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("rpm", limit=5)]))
    quota.record_usage("a", {"rpm": 3})
    for node in ("a", "b"):
        assert not quota.lift(node)
        quota.mark_exhausted(node, 60.0)
        version, changes = quota.version, quota.changes
        assert quota.lift(Endpoint(node))
        assert quota.version != version
        assert quota.changed_since(changes)[1] == [node]
        assert quota.cooldown_until(node) is None
        assert quota.is_available(node)
        assert quota.try_acquire(node) is not None
        assert not quota.lift(node)
    assert quota.unavailable() == []
    assert quota.remaining("a", "rpm") == 1
    quota.mark_exhausted("b", 1.0)
    clock.advance(1.0)
    assert not quota.lift("b")
