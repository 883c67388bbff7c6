"""A balancer against a simple model: membership, health, cooldowns, probes, leases, at random."""

from __future__ import annotations

import gc
import math
import random
import warnings
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    ConsistentHash,
    Endpoint,
    HealthStatus,
    HealthTracker,
    InFlight,
    Lease,
    LeastLoad,
    NoNodeAvailable,
    Outcome,
    PeakEwma,
    PowerOfTwoChoices,
    Random,
    RoundRobin,
    Strategy,
    UnknownNode,
    WeightedRandom,
    WeightedRoundRobin,
    WithFallback,
)
from loadwise.testing import ManualClock

INTERVAL = 5.0
THRESHOLD = 2
RECOVERY = 3
WINDOW = INTERVAL
HEALTHY, DEGRADED = HealthStatus.HEALTHY, HealthStatus.DEGRADED
UNHEALTHY, RECOVERING = HealthStatus.UNHEALTHY, HealthStatus.RECOVERING

STRATEGIES: list[Callable[[], Strategy[Any]]] = [
    lambda: PowerOfTwoChoices(load=InFlight(), rng=random.Random(1)),
    lambda: PowerOfTwoChoices(load=PeakEwma(), rng=random.Random(2)),
    lambda: LeastLoad(load=InFlight(), rng=random.Random(3)),
    RoundRobin,
    WeightedRoundRobin,
    lambda: Random(rng=random.Random(4)),
    lambda: WeightedRandom(rng=random.Random(5)),
    lambda: ConsistentHash(virtual_nodes=4),
    lambda: WithFallback(LeastLoad(load=InFlight()), LeastLoad(load=PeakEwma())),
]
ids = st.integers(0, 3)
weights = st.sampled_from([1, 2, 3, 0])
keys = st.integers(0, 2**64 - 1)


@dataclass
class Member:
    """What the model knows of one member, since it joined."""

    weight: int
    draining: bool = False
    picks: int = 0
    status: HealthStatus = HEALTHY
    failures: int = 0
    successes: int = 0
    down_since: float | None = None
    probe_from: float = 0.0
    rests_until: float = 0.0
    probe_of: int | None = None
    probe_lapses: float = 0.0
    share: float = 1.0
    last_success: float | None = None
    answered: float | None = None

    @property
    def drained(self) -> bool:
        """Whether it gets no new requests."""
        return self.draining or not self.weight

    @property
    def remembered(self) -> bool:
        """Whether the tracker has anything to remember of it."""
        return self.status is not HEALTHY or self.failures > 0 or self.share < 0.99

    def full(self, in_flight: int) -> bool:
        """Whether it is on trial and has as many requests as it needs successes."""
        return self.status is RECOVERING and in_flight >= RECOVERY - self.successes

    def probe_due(self) -> float | None:
        """Return when it may be probed; ``None`` while a lease has the probe."""
        return (
            None
            if self.probe_of is not None
            else max(self.probe_from + INTERVAL, self.probe_lapses)
        )

    def may_probe(self, now: float) -> bool:
        """Whether its probe is due and nobody has it."""
        due = self.probe_due()
        return due is not None and due <= now

    def ailing(self, now: float) -> bool:
        """Whether it is down but not dead, by section 2 of the design of fleets."""
        if self.status is not UNHEALTHY or self.last_success is None:
            return False
        tenth = WINDOW / 10
        return (
            max(1 - self.share, 0.01) ** self.failures >= 0.001
            and now < math.ceil((self.last_success + WINDOW) / tenth) * tenth
        )

    def report(
        self,
        outcome: Outcome,
        now: float,
        began: float | None = None,
        *,
        probe: bool = False,
        answered: float | None = None,
    ) -> None:
        """Follow the table of the design."""
        if outcome is Outcome.SUCCESS and not self.remembered:
            return
        old_news = began is not None and self.down_since is not None and began <= self.down_since
        if old_news and not probe:
            return
        probe, self.probe_lapses = probe or self.probe_lapses > 0.0, 0.0
        if not self.remembered:
            self.share, self.last_success = 1.0, answered
        if outcome is Outcome.SUCCESS:
            self.share = self.share * 0.95 ** (self.failures + 1) + 0.05
            self.last_success = now
            self.failures, self.successes = 0, self.successes + 1
            unwell = self.status in UNHEALTHY | RECOVERING
            self.status = RECOVERING if unwell and self.successes < RECOVERY else HEALTHY
            if self.status is HEALTHY:
                self.successes, self.down_since = 0, None
            return
        self.failures, self.successes = self.failures + 1, 0
        if self.status in UNHEALTHY | RECOVERING or self.failures >= THRESHOLD:
            if self.status is not UNHEALTHY:
                self.down_since = self.probe_from = now
            elif probe:
                self.probe_from = now
            self.status = UNHEALTHY
        else:
            self.status = DEGRADED


