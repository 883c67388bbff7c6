"""A balancer with limits and a queue, in every order of events.

Tasks wait in an event loop that runs only when told, by a clock that goes only when told.
"""

from __future__ import annotations

import asyncio
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from loadwise import (
    Balancer,
    ConsistentHash,
    InFlight,
    Lease,
    NoNodeAvailable,
    PowerOfTwoChoices,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    RoundRobin,
)
from loadwise.testing import ManualClock

NODES = "abcd"
STRATEGIES = [
    RoundRobin,
    lambda: PowerOfTwoChoices(load=InFlight()),
    lambda: ConsistentHash(virtual_nodes=4),
]


def _is_early(node: str) -> bool:
    return node < "c"


KINDS: list[dict[str, Any]] = [
    {},
    {"exclude": ["a"]},
    {"exclude": ["b", "c"]},
    {"where": _is_early},
    {"cost": {"tpm": 6}},
    {"cost": {"tpm": 3}, "exclude": ["a"]},
]


kinds = st.sampled_from([0, 0, 0, *range(len(KINDS))])


class Ask:
    """One request that may wait."""

    def __init__(self, number: int, kind: int, deadline: float) -> None:
        self.number = number
        self.kind = kind
        self.deadline = deadline
        self.task: asyncio.Future[Lease[str]] | None = None

    @property
    def keywords(self) -> Mapping[str, Any]:
        return KINDS[self.kind]


