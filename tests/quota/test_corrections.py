"""Corrections of what is left by what the upstream says of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadwise import Balancer, QuotaConfig, QuotaDimension, QuotaTracker, Reservation
from loadwise.quota import Left
from loadwise.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """A clock at 0 seconds."""
    return ManualClock()


def tracker(clock: ManualClock, limit: float = 1_000) -> QuotaTracker:
    """Return the quota of one key."""
    quota = QuotaTracker(clock)
    quota.register("k", QuotaConfig([QuotaDimension("tpm", limit, default_cost=0)]))
    return quota


def reserve(quota: QuotaTracker, tokens: float) -> Reservation:
    """Return a reservation that fits."""
    reservation = quota.try_acquire("k", {"tpm": tokens})
    assert reservation is not None
    return reservation


def use(quota: QuotaTracker, tokens: float) -> Reservation:
    """Return a reservation that is settled."""
    reservation = reserve(quota, tokens)
    reservation.settle({"tpm": tokens})
    return reservation


def test_less_is_left_where_others_use_the_limit_too(clock: ManualClock) -> None:
    """The difference is charged until the upstream's reset, or for a window."""
    quota = tracker(clock)
    use(quota, 100).correct({"tpm": Left(400, 1_000, reset=12.0)})
    assert quota.remaining("k", "tpm") == 400
    clock.advance(11.9)
    assert quota.remaining("k", "tpm") == 400
    clock.advance(0.1)
    assert quota.remaining("k", "tpm") == 900
    use(quota, 100).correct({"tpm": Left(300)})
    clock.advance(59.9)
    assert quota.remaining("k", "tpm") == 400
    clock.advance(0.1)
    assert quota.remaining("k", "tpm") == 1_000


def test_more_is_left_where_estimates_were_too_careful(clock: ManualClock) -> None:
    """The difference is given back, and never more than the limit."""
    quota = tracker(clock)
    use(quota, 900)
    use(quota, 50).correct({"tpm": Left(700, 1_000)})
    assert quota.remaining("k", "tpm") == 700
    use(quota, 100).correct({"tpm": Left(5_000)})
    assert quota.remaining("k", "tpm") == 1_000


def test_a_share_of_a_larger_limit_is_not_exceeded(clock: ManualClock) -> None:
    """Who registered less than the upstream allows leaves the rest to others."""
    quota = tracker(clock)
    use(quota, 900).correct({"tpm": Left(99_100, 100_000)})
    assert quota.remaining("k", "tpm") == 100
    use(quota, 10).correct({"tpm": Left(40, 100_000)})
    assert quota.remaining("k", "tpm") == 40


def test_what_the_upstream_has_not_seen_is_not_given_back(clock: ManualClock) -> None:
    """An old answer, and one that others overtook, says nothing of what came after it."""
    quota = tracker(clock)
    old = reserve(quota, 100)
    use(quota, 500)  # after it, and before its answer
    held = reserve(quota, 200)
    old.settle({"tpm": 100})
    old.correct({"tpm": Left(900, 1_000)})
    assert quota.remaining("k", "tpm") == 200
    held.settle({"tpm": 200})
    held.correct({"tpm": Left(200, 1_000)})
    assert quota.remaining("k", "tpm") == 200


def test_what_is_held_by_others_is_not_given_back(clock: ManualClock) -> None:
    """Their requests may still be on their way."""
    quota = tracker(clock)
    held = reserve(quota, 300)
    use(quota, 300)
    use(quota, 100).correct({"tpm": Left(900, 1_000)})
    assert quota.remaining("k", "tpm") == 600
    held.cancel()
    assert quota.remaining("k", "tpm") == 900


def test_what_was_under_way_before_is_not_given_back_when_it_ends_first(
    clock: ManualClock,
) -> None:
    """The upstream may have answered the younger request before the older one came to it."""
    quota = tracker(clock)
    older, younger = reserve(quota, 300), reserve(quota, 100)
    older.settle({"tpm": 300})
    younger.settle({"tpm": 100})
    younger.correct({"tpm": Left(900, 1_000)})
    assert quota.remaining("k", "tpm") == 600


def test_what_is_not_settled_yet_counts_as_unseen(clock: ManualClock) -> None:
    """A stream's headers come before most of what it will use."""
    quota = tracker(clock)
    use(quota, 600)
    stream = reserve(quota, 300)
    stream.correct({"tpm": Left(900, 1_000)})
    assert quota.remaining("k", "tpm") == 600
    stream.settle({"tpm": 200})
    assert quota.remaining("k", "tpm") == 700


def test_strangers_are_ignored(clock: ManualClock) -> None:
    """What the node does not limit, or no longer does, or has no quota for at all."""
    quota = tracker(clock)
    reservation = use(quota, 300)
    reservation.correct({"rpm": Left(0), "tpm": Left(700)})
    assert quota.remaining_by_dimension("k") == {"tpm": 700}
    quota.remove("k")
    reservation.correct({"tpm": Left(1)})
    assert quota.remaining("k", "tpm") == float("inf")
    lease = Balancer(["a"]).acquire()
    lease.correct({"tpm": Left(1)})
    lease.success()


def test_registering_anew_keeps_what_is_held(clock: ManualClock) -> None:
    """New limits do not make a request under way a thing of the past."""
    quota = tracker(clock)
    held = reserve(quota, 300)
    quota.register("k", QuotaConfig([QuotaDimension("tpm", 2_000, default_cost=0)]))
    use(quota, 100).correct({"tpm": Left(2_000, 2_000)})
    assert quota.remaining("k", "tpm") == 1_700
    held.settle({"tpm": 50})
    assert quota.remaining("k", "tpm") == 1_950


STEPS = st.lists(
    st.tuples(st.sampled_from("rsucw"), st.integers(0, 400), st.integers(0, 9)), max_size=60
)


@given(STEPS)
@settings(max_examples=200, deadline=None)
def test_corrections_never_free_what_is_held(steps: list[tuple[str, int, int]]) -> None:
    """Whatever is said, what is under way stays reserved, and the balance comes out right."""
    clock = ManualClock()
    quota = tracker(clock)
    held: list[tuple[Reservation, int, float]] = []
    done: list[Reservation] = [use(quota, 0)]
    for action, amount, index in steps:
        if action == "r":
            reservation = quota.try_acquire("k", {"tpm": amount})
            if reservation is not None:
                held.append((reservation, amount, clock()))
        elif action == "s" and held:
            reservation, _, _ = held.pop(index % len(held))
            reservation.settle({"tpm": amount})
            done.append(reservation)
        elif action == "u":
            quota.record_usage("k", {"tpm": amount})
        elif action == "c":
            done[index % len(done)].correct({"tpm": Left(amount * 3)})
        else:
            clock.advance(amount / 10)
        young = sum(tokens for _, tokens, since in held if clock() - since < 60)
        assert 0 <= quota.remaining("k", "tpm") <= 1_000 - young
    clock.advance(200)
    assert quota.remaining("k", "tpm") == 1_000
