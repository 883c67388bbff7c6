"""Snapshots of balancers that all viewers share, and their history."""

from __future__ import annotations

import time
from collections.abc import Generator, Hashable, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Final

from loadwise._fork import ForkAware, reset_in_child
from loadwise.clock import Clock
from loadwise.integrations._status_page.facts import BalancerFacts, PageFacts, Shown, facts_of
from loadwise.integrations._status_page.history import History, Point

__all__ = ["INTERVAL", "StatusFeed"]

INTERVAL: Final = 1.0
"""Seconds from snapshot to snapshot, at least."""
_SHARE: Final = 20.0
"""Times that a snapshot cost until the next one: so it takes a twentieth of a core at most."""


class StatusFeed(ForkAware):
    """Takes a snapshot when somebody looks and the last one is too old.

    Without viewers nothing is done. A snapshot is O(nodes); there is one a second, and fewer where
    taking them, and rendering them for all viewers, would cost more than a twentieth of a core.

    Args:
        balancers: The balancers to show, each with the name of its strategy.
        clock: Source of monotonic seconds.
        spent: Source of the seconds of a core that this thread has used. While other threads run,
            a snapshot lasts longer than that.

    Thread-safety: full. One thread takes a snapshot, others that need one wait for it. In a forked
    child the history begins anew.
    """

    def __init__(
        self,
        balancers: Sequence[tuple[Shown, str]],
        clock: Clock = time.monotonic,
        spent: Clock = time.thread_time,
    ) -> None:
        self._balancers = tuple(balancers)
        self._clock = clock
        self._spent = spent
        self._number = 0
        self._after_fork()
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._lock = Lock()
        self._facts: PageFacts | None = None
        self._expired = False
        self._rendering = 0.0
        self._histories = tuple(History() for _ in self._balancers)

    def due_in(self) -> float:
        """Return the seconds until a new snapshot may be taken; 0 if one is due."""
        facts = self._facts
        if facts is None or self._expired:
            return 0.0
        return max(0.0, facts.when + facts.interval - self._clock())

    def expire(self) -> None:
        """Have the next one who looks take a snapshot, whatever the age of the last."""
        self._expired = True

    def current(self) -> PageFacts:
        """Return a snapshot that is not too old. It may take one, O(nodes)."""
        facts = self._facts
        if facts is not None and self.due_in():
            return facts
        with self._lock:
            if self._facts is None or not self.due_in():
                self._facts = self._taken()
            return self._facts

    @contextmanager
    def rendering(self) -> Generator[None, None, None]:
        """Count what the block does, which one thread at a time may, as a cost of the page."""
        began = self._spent()
        try:
            yield
        finally:
            self._rendering += self._spent() - began

    def points(self, place: int, identity: Hashable, now: float) -> list[Point]:
        """Return the history of a node of the balancer at ``place``, the oldest first."""
        with self._lock:
            return self._histories[place].points(identity, now)

    def _taken(self) -> PageFacts:
        began, self._expired = self._clock(), False
        spent = self._spent()
        told = tuple(
            self._read(balancer, strategy, history, began)
            for (balancer, strategy), history in zip(self._balancers, self._histories, strict=True)
        )
        self._number += 1
        # What viewers have had rendered of the last one they will of this one, too.
        cost, self._rendering = self._spent() - spent + self._rendering, 0.0
        interval = max(INTERVAL, _SHARE * cost)
        return PageFacts(self._number, began, time.time(), interval, told)

    @staticmethod
    def _read(balancer: Shown, strategy: str, history: History, now: float) -> BalancerFacts:
        """Return how a balancer is, with rates by its history, and add it to that."""
        facts = facts_of(balancer, strategy, history.rates(now))
        history.add(
            now,
            [each.status.id for each in facts.nodes],
            [each.status.picks for each in facts.nodes],
            bytes(each.verdict.severity for each in facts.nodes),
        )
        return facts