@dataclass
class Open:
    """A lease under way, and the member it was given on: a node that returns is another one."""

    lease: Lease[Endpoint]
    member: Member
    began: float
    number: int
    known_down: bool


@dataclass
class Model:
    """Who is a member, and who has what."""

    threshold: float | None
    members: dict[int, Member] = field(default_factory=dict)
    open: list[Open] = field(default_factory=list)
    last_resort: frozenset[int] = frozenset()

    def panic(self, now: float) -> tuple[frozenset[int], frozenset[int]] | None:
        """Return the candidates and the other members while there is panic."""
        members = {node: each for node, each in self.members.items() if not each.drained}
        available = {node for node, each in members.items() if each.status is not UNHEALTHY}
        if self.threshold is None or not members:
            return None
        if available and len(available) / len(members) >= self.threshold:
            return None
        ailing = {node for node, each in members.items() if each.ailing(now)}
        candidates = frozenset(available | ailing or members)
        return candidates, frozenset(members) - candidates

    def refresh(self, now: float) -> None:
        """Notice that the last resort has ended because a node answered: all others are probed."""
        before, self.last_resort = self.last_resort, frozenset()
        panic = self.panic(now)
        down = {node for node, each in self.members.items() if each.status is UNHEALTHY}
        members = {node for node, each in self.members.items() if not each.drained}
        nobody = panic is not None and panic[0] <= down
        if panic is not None and nobody and not any(self.members[n].ailing(now) for n in panic[0]):
            self.last_resort = panic[0]
            return
        if any(node in self.members and node not in down for node in before):
            for node in down & members:
                self.members[node].probe_from = -math.inf

    def reasons(self, now: float, exclude: frozenset[int]) -> dict[int, str]:
        """Return who may not be chosen, and why."""
        panic = self.panic(now)
        admitted = frozenset[int]() if panic is None else panic[0]
        found = self._reasons(now, exclude, admitted)
        if (
            panic is not None
            and panic[1]
            and panic[0] <= exclude
            and len(found) == len(self.members)
        ):
            found = self._reasons(now, exclude, panic[0] | panic[1])
        if panic is None:
            # Those of before it left and came back are still in flight on the node of this id.
            in_flight = Counter(each.lease.node.id for each in self.open)
            full = {n: "recovering" for n, each in self.members.items() if each.full(in_flight[n])}
            if len(full | found) < len(self.members):
                found = full | found
        return found

    def _reasons(
        self, now: float, exclude: frozenset[int], admitted: frozenset[int]
    ) -> dict[int, str]:
        found: dict[int, str] = {}
        for node, member in self.members.items():
            down = member.status is UNHEALTHY and node not in admitted
            if member.drained:
                found[node] = "drained"
            elif down and not member.may_probe(now):
                found[node] = "unhealthy"
            elif member.rests_until > now:
                found[node] = "rate_limited"
            elif node in exclude:
                found[node] = "excluded"
        return found

    def retry_after(self, now: float, reasons: dict[int, str]) -> float | None:
        """Return the seconds until time gives a node back."""
        waits = []
        for node, reason in reasons.items():
            member = self.members[node]
            due = member.probe_due()
            if reason == "unhealthy" and due is not None:
                waits.append(max(due, member.rests_until) - now)  # it may be on cooldown besides
            elif reason == "rate_limited":
                waits.append(member.rests_until - now)
        return min(waits, default=None)


