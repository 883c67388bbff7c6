"""Sliding windows against the full log of what was charged, counted by brute force.

Times are multiples of 1/8 s, so that additions are exact and boundaries are hit exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from loadwise import QuotaConfig, QuotaDimension, QuotaTracker, Reservation
from loadwise.testing import ManualClock

eighths = st.integers(1, 80).map(lambda steps: steps / 8)


@dataclass
class Charge:
    """One entry of the full log."""

    at: float
    amount: float


def used_in_window(log: list[Charge], window: float, now: float) -> float:
    """Return what was charged in the last ``window`` seconds, ``now`` included."""
    return sum(charge.amount for charge in log if charge.at + window > now)


@given(
    limit=st.integers(1, 12),
    window=st.sampled_from([1.0, 2.5, 10.0]),
    resolution=st.integers(1, 7),
    steps=st.lists(
        st.tuples(
            st.just(0.0) | eighths,
            st.integers(1, 6),
            st.none() | st.integers(0, 6),
        ),
        min_size=5,
        max_size=40,
    ),
)
@example(limit=4, window=10.0, resolution=1, steps=[(9.875, 4, None), (0.25, 4, None)] * 4)
@settings(max_examples=150, deadline=None)
def test_no_stretch_of_a_window_exceeds_the_limit(
    limit: int, window: float, resolution: int, steps: list[tuple[float, int, int | None]]
) -> None:
    """What is admitted in any ``window`` seconds, wherever they begin, is within the limit.

    And room is given back at most ``window / resolution`` late: what is refused would have
    exceeded the limit, had each use stayed that much longer.
    """
    clock = ManualClock()
    quota = QuotaTracker(clock)
    dimension = QuotaDimension("rpm", limit, window, resolution)
    quota.register("a", QuotaConfig([dimension]))
    log: list[Charge] = []
    for wait, amount, truth in steps:
        clock.advance(wait)
        reservation = quota.try_acquire("a", {"rpm": amount})
        if reservation is None:
            late = used_in_window(log, window + window / resolution, clock.now)
            assert late + amount > limit, "refused though it fits"
            continue
        log.append(Charge(clock.now, amount))
        if truth is not None and truth < amount:
            reservation.settle({"rpm": truth})
            log[-1].amount = truth
    for first in log:
        stretch = [charge.amount for charge in log if first.at <= charge.at < first.at + window]
        assert sum(stretch) <= limit


DIMENSIONS = ("rpm", "tpm")
NODES = ("a", "b")

Amounts = Mapping[str, float]
amounts_of = st.fixed_dictionaries({}, optional=dict.fromkeys(DIMENSIONS, st.integers(0, 9)))
node_ids = st.sampled_from(NODES)


class QuotaMachine(RuleBasedStateMachine):
    """Every method of the tracker in any order, beside the full log of charges."""

    @initialize(
        limits=st.tuples(st.integers(1, 8), st.integers(2, 20)),
        windows=st.tuples(st.sampled_from([1.0, 4.0]), st.sampled_from([2.5, 10.0])),
        resolutions=st.tuples(st.integers(1, 6), st.integers(1, 6)),
        default=st.integers(0, 2),
    )
    def begin(
        self,
        limits: tuple[int, int],
        windows: tuple[float, float],
        resolutions: tuple[int, int],
        default: int,
    ) -> None:
        """Register both nodes with the same limits."""
        self.clock = ManualClock()
        self.quota = QuotaTracker(self.clock)
        facts = zip(DIMENSIONS, limits, windows, resolutions, (1, default), strict=True)
        self.config = QuotaConfig([QuotaDimension(*each) for each in facts])
        self.dimensions = {each.name: each for each in self.config.dimensions}
        self.logs = {(node, name): list[Charge]() for node in NODES for name in DIMENSIONS}
        self.rests = dict.fromkeys(NODES, 0.0)
        self.open: list[tuple[Reservation, dict[str, Charge]]] = []
        for node in NODES:
            self.quota.register(node, self.config)
        self.seen = self.observe()

    def observe(self) -> tuple[int, float, frozenset[object]]:
        """Return what a cache would keep: version, next change, and who is unavailable."""
        return self.quota.version, self.quota.next_change(), frozenset(self.quota.unavailable())

    def charge(self, node: str, amounts: Amounts) -> dict[str, Charge]:
        """Write amounts into the log."""
        charges = {name: Charge(self.clock.now, amount) for name, amount in amounts.items()}
        for name, charge in charges.items():
            self.logs[node, name].append(charge)
        return charges

    def acquire(self, node: str, amounts: Amounts) -> bool:
        """Try to acquire, and check the answer against what is left and against the log."""
        full = {name: amounts.get(name, self.dimensions[name].default_cost) for name in DIMENSIONS}
        left = self.quota.remaining_by_dimension(node)
        self.quota.unavailable()  # drops pauses that have run out, of which a version may tell
        available, version = self.quota.is_available(node), self.quota.version
        reservation = self.quota.try_acquire(node, amounts)
        if reservation is None:
            resting = self.rests[node] > self.clock.now
            assert resting or any(
                full[name] > left[name] or not left[name] for name in DIMENSIONS
            ), "refused though it fits"
            assert self.quota.remaining_by_dimension(node) == left, "refused, yet charged"
            assert self.quota.version == version
            return False
        assert reservation.amounts == full
        self.open.append((reservation, self.charge(node, full)))
        for name, dimension in self.dimensions.items():
            used = used_in_window(self.logs[node, name], dimension.window, self.clock.now)
            assert used <= dimension.limit or not full[name], f"{name} exceeds its limit"
        if available and self.quota.is_available(node):
            assert self.quota.version == version, "a new version though nothing changed"
        return True

    @rule(seconds=eighths)
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    @rule()
    def wait_for_the_next_change(self) -> None:
        """Let time pass exactly until somebody becomes available."""
        then = self.quota.next_change()
        if then < math.inf:
            self.clock.now = then

    @rule(node=node_ids, amounts=amounts_of)
    def try_acquire(self, node: str, amounts: Amounts) -> None:
        """A request with or without amounts of its own."""
        self.acquire(node, amounts)

    @rule(node=node_ids, amounts=amounts_of.filter(lambda amounts: all(amounts.values())))
    def wait_until_it_fits(self, node: str, amounts: Amounts) -> None:
        """`available_at` is exact: refused an instant earlier, admitted then."""
        then = self.quota.available_at(node, amounts)
        if then == math.inf:
            assert any(amount > self.dimensions[name].limit for name, amount in amounts.items())
            return
        if then > self.clock.now:
            self.clock.now = math.nextafter(then, 0.0)
            assert not self.acquire(node, amounts)
        self.clock.now = then
        assert self.acquire(node, amounts)

    @rule(node=node_ids, amounts=amounts_of)
    def record_usage(self, node: str, amounts: Amounts) -> None:
        """Use that nobody asked for is charged even above the limit."""
        assert self.quota.record_usage(node, amounts)
        self.charge(node, amounts)

    @rule(which=st.integers(0, 9), amounts=amounts_of)
    def settle(self, which: int, amounts: Amounts) -> None:
        """The excess goes back to the time of the reservation; what is missing counts now."""
        if not self.open:
            return
        reservation, charges = self.open.pop(which % len(self.open))
        reservation.settle(amounts)
        for name, amount in amounts.items():
            excess = charges[name].amount - amount
            charges[name].amount -= max(0, excess)
            self.charge(str(reservation.node_id), {name: max(0, -excess)})

    @rule(which=st.integers(0, 9))
    def cancel(self, which: int) -> None:
        """A cancelled reservation leaves nothing charged."""
        if not self.open:
            return
        reservation, charges = self.open.pop(which % len(self.open))
        reservation.cancel()
        for charge in charges.values():
            charge.amount = 0

    @rule(node=node_ids, seconds=eighths)
    def mark_exhausted(self, node: str, seconds: float) -> None:
        """A cooldown; a longer one under way is kept, and one of no time ends it."""
        self.quota.mark_exhausted(node, seconds)
        until = self.clock.now + seconds
        self.rests[node] = max(self.rests[node], until) if seconds else until

    @rule(node=node_ids)
    def register_again(self, node: str) -> None:
        """The same limits again change nothing."""
        before, version = self.quota.remaining_by_dimension(node), self.quota.version
        self.quota.register(node, self.config)
        assert self.quota.remaining_by_dimension(node) == before
        assert self.quota.version == version

    @invariant()
    def what_is_left_follows_from_the_log(self) -> None:
        """What counts as used is what the window holds, and at most one bucket's width more."""
        for (node, name), log in self.logs.items():
            dimension = self.dimensions[name]
            width = dimension.window / dimension.resolution
            least = used_in_window(log, dimension.window, self.clock.now)
            most = used_in_window(log, dimension.window + width, self.clock.now)
            left = self.quota.remaining(node, name)
            assert max(0, dimension.limit - most) <= left <= max(0, dimension.limit - least)

    @invariant()
    def who_is_available_follows_from_what_is_left(self) -> None:
        """Available: no cooldown, and in every dimension something left and the default cost."""
        for node in NODES:
            left = self.quota.remaining_by_dimension(node)
            has_room = all(
                left[name] and left[name] >= dimension.default_cost
                for name, dimension in self.dimensions.items()
            )
            resting = self.rests[node] > self.clock.now
            assert self.quota.is_available(node) is (has_room and not resting)
            assert (node in self.quota.unavailable()) is not self.quota.is_available(node)
            assert self.quota.cooldown_until(node) == (self.rests[node] if resting else None)

    @invariant()
    def caches_hold(self) -> None:
        """Who is unavailable stays the same until version or `next_change` says otherwise."""
        version, next_change, unavailable = self.seen
        self.seen = self.observe()
        if self.seen[0] == version:
            same = self.clock.now < next_change
            assert (self.seen[2] == unavailable) == same


def test_any_use_is_counted_right() -> None:
    """Whatever is called in whatever order, the tracker says what follows from the full log."""
    run_state_machine_as_test(
        QuotaMachine,
        settings=settings(max_examples=200, stateful_step_count=40, deadline=None),
    )


@given(
    amounts=st.lists(st.integers(1, 30).map(lambda tenths: tenths / 10), min_size=1, max_size=8),
    cost=st.integers(0, 20).map(lambda tenths: tenths / 10),
)
@example(amounts=[0.3, 0.2, 2.9, 2.0], cost=0.0)
@settings(max_examples=150, deadline=None)
def test_the_time_of_room_is_exact_for_fractions(amounts: list[float], cost: float) -> None:
    """`available_at` holds for tenths, which floats round: refused before, admitted then."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    quota.register("a", QuotaConfig([QuotaDimension("credits", 2.0, 60.0, 20, 0)]))
    for amount in amounts:
        quota.record_usage("a", {"credits": amount})
        clock.advance(1.0)
    then = quota.available_at("a", {"credits": cost})
    while clock.now < then:
        assert quota.try_acquire("a", {"credits": cost}) is None
        clock.advance(0.5)
    assert quota.try_acquire("a", {"credits": cost}) is not None
