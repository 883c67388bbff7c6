"""What balancers remember of quotas, against asking all nodes for every request."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from loadwise import (
    Balancer,
    NoNodeAvailable,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    Random,
    Reservation,
)
from loadwise.testing import ManualClock

SIZE = 24
COSTS: tuple[dict[str, float], ...] = ({}, {"tpm": 3}, {"tpm": 8}, {"tpm": 50})

nodes = st.integers(0, SIZE - 1)
amounts = st.sampled_from([1, 3, 5, 8, 10])


class Other(QuotaTracker):
    """Quotas that a balancer knows nothing of, and so may not trust to tell of changes."""


class World:
    """A balancer, its quotas, and what may be done to them."""

    def __init__(self, quota: QuotaTracker, clock: ManualClock) -> None:
        self.clock = clock
        self.quota = quota
        for node in range(SIZE):
            self.limit(node, 10)
        self.balancer = Balancer(range(SIZE), Random(), quota=quota, clock=clock)
        self.held: list[Reservation] = []

    def limit(self, node: int, limit: int) -> None:
        """Set a node's limit."""
        config = QuotaConfig([QuotaDimension("tpm", limit, window=20.0, default_cost=1)])
        self.quota.register(node, config)

    def reserve(self, node: int, amount: int) -> None:
        """Reserve as another balancer does."""
        reservation = self.quota.try_acquire(node, {"tpm": amount})
        if reservation is not None:
            self.held.append(reservation)

    def settle(self, position: int, amount: int) -> None:
        """Say what one of the reservations has used."""
        if self.held:
            self.held.pop(position % len(self.held)).settle({"tpm": amount})

    def use(self, amount: int) -> None:
        """Use as much on all nodes."""
        for node in range(SIZE):
            self.quota.record_usage(node, {"tpm": amount})

    def request(self, cost: int, excluded: frozenset[int]) -> None:
        """Send a request, which must be refused exactly when nobody can afford it."""
        amounts, now = COSTS[cost], self.clock()
        waits, reasons = {}, Counter[str]()
        for node in range(SIZE):
            at = self.quota.available_at(node, amounts)
            rests = self.quota.cooldown_until(node) is not None
            if at > now:
                waits[node] = at - now
                reasons["rate_limited" if rests else "quota"] += 1
            elif node in excluded:
                reasons["excluded"] += 1
        refusal: NoNodeAvailable | None = None
        try:
            chosen = self.balancer.pick(cost=amounts, exclude=excluded)
        except NoNodeAvailable as error:
            refusal = error
        else:
            assert chosen not in excluded
            assert chosen not in waits
        if refusal is None:
            return
        assert waits.keys() | excluded == set(range(SIZE)), "there was a node to give"
        assert sum(refusal.reasons.values()) == SIZE
        assert "declined" not in refusal.reasons
        assert refusal.reasons.get("rate_limited", 0) == reasons["rate_limited"]
        # An excluded node that was not asked for its quota counts as excluded.
        asked = [waits[node] for node in waits if node not in excluded]
        least, most = min(waits.values(), default=math.inf), min(asked, default=math.inf)
        wait = math.inf if refusal.retry_after is None else refusal.retry_after
        assert least - 1e-9 <= wait <= most + 1e-9


steps = st.lists(
    st.one_of(
        st.builds(
            lambda cost, excluded: lambda world: world.request(cost, excluded),
            st.integers(0, len(COSTS) - 1),
            st.just(frozenset[int]()) | st.frozensets(nodes, max_size=SIZE),
        ),
        st.builds(lambda n, a: lambda world: world.reserve(n, a), nodes, amounts),
        st.builds(lambda n, a: lambda world: world.settle(n, a), nodes, amounts | st.just(0)),
        st.builds(lambda a: lambda world: world.use(a), amounts),
        st.builds(lambda n, a: lambda world: world.limit(n, a), nodes, amounts),
        st.builds(
            lambda n, s: lambda world: world.quota.mark_exhausted(n, s), nodes, st.integers(0, 30)
        ),
        st.builds(lambda s: lambda world: world.clock.advance(s), st.sampled_from([0.5, 3.0, 20])),
        st.builds(lambda n: lambda world: world.quota.remove(n), nodes),
    ),
    min_size=5,
    max_size=60,
)


@given(kind=st.sampled_from([QuotaTracker, Other]), steps=steps)
def test_what_is_remembered_is_what_would_be_answered(
    kind: type[QuotaTracker], steps: list[Callable[[World], object]]
) -> None:
    """Whoever can afford a request is found, nobody else is given, and errors are exact."""
    clock = ManualClock(100.0)
    world = World(kind(clock), clock)
    for step in steps:
        step(world)
    for cost in range(len(COSTS)):
        world.request(cost, frozenset())
        world.request(cost, frozenset({0}))