class BalancerMachine(RuleBasedStateMachine):
    """Does to a balancer and to its model the same things."""

    @initialize(
        make=st.sampled_from(STRATEGIES),
        size=st.integers(1, 4),
        threshold=st.none() | st.sampled_from([0.0, 0.5, 0.5, 1.0]),
    )
    def begin(self, make: Callable[[], Strategy[Any]], size: int, threshold: float | None) -> None:
        """Make a balancer of some nodes."""
        self.clock = ManualClock(100.0)
        policy = ConsecutiveFailurePolicy(THRESHOLD, RECOVERY, probe_interval=INTERVAL)
        self.health = HealthTracker(policy, self.clock)
        nodes = [Endpoint(node) for node in range(size)]
        self.balancer = Balancer(nodes, make(), health=self.health, panic_threshold=threshold)
        self.model = Model(threshold, {node: Member(weight=1) for node in range(size)})
        self.requests = 0
        self.total_picks = 0

    @rule(keys=st.lists(keys, min_size=1, max_size=5))
    def acquire(self, keys: list[int]) -> None:
        """Ask for leases; each must be given exactly when the model has a node for it."""
        for key in keys:
            self._acquire(key, frozenset())

    @rule(exclude=st.frozensets(ids, min_size=1, max_size=3), key=keys)
    def acquire_elsewhere(self, exclude: frozenset[int], key: int) -> None:
        """Ask for a lease on other nodes, as a retry does."""
        self._acquire(key, exclude)

    def _acquire(self, key: int, exclude: frozenset[int]) -> None:
        now = self.clock()
        self.model.refresh(now)
        reasons = self.model.reasons(now, exclude)
        try:
            lease = self.balancer.acquire(hash_key=key, exclude=exclude)
        except NoNodeAvailable as error:
            self._check_refusal(error, reasons)
            return
        member = self._chosen(lease.node, reasons)
        self.requests += 1
        probed = self._is_probe(lease.node.id, exclude)
        known_down = member.status is UNHEALTHY and not probed
        if probed:
            member.probe_of, member.probe_lapses = self.requests, 0.0  # an older one gives way
        self.model.open.append(Open(lease, member, now, self.requests, known_down))

    def _is_probe(self, node: Hashable, exclude: frozenset[int]) -> bool:
        """Whether what was sent to a node now is its probe, and not what panic sends there."""
        now, member = self.clock(), self.model.members[cast("int", node)]
        panic = self.model.panic(now)
        if member.status is not UNHEALTHY or (panic is not None and node in panic[0]):
            return False
        return member.may_probe(now) or not (panic is not None and panic[0] <= exclude)

    @rule(key=keys)
    def pick(self, key: int) -> None:
        """Ask for a node without a lease; a probe granted so lapses after an interval."""
        self.model.refresh(self.clock())
        reasons = self.model.reasons(self.clock(), frozenset())
        try:
            node = self.balancer.pick(hash_key=key)
        except NoNodeAvailable as error:
            self._check_refusal(error, reasons)
            return
        member = self._chosen(node, reasons)
        if self._is_probe(node.id, frozenset()):
            member.probe_lapses = self.clock() + INTERVAL

    def _chosen(self, node: Endpoint, reasons: dict[int, str]) -> Member:
        assert node.id in self.model.members, f"{node.id} has left"
        assert isinstance(node.id, int)
        assert node.id not in reasons, f"{node.id} was picked although {reasons[node.id]}"
        member = self.model.members[node.id]
        assert node.weight == member.weight
        member.picks += 1
        self.total_picks += 1
        return member

    def _check_refusal(self, error: NoNodeAvailable, reasons: dict[int, str]) -> None:
        assert reasons.keys() == self.model.members.keys(), "there was a node to give"
        assert error.total == len(reasons)
        assert dict(error.reasons) == dict(Counter(reasons.values()))
        wait = self.model.retry_after(self.clock(), reasons)
        assert (error.retry_after is None) == (wait is None)
        assert wait is None or abs(wait - (error.retry_after or 0.0)) < 1e-9

    @precondition(lambda self: self.model.open)
    @rule(data=st.data(), outcome=st.sampled_from(Outcome), pause=st.integers(0, 8))
    def end(self, data: st.DataObject, outcome: Outcome, pause: int) -> None:
        """End one of the requests under way, twice."""
        request = self._take(data)
        ends: dict[Outcome, Callable[[], bool]] = {
            Outcome.SUCCESS: request.lease.success,
            Outcome.FAILURE: request.lease.failure,
            Outcome.RATE_LIMITED: lambda: request.lease.rate_limited(pause),
            Outcome.CANCELLED: request.lease.cancel,
        }
        assert ends[outcome]()
        assert not ends[outcome]()
        now, member = self.clock(), request.member
        if outcome is Outcome.SUCCESS:
            member.answered = now
        if outcome in (Outcome.SUCCESS, Outcome.FAILURE):
            probe = request.number == member.probe_of
            began: float | None = request.began
            if request.known_down or (self.model.threshold is not None and member.ailing(now)):
                began = None
            member.report(outcome, now, began, probe=probe, answered=member.answered)
        elif outcome is Outcome.RATE_LIMITED:
            member.rests_until = max(member.rests_until, now + pause)
        self._give_probe_back(request)

    @precondition(lambda self: self.model.open)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        """Lose a lease without a word, as a program with a fault does."""
        request = self._take(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del request.lease
            gc.collect(0)
        self._give_probe_back(request)

    def _take(self, data: st.DataObject) -> Open:
        return self.model.open.pop(data.draw(st.integers(0, len(self.model.open) - 1)))

    def _give_probe_back(self, request: Open) -> None:
        if request.member.probe_of == request.number:
            request.member.probe_of = None

    @rule(node=ids, outcome=st.sampled_from([Outcome.SUCCESS, Outcome.FAILURE]))
    def report(self, node: int, outcome: Outcome) -> None:
        """Hear of a member from elsewhere, such as an active check."""
        if node in self.model.members:
            self.health.report(node, outcome)
            self.model.members[node].report(outcome, self.clock())

    @rule(node=ids, wait=st.sampled_from([0.0, INTERVAL]))
    def bring_down(self, node: int, wait: float) -> None:
        """Have a member fail until it is down; wait until its probe is due, or do not."""
        for _ in range(THRESHOLD):
            self.report(node, Outcome.FAILURE)
        self.clock.advance(wait)

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.5, 5.0, 20.0]))
    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    @rule(node=ids, weight=weights, method=st.sampled_from(["add", "remove", "drain", "resume"]))
    def change(self, node: int, weight: int, method: str) -> None:
        """Add, remove, drain or resume a node; what does not fit the members is refused."""
        members = self.model.members
        try:
            if method == "add":
                self.balancer.add(Endpoint(node, weight))
            else:
                getattr(self.balancer, method)(node)
        except (ValueError, UnknownNode):
            assert (method == "add") == (node in members)
            return
        assert (method == "add") == (node not in members)
        if method == "add":
            members[node] = Member(weight)
        elif method == "remove":
            del members[node]
        else:
            members[node].draining = method == "drain"
        self.model.refresh(self.clock())

    @rule(nodes=st.lists(st.tuples(ids, weights), min_size=2, max_size=4))
    def replace(self, nodes: list[tuple[int, int]]) -> None:
        """Replace all members; a list with an id twice is refused and changes nothing."""
        try:
            self.balancer.replace(Endpoint(node, weight) for node, weight in nodes)
        except ValueError:
            assert len({node for node, _ in nodes}) < len(nodes)
            return
        before = self.model.members
        self.model.members = {node: before.get(node, Member(weight)) for node, weight in nodes}
        for node, weight in nodes:
            self.model.members[node].weight = weight
        self.model.refresh(self.clock())

    @invariant()
    def status_is_that_of_the_model(self) -> None:
        """Members, counts, picks, drains and health are those of the model."""
        open_by_id = Counter(request.lease.node.id for request in self.model.open)
        shown = [
            (status.id, status.in_flight, status.picks, status.drained, status.health)
            for status in self.balancer.status()
        ]
        expected = [
            (node, open_by_id[node], member.picks, member.drained, member.status)
            for node, member in self.model.members.items()
        ]
        assert shown == expected
        assert [node.id for node in self.balancer.nodes] == list(self.model.members)

    @invariant()
    def only_members_are_remembered(self) -> None:
        """The tracker knows of nobody who has left."""
        assert self.health.snapshot().keys() <= self.model.members.keys()

    @invariant()
    def explain_agrees(self) -> None:
        """What explain says of who may be chosen is what the model says."""
        told = self.balancer.explain(hash_key=7)
        panic = self.model.panic(self.clock())
        assert (told.panic is None) == (panic is None)
        assert told.panic is None or told.panic.last_resort == (
            not told.panic.available and not told.panic.ailing
        )
        assert told.ineligible == self.model.reasons(self.clock(), frozenset())
        assert (told.choice is None) == (not told.eligible) or not told.foreseeable

    def teardown(self) -> None:
        """End what is under way; nothing is in flight then."""
        if hasattr(self, "balancer"):
            for request in self.model.open:
                assert request.lease.cancel()
            assert not any(status.in_flight for status in self.balancer.status())


TestBalancer = BalancerMachine.TestCase
TestBalancer.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