class Waiting(RuleBasedStateMachine):
    """Checks after each event that nobody waits who could be served, and in which order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.asked: list[Ask] = []
        self.held: list[Lease[str]] = []
        self.count = 0

    @initialize(
        strategy=st.sampled_from(STRATEGIES),
        limit=st.sampled_from([1, 1, 2, None]),
        most=st.sampled_from([None, None, 3]),
        metered=st.booleans(),
    )
    def begin(
        self,
        strategy: Any,
        limit: int | None,
        most: int | None,
        metered: bool,  # noqa: FBT001 - as above
    ) -> None:
        quota = None
        if metered:
            quota = QuotaTracker(self.clock)
            for node in NODES:
                quota.register(node, QuotaConfig([QuotaDimension("tpm", 10, 60.0, default_cost=1)]))
        self.limit = limit
        self.most = most
        self.metered = metered
        self.balancer: Balancer[str] = Balancer(
            list(NODES[:2]),
            strategy(),
            health=False,
            quota=quota,
            clock=self.clock,
            max_in_flight=limit,
            max_waiting=most,
        )

    def keywords_of(self, kind: int) -> dict[str, Any]:
        keywords = {"hash_key": self.count, **KINDS[kind]}
        if not self.metered:
            keywords.pop("cost", None)
        return keywords

    def settle(self) -> None:
        """Let everything happen that is to happen now, and look in which order it did."""
        before = [each for each in self.asked if each.task is not None and not each.task.done()]

        async def rounds() -> None:
            for _ in range(3 * len(before) + 6):
                await asyncio.sleep(0)

        self.loop.run_until_complete(rounds())
        served = [each for each in before if each.task is not None and each.task.done()]
        for each in served:
            assert each.task is not None
            if each.task.cancelled():
                continue
            error = each.task.exception()
            if error is None:
                self.held.append(each.task.result())
                earlier = [
                    other.number
                    for other in self.asked
                    if other.kind == each.kind
                    and other.number < each.number
                    and other.task is not None
                    and not other.task.done()
                ]
                assert not earlier, (each.number, earlier)
            else:
                assert isinstance(error, NoNodeAvailable), error
        self.asked = [each for each in self.asked if each.task and not each.task.done()]

    @rule(kind=kinds, timeout=st.sampled_from([None, None, 4.0, 30.0]))
    def ask(self, kind: int, timeout: float | None) -> None:
        """A request comes and waits if it must."""
        self.count += 1
        deadline = float("inf") if timeout is None else self.clock() + timeout
        each = Ask(self.count, kind, deadline)
        keywords = self.keywords_of(kind)

        async def wait() -> Lease[str]:
            return await self.balancer.acquire_async(timeout=timeout, **keywords)

        each.task = self.loop.create_task(wait())
        self.asked.append(each)
        self.settle()

    @rule(kind=kinds)
    def ask_at_once(self, kind: int) -> None:
        """A request that does not wait is given only what nobody waits for."""
        self.count += 1
        try:
            lease = self.balancer.acquire(**self.keywords_of(kind))
        except NoNodeAvailable:
            return
        for each in self.asked:
            assert each.kind != kind, "it overtook one of its kind"
        self.held.append(lease)
        self.settle()

    @precondition(lambda self: self.held)
    @rule(
        which=st.integers(0, 100),
        end=st.sampled_from(["success", "failure", "cancel", "rest", "drop", "settle"]),
    )
    def end(self, which: int, end: str) -> None:
        """A request ends, in one of the ways there are."""
        lease = self.held.pop(which % len(self.held))
        if end == "drop":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                del lease
        elif end == "rest":
            lease.rate_limited(5.0)
        elif end == "settle":
            lease.success()
            lease.settle({"tpm": 0} if self.metered else {})
        else:
            getattr(lease, end)()
        self.settle()

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(0, 100), together=st.booleans())
    def give_up(self, which: int, together: bool) -> None:  # noqa: FBT001 - Hypothesis names it
        """A task is cancelled, perhaps at the moment when it is served."""
        if together and self.held:
            self.held.pop().success()
        task = self.asked[which % len(self.asked)].task
        assert task is not None
        task.cancel()
        self.settle()

    @rule(seconds=st.sampled_from([0.5, 3.0, 5.0, 61.0]))
    def pass_time(self, seconds: float) -> None:
        """Cooldowns end, quota comes back, deadlines pass."""
        self.clock.advance(seconds)
        self.settle()
        for each in self.asked:
            assert self.clock() < each.deadline

    @rule(node=st.sampled_from(NODES))
    def join_or_leave(self, node: str) -> None:
        """A member comes or goes."""
        if node in self.balancer.nodes:
            self.balancer.remove(node)
        else:
            self.balancer.add(node)
        self.settle()

    @rule(node=st.sampled_from(NODES), draining=st.booleans())
    def drain(self, node: str, draining: bool) -> None:  # noqa: FBT001 - Hypothesis names it
        """A member is drained, or used again."""
        if node in self.balancer.nodes:
            (self.balancer.drain if draining else self.balancer.resume)(node)
            self.settle()

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        if not hasattr(self, "balancer"):
            return
        for status in self.balancer.status():
            assert self.limit is None or status.in_flight <= self.limit
        held = Counter(lease.node for lease in self.held)
        assert self.limit is None or max(held.values(), default=0) <= self.limit

    @invariant()
    def nobody_waits_who_could_be_served(self) -> None:
        for each in self.asked:
            told = self.balancer.explain(**self.keywords_of(each.kind))
            assert not told.eligible, (each.number, each.kind, told)

    @invariant()
    def the_queue_is_as_long_as_those_who_wait(self) -> None:
        if not hasattr(self, "balancer"):
            return
        assert self.balancer.waiting == len(self.asked)
        assert self.most is None or self.balancer.waiting <= self.most

    def teardown(self) -> None:
        try:
            if hasattr(self, "balancer"):
                for each in self.asked:
                    assert each.task is not None
                    each.task.cancel()
                self.settle()
                for lease in self.held:
                    lease.success()
                self.clock.advance(1000.0)
                assert not self.balancer.waiting
                assert not any(status.in_flight for status in self.balancer.status())
                self.balancer.replace(list(NODES))
                for node in NODES:
                    self.balancer.resume(node)
                leases = [self.balancer.acquire(hash_key=i) for i in range(4 * (self.limit or 1))]
                for lease in leases:
                    lease.success()
        finally:
            self.loop.close()


TestWaiting = Waiting.TestCase
TestWaiting.settings = settings(max_examples=150, stateful_step_count=40)
