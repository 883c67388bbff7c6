"""Plan of checks: which node is due when, and what becomes of the answers.

All that the thread checker and the asyncio checker decide is decided here, without threads, tasks
or waiting: they ask the plan what to start, tell it what came of it, and wait as long as it says.
So scheduling is tested by moving a clock.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections.abc import Hashable
from enum import Enum
from itertools import count
from random import Random
from typing import Generic, TypeVar

from loadwise._text import visible
from loadwise.balancer import Balancer
from loadwise.health import HealthStatus, Probe
from loadwise.health_checks.checkable import tracker_of
from loadwise.health_checks.leader import Lead, Leader
from loadwise.health_checks.probe import no_answer
from loadwise.health_checks.round import Round
from loadwise.health_checks.settings import CheckSettings
from loadwise.nodes import node_id
from loadwise.outcome import Outcome

__all__ = ["Check", "CheckPlan"]

N = TypeVar("N")

_LOOK_EVERY = 0.5
_LONGEST_REASON = 200

_log = logging.getLogger("loadwise")


class _Phase(Enum):
    IDLE = "idle"
    RUNNING = "running"
    OVERDUE = "overdue"  # its time is over, its verdict is given, but the probe has not returned


class Check(Generic[N]):
    """The checks of one node.

    Attributes:
        id: The node's id.
        node: The node.
        due: When it is to be asked next.
        rounds: Who waits for its next verdict.
        rounds_after: Who waits for the verdict after that of the probe that is under way.
    """

    __slots__ = (
        "began",
        "deadline",
        "due",
        "id",
        "node",
        "phase",
        "rounds",
        "rounds_after",
        "streak",
    )

    def __init__(self, node: N) -> None:
        self.id: Hashable = node_id(node)
        self.node = node
        self.due = math.inf
        self.deadline = math.inf
        self.began = 0.0
        self.phase = _Phase.IDLE
        self.streak = 0  # passes in a row, or failures in a row below zero
        self.rounds: list[Round] = []
        self.rounds_after: list[Round] = []

    @property
    def all_rounds(self) -> list[Round]:
        """Everyone who waits for a verdict."""
        return self.rounds + self.rounds_after


class CheckPlan(Generic[N]):
    """The checks of a balancer's members.

    Args:
        balancer: Whose members to check.
        settings: How.
        leader: Tells whether this process checks at intervals; ``None`` if it does in any case.
        regular: Whether to check at intervals. If not, only `check_now` has nodes checked, until
            `go_regular` is called.

    A node is asked again only when the probe before has returned. If that takes longer than the
    timeout, it counts as a failure, and so does each further time at which the node would have
    been asked.

    Not thread-safe: one thread or event loop owns it.

    Cost: O(log n) per check, and O(n) when membership changes.
    """

    def __init__(
        self,
        balancer: Balancer[N],
        settings: CheckSettings,
        leader: Leader | None = None,
        *,
        regular: bool = True,
    ) -> None:
        self._balancer = balancer
        self._regular = regular
        self._lead = Lead(leader)
        self._tracker = tracker_of(balancer, settings)
        self._settings = settings
        self._rng = Random() if settings.rng is None else settings.rng
        self._checks: dict[Hashable, Check[N]] = {}
        self._gone: dict[Hashable, Check[N]] = {}
        self._running: dict[Hashable, Check[N]] = {}
        self._queue: list[tuple[float, int, Check[N]]] = []
        self._sequence = count()
        self._nodes: tuple[N, ...] | None = None
        self._look_at = -math.inf
        self._health_version = self._tracker.version

    @property
    def idle(self) -> bool:
        """True if there is nothing to do until `check_now` or `go_regular` is called."""
        return not (self._regular or self._queue or self._running)

    def go_regular(self, now: float) -> None:
        """Check at intervals from now on; each node is due as planned at its last check."""
        if not self._regular:
            self._regular = True
            self._look_at = -math.inf  # to ask who leads
            self._resume(now)

    @property
    def leads(self) -> bool:
        """True if this process checks at intervals, as far as others may do so instead."""
        return self._lead.leads

    def _resume(self, now: float) -> None:
        """Plan the next check of every node that has none planned or under way."""
        if self._lead.leads:
            for check in self._checks.values():
                if check.phase is not _Phase.RUNNING and not check.rounds:
                    self._schedule(check, check.due if check.due > now else self._soon(now))

    def _follow_leader(self, now: float) -> None:
        """Begin to check at intervals, or leave that to others, as the leader says."""
        before = self._lead.leads
        self._lead.ask()
        if self._lead.leads == before:
            return
        if self._lead.leads:
            self._resume(now)
        else:
            self._queue = [entry for entry in self._queue if entry[2].rounds]
            heapq.heapify(self._queue)

    def resign(self) -> None:
        """Let another process check."""
        self._lead.resign()

    def check_now(self, round_: Round, now: float) -> None:
        """Have every member checked at the next turn, or as soon as there is room.

        Args:
            round_: Is told the verdicts of probes that have not begun yet. If a probe is under
                way, the node is asked again when it has returned; but if it takes too long, that
                is the verdict.
            now: The time.
        """
        self._look(now)
        round_.begin(self._checks)
        for check in self._checks.values():
            if check.phase is _Phase.RUNNING:
                check.rounds_after.append(round_)
                continue
            if not check.rounds:
                self._push(check, now)
            check.rounds.append(round_)

    def stop(self) -> None:
        """End every round that waits for verdicts."""
        waiting = {each for check in self._checks.values() for each in check.all_rounds}
        for check in self._checks.values():
            check.rounds, check.rounds_after = [], []
        for round_ in waiting:
            round_.stop()

    def turn(self, now: float) -> tuple[list[Check[N]], list[Check[N]]]:
        """Move on to ``now``.

        Returns:
            The checks to start, and those whose time is over and which may be interrupted.
        """
        if now >= self._look_at:
            self._look(now)
            if self._regular:
                self._follow_leader(now)
        overdue = [check for check in self._running.values() if check.deadline <= now]
        for check in overdue:
            del self._running[check.id]
            check.phase = _Phase.OVERDUE
            # It is the verdict for those, too, who came while it was under way: to ask again now
            # would only tell that there is still no answer.
            check.rounds, check.rounds_after = check.all_rounds, []
            self._judge(check, no_answer(self._settings.timeout), now, check.began)
        return self._begin(now), overdue

    def ended(self, check: Check[N], fault: str | None, now: float) -> None:
        """Record that a probe has returned.

        Args:
            check: What `turn` gave.
            fault: What was wrong; ``None`` for a pass.
            now: The time.
        """
        if self._is_open(check):
            fault = None if fault is None else visible(fault)  # a server may say what it likes
            self._judge(check, fault, now, check.began)

    def put_off(self, check: Check[N], now: float) -> None:
        """Take back a check that could not be made, for reasons that are not the node's."""
        if self._is_open(check):
            self._schedule(check, self._after(self._settings.interval, now))
            check.rounds, check.rounds_after = check.all_rounds, []
            self._settle(check, "it could not be checked", now)

    def wait(self, now: float) -> float:
        """Return for how many seconds there is nothing to do."""
        times = [self._look_at, *(check.deadline for check in self._running.values())]
        if self._queue and self._has_room():
            times.append(self._queue[0][0])
        return max(0.0, min(times) - now)

    def _is_open(self, check: Check[N]) -> bool:
        """Record that nothing is under way, and return whether the verdict is still open."""
        was, check.phase = check.phase, _Phase.IDLE
        if self._gone.get(check.id) is check:
            del self._gone[check.id]
        if was is _Phase.OVERDUE:
            return False
        del self._running[check.id]
        return True

    def _begin(self, now: float) -> list[Check[N]]:
        begun: list[Check[N]] = []
        while self._queue and self._queue[0][0] <= now:
            entry = heapq.heappop(self._queue)
            due, _, check = entry
            if check.due != due or self._checks.get(check.id) is not check:
                continue
            if check.phase is _Phase.OVERDUE:
                self._judge(check, "still no answer to the check before", now, None)
            elif check.phase is _Phase.IDLE:
                if not self._has_room():
                    heapq.heappush(self._queue, entry)
                    break
                check.phase = _Phase.RUNNING
                check.deadline = now + self._settings.timeout
                check.began = self._tracker.clock()
                self._running[check.id] = check
                begun.append(check)
        return begun

    def _has_room(self) -> bool:
        return len(self._running) < self._settings.concurrency

    def _judge(self, check: Check[N], fault: str | None, now: float, began: float | None) -> None:
        """Count a verdict, report it if it is time for that, and plan the next check.

        Args:
            check: Whose.
            fault: What was wrong; ``None`` for a pass.
            now: The time.
            began: What the tracker's clock showed when the node was asked, if it was.
        """
        if not self._is_member(check, now):
            return
        settings = self._settings
        if fault is None:
            check.streak = max(0, check.streak) + 1
            tell = check.streak >= settings.healthy_threshold
        else:
            check.streak = min(0, check.streak) - 1
            tell = -check.streak >= settings.unhealthy_threshold
        if tell:
            self._report(check, fault, now, began)
        interval = settings.interval
        if settings.unhealthy_interval is not None and (
            fault is not None or self._tracker.status(check.id) is not HealthStatus.HEALTHY
        ):
            interval = settings.unhealthy_interval
        self._schedule(check, self._after(interval, now))
        self._settle(check, fault, now)

    def _settle(self, check: Check[N], fault: str | None, now: float) -> None:
        """Tell a verdict to those who wait for it, and let the others have the next one."""
        rounds, check.rounds, check.rounds_after = check.rounds, check.rounds_after, []
        for round_ in rounds:
            round_.settle(check.id, fault)
        if check.rounds:
            self._push(check, now)

    def _report(self, check: Check[N], fault: str | None, now: float, began: float | None) -> None:
        outcome, reason = Outcome.SUCCESS, None
        if fault is not None:
            outcome, reason = Outcome.FAILURE, f"active check: {fault}"[:_LONGEST_REASON]
        # A check of a node that is down stands for the probe by a request: while checks find that
        # it is still down, no request need be spent on that.
        down_since = self._tracker.health(check.id).down_since
        is_probe = down_since is not None and (began is None or began > down_since)
        try:
            self._tracker.report(
                check.id, outcome, reason, began, probe=Probe() if is_probe else None
            )
        except Exception:  # noqa: BLE001 - a policy may raise what it likes
            _log.exception("what a health check found of node %r could not be reported", check.id)
        # It may have left while this was reported, and then nothing is to be remembered of it.
        if not self._is_member(check, now):
            self._tracker.remove(check.id)

    def _is_member(self, check: Check[N], now: float) -> bool:
        if self._balancer.nodes is not self._nodes:
            self._look(now)
        return self._checks.get(check.id) is check

    def _look(self, now: float) -> None:
        """Follow what happened in the balancer."""
        self._look_at = now + min(_LOOK_EVERY, self._settings.interval)
        nodes = self._balancer.nodes
        if nodes is not self._nodes:
            self._nodes = nodes
            self._follow({node_id(node): node for node in nodes}, now)
        self._hasten(now)

    def _follow(self, members: dict[Hashable, N], now: float) -> None:
        for identity in [identity for identity in self._checks if identity not in members]:
            check = self._checks.pop(identity)
            for round_ in check.all_rounds:
                round_.drop(identity)
            check.rounds, check.rounds_after = [], []
            if check.phase is not _Phase.IDLE:
                self._gone[identity] = check
            if self._tracker is not self._balancer.health:  # else the balancer has done it
                self._tracker.remove(identity)
        for identity, node in members.items():
            if identity in self._checks:
                self._checks[identity].node = node
                continue
            # One that was asked when it left and is back before it answered is not asked twice.
            check = self._gone.pop(identity) if identity in self._gone else Check(node)
            check.node, check.streak = node, 0
            self._checks[identity] = check
            self._schedule(check, self._soon(now))

    def _hasten(self, now: float) -> None:
        """Let nodes that requests have found unhealthy be asked at the shorter interval."""
        interval = self._settings.unhealthy_interval
        if interval is None or self._health_version == self._tracker.version:
            return
        self._health_version = self._tracker.version
        latest = now + interval * (1 + self._settings.jitter)
        for identity, _ in self._tracker.down():
            check = self._checks.get(identity)
            if check is not None and check.phase is _Phase.IDLE and check.due > latest:
                self._schedule(check, self._after(interval, now))

    def _soon(self, now: float) -> float:
        return now + self._settings.interval * self._settings.jitter * self._rng.random()

    def _after(self, interval: float, now: float) -> float:
        varied = interval * (1 + self._settings.jitter * (2 * self._rng.random() - 1))
        # Never at this very moment, however short the interval, or a turn would not end.
        return max(now + varied, math.nextafter(now, math.inf))

    def _schedule(self, check: Check[N], due: float) -> None:
        """Plan the next regular check."""
        check.due = due
        if self._regular and self._lead.leads:
            self._push(check, due)

    def _push(self, check: Check[N], due: float) -> None:
        check.due = due
        heapq.heappush(self._queue, (due, next(self._sequence), check))
