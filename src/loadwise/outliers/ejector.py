"""Sweeps over the members of one balancer, which eject outliers and let them back."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from random import Random
from threading import RLock
from typing import Final, NamedTuple

from loadwise._fork import ForkAware, reset_in_child
from loadwise._log import log_warning
from loadwise.health import HealthStatus, HealthTracker
from loadwise.load import Cell
from loadwise.outcome import Outcome
from loadwise.outliers.ejection import Ejection, EjectionTimes, Grid
from loadwise.outliers.rules import FailureShare, Sample, SlowShare, SuccessRate
from loadwise.outliers.sharing import SharedEjections
from loadwise.outliers.significance import chance_of_run
from loadwise.outliers.watched import EjectorMember, WatchedMember

__all__ = ["Ejector", "Rules", "Share"]

Share = Callable[[Callable[[Hashable, Ejection], None]], SharedEjections]
"""Shares ejections with other processes; told who wants to know of theirs."""

_MOST_ASKED: Final = 32
"""So many other nodes at most tell how often the rest fails, where a run of failures is judged."""


class Rules(NamedTuple):
    """Rules of an `OutlierDetection`; see there."""

    interval: float
    max_ejected: float
    consecutive_failures: int | None
    success_rate: SuccessRate | None
    failure_share: FailureShare | None
    slow_share: SlowShare | None
    significance: float | None
    probe: bool


class Ejector(ForkAware):
    """Ejects members of one balancer that do worse than the rest.

    A sweep is made by whoever comes first after it is due: who looks for a node, or reports a
    failure. Who comes meanwhile goes on without waiting.

    Args:
        name: The balancer's, for the log.
        rules: What makes an outlier.
        times: How long ejections last.
        members: Returns the balancer's members.
        health: Where ejected nodes are UNHEALTHY; its clock is the balancer's.
        rng: Source of random numbers.
        on_ejection: Told of each ejection; ``None`` if nobody wants to know.
        share: Shares ejections with other processes; ``None`` where they are of this one alone.

    Attributes:
        due: When the next sweep is due, by the balancer's clock.

    Thread-safety: a lock for sweeps and failures; none for successes, and none while health, the
    log or a collector are told.

    Cost: O(members) for a sweep; O(1) for a failure.
    """

    def __init__(
        self,
        name: str,
        rules: Rules,
        times: EjectionTimes,
        members: Callable[[], Sequence[EjectorMember]],
        health: HealthTracker,
        rng: Random,
        on_ejection: Callable[[Hashable, Ejection], None] | None,
        *,
        share: Share | None = None,
    ) -> None:
        self._name = name
        self._rules = rules
        self._times = times
        self._members = members
        self._health = health
        self._clock = health.clock
        self._rng = rng
        self._on_ejection = on_ejection
        self._grid = Grid(health.clock(), rules.interval)
        self._swept = 0
        self._slow_above = math.inf
        self._watched: dict[Hashable, WatchedMember] = {}
        self._ejected: dict[Hashable, WatchedMember] = {}
        # What the tracker is to be told, in order.
        self._news: deque[tuple[WatchedMember, Ejection, bool]] = deque()
        # What other processes have ejected, and is not yet known here.
        self._heard: deque[tuple[Hashable, Ejection]] = deque()
        self._renew_locks()
        # Before the last sweep the next is due, too: then the clock has stepped back.
        self._swept_at, self.due = self._grid.origin, self._grid.time(1)
        self._shared = None if share is None else share(self.hear)
        reset_in_child(self)

    def _renew_locks(self) -> None:
        # Re-entrant: the collector may strike while it is held, and end a lease by a failure.
        self._lock = RLock()
        # Emptied by whoever tells the tracker: that is atomic, a flag is not.
        self._teller = [None]

    def _after_fork(self) -> None:
        self._renew_locks()
        # The child counts from zero, for slots of its own; ejections go on.
        for member in self._members():
            watched = self._watched.get(member.id)
            if watched is not None:
                watched.adopt(member)

    def is_swept(self, due: float) -> bool:
        """Tell whether the last sweep was the one after which the next was ``due``, and is yet."""
        return due == self.due and self._swept_at <= self._clock() < due

    @property
    def ejections(self) -> dict[Hashable, Ejection]:
        """The ejections that last, by id. O(ejected)."""
        self.catch_up()
        with self._lock:
            return {
                node_id: each.ejection
                for node_id, each in self._ejected.items()
                if each.ejection is not None and each.member.alive
            }

    def catch_up(self) -> None:
        """Make the sweep that is due, if one is, unless another thread does."""
        now = self._clock()
        is_due = not self._swept_at <= now < self.due
        if (is_due or self._heard) and self._lock.acquire(blocking=False):
            try:
                self._take_over()
                if not self._swept_at <= now < self.due:
                    self._sweep(now)
            finally:
                self._lock.release()
        self._tell()

    def hear(self, node_id: Hashable, ejection: Ejection) -> None:
        """Note that another process has ejected a node, which the tracker has been told."""
        self._heard.append((node_id, ejection))

    def _take_over(self) -> None:
        """Count what others have ejected as ejected. O(members) for each."""
        while self._heard:
            node_id, ejection = self._heard.popleft()
            member = next((each for each in self._members() if each.id == node_id), None)
            if member is None:
                continue
            watched = self._watch(member)
            if watched.ejection is None and self._health.is_ejected(node_id):
                watched.ejection, watched.is_told = ejection, True
                watched.count = max(watched.count, ejection.count)
                self._ejected[node_id] = watched

    def failed(self, member: EjectorMember) -> None:
        """Count a failure of a member, and eject it if that is one too many in a row."""
        self.catch_up()
        with self._lock:
            self._take_over()
            watched = self._watch(member)
            if watched.ejection is None:
                watched.fail()
                longest = self._rules.consecutive_failures
                if longest is not None and watched.run >= longest:
                    self._judge_run(watched)
        self._tell()

    def lift(self, node_id: Hashable) -> bool:
        """End the ejection of a member now; return whether there was one."""
        with self._lock:
            watched = self._ejected.get(node_id)
            ejection = watched.ejection if watched is not None and watched.member.alive else None
            if watched is not None and ejection is not None:
                self._end(watched, ejection, self._clock())
        self._tell()
        by_another = ejection is None and self._health.is_ejected(node_id)
        if by_another:
            self._health.readmit(node_id, probe=self._rules.probe)
        return by_another or ejection is not None

    def observe(self, slow: Cell, latency: float, outcome: Outcome, _now: float) -> None:
        """Count an answer that took too long."""
        if latency > self._slow_above and outcome is Outcome.SUCCESS:
            slow.append(None)

    def _watch(self, member: EjectorMember) -> WatchedMember:
        watched = self._watched.get(member.id)
        if watched is None or watched.member is not member:
            shared = None if self._shared is None else self._shared.results(member.id)
            watched = self._watched[member.id] = WatchedMember(member, shared)
        if self._rules.slow_share is not None and watched.slow is None:
            watched.slow = Cell()
            member.observers = (*member.observers, (self.observe, watched.slow))
        return watched

    def _judge_run(self, watched: WatchedMember) -> None:
        significance, run = self._rules.significance, watched.run
        if significance is None:
            watched.run = 0  # as Envoy: whether or not it may be ejected
        if significance is None or self._chance_of_run(watched) < significance:
            why = "1 failure" if run == 1 else f"{run} failures in a row"
            self._eject(watched, "consecutive_failures", why, self._clock())

    def _chance_of_run(self, watched: WatchedMember) -> float:
        """Return the chance of such a run at any node in an interval, if all are like the rest.

        O(1): of a large fleet, some of the rest are asked, taken at random.
        """
        members = self._members()
        bad = rest = asked = start = 0
        if (number := len(members)) > _MOST_ASKED + 1:
            start = self._rng.randrange(number)
        for step in range(min(number, _MOST_ASKED + 1)):
            member = members[(start + step) % number]
            other = self._watch(member)
            if other is watched or other.ejection is not None or asked == _MOST_ASKED:
                continue
            asked += 1
            now = other.results()
            bad += now.bad + other.before.bad
            rest += now.total + other.before.total
        if not rest:
            return 1.0
        # As many runs could have begun as there were requests.
        begun = rest * max(1.0, (number - 1) / asked) + watched.results().total
        return chance_of_run(watched.run, bad, rest) * begun

    def _sweep(self, now: float) -> None:
        """Let back whose ejection is over, eject outliers, and take off from what was counted."""
        grid, last = self._grid, self._swept
        if now < self._swept_at:
            self._step_back(self._swept_at - now)
        self._swept = max(last + (now >= self.due), grid.number(now))
        # First of all, so that others go on with the interval that begins now.
        self._swept_at, self.due = now, grid.time(self._swept + 1)
        for watched in [*self._ejected.values()]:
            self._end_if_over(watched, now)
        swept = [self._watch(member) for member in self._members()]
        taken = [watched.take() for watched in swept]
        in_fleet = [i for i, watched in enumerate(swept) if watched.ejection is None]
        busy = [i for i in in_fleet if taken[i].total]
        self._judge([swept[i] for i in busy], [taken[i] for i in busy], now)
        for watched in swept:
            if watched.count and watched.ejection is None:
                self._forgive(watched, last)
        if len(self._watched) > len(swept):
            self._watched = {watched.member.id: watched for watched in swept}

    def _judge(self, swept: list[WatchedMember], samples: list[Sample], now: float) -> None:
        rules, significance = self._rules, self._rules.significance
        if significance is not None and self._shared is not None:
            # Each process judges the results of all, so each but once in so many times.
            judges = 0
            for watched in swept:
                judges |= watched.judges
            significance /= 1 + judges.bit_count()
        for name, rule in (
            ("success_rate", rules.success_rate),
            ("failure_share", rules.failure_share),
            ("slow_share", rules.slow_share),
        ):
            if rule is not None:
                for which, why in rule.find(samples, significance):
                    self._eject(swept[which], name, why, now)
        if rules.slow_share is not None:
            latencies = (watched.member.latency for watched in swept)
            self._slow_above = rules.slow_share.limit(
                each for each in latencies if each is not None
            )

    def _eject(self, watched: WatchedMember, rule: str, why: str, now: float) -> None:
        """Eject a node, unless it is ejected, or too many are."""
        if watched.ejection is not None or not watched.member.alive:
            return
        if self._is_enough(sum(each.member.alive for each in self._ejected.values())):
            return
        node_id, shared = watched.member.id, self._shared
        with nullcontext() if shared is None else shared.order(node_id):
            if shared is not None:
                if shared.is_out(node_id, now):  # by another process, of which is yet to be heard
                    return
                ids = [member.id for member in self._members()]
                if self._is_enough(sum(i in self._ejected or shared.is_out(i, now) for i in ids)):
                    return
            watched.count = self._times.next(watched.count)
            until = now + self._times.seconds(watched.count)
            if shared is not None:
                # For the others it lasts until the sweep that may end it here.
                until = self._grid.time(self._grid.first_from(until))
                shared.keep(node_id, until)
            watched.ejection = Ejection(now, until, watched.count, f"ejected: {why}", rule)
        watched.is_told = False
        self._ejected[node_id] = watched
        self._news.append((watched, watched.ejection, True))

    def _is_enough(self, ejected: int) -> bool:
        """Tell whether with so many ejected no other may be."""
        share = ejected / max(1, len(self._members()))
        return bool(ejected) and share >= self._rules.max_ejected

    def _end_if_over(self, watched: WatchedMember, now: float) -> None:
        """End an ejection whose time has come, or whose node is no member or ejected no more."""
        ejection, member = watched.ejection, watched.member
        if ejection is None or self._ejected.get(member.id) is not watched:
            return
        if not member.alive:
            del self._ejected[member.id]
            return
        ended_elsewhere = watched.is_told and not self._health.is_ejected(member.id)
        if now < ejection.until and not ended_elsewhere:
            return
        self._end(watched, ejection, now)

    def _end(self, watched: WatchedMember, ejection: Ejection, now: float) -> None:
        del self._ejected[watched.member.id]
        watched.ejection = None
        if self._shared is not None:
            self._shared.keep(watched.member.id, 0.0)
        watched.forget()
        watched.returned = None
        if not self._rules.probe:
            # Had somebody come in time, it would be back since then.
            watched.returned = self._grid.first_from(min(now, ejection.until))
        self._news.append((watched, ejection, False))

    def _forgive(self, watched: WatchedMember, last: int) -> None:
        """Take one from a node's count for each interval spent in the fleet since ``last``."""
        if watched.returned is not None:
            well = max(0, self._swept - max(last, watched.returned))
            watched.count = max(0, watched.count - well)
        elif self._health.status(watched.member.id) is not HealthStatus.UNHEALTHY:
            # Its probe has gone well, and that is seen at the sweep after it.
            watched.returned = self._swept

    def _step_back(self, seconds: float) -> None:
        """Move all times back by as much as the clock has stepped back."""
        self._grid.origin -= seconds
        self.due -= seconds
        for watched in self._watched.values():
            if (ejection := watched.ejection) is not None:
                since, until = ejection.since - seconds, ejection.until - seconds
                watched.ejection = replace(ejection, since=since, until=until)

    def _tell(self) -> None:
        """Tell the tracker who is ejected or back, in order, and the log and metrics of ejections.

        Outside the lock, for listeners and collectors are the user's. One thread tells at a time,
        and what others add meanwhile, too.
        """
        while self._news:
            try:
                del self._teller[0]
            except IndexError:  # whoever has it sees what there is to tell
                return
            try:
                while self._news:
                    self._act(*self._news.popleft())
            finally:
                self._teller.append(None)

    def _act(self, watched: WatchedMember, ejection: Ejection, begins: bool) -> None:  # noqa: FBT001 - news
        member = watched.member
        if not begins:
            self._health.readmit(member.id, probe=self._rules.probe)
            return
        if not member.alive:
            return
        probed_from = self._grid.time(self._grid.first_from(ejection.until))
        if not self._health.eject(member.id, ejection.reason, probed_from, member.succeeded_at):
            # Another balancer with the same tracker was quicker: the ejection is its own.
            with self._lock:
                if watched.ejection is not None and self._ejected.pop(member.id, None) is watched:
                    watched.ejection = None
                    if self._shared is not None:
                        self._shared.keep(member.id, 0.0)
            return
        watched.is_told = True
        if self._shared is not None:
            self._shared.tell(member.id, ejection)
        if not member.alive:  # it has left meanwhile, and perhaps come back as another
            self._health.readmit(member.id, probe=False)
            return
        words, lasts = ejection.reason, ejection.until - ejection.since
        log_warning("balancer %r: node %r is %s, for %g s", self._name, member.id, words, lasts)
        if self._on_ejection is not None:
            self._on_ejection(member.id, ejection)
