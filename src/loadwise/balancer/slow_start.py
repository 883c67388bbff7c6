"""Slow start: a node that is new, or back, is given its share of requests little by little."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import RLock
from typing import Any, Final, Protocol

from loadwise._fork import ForkAware, reset_in_child
from loadwise._membership import Membership, WarmUp
from loadwise._numbers import finite
from loadwise.clock import Clock
from loadwise.health import HealthStatus

__all__ = ["Phase", "SharedStarts", "SlowStart", "SlowStarts"]

_STEPS: Final = 50
_GRACE: Final = 1.0


@dataclass(frozen=True, slots=True)
class SlowStart:
    """Rule of slow start (warm-up): how the weight of a node that is new or back grows.

    For nodes that are slow at first: with cold caches, code that is compiled as it runs, or pools
    of connections to be filled.

    Args:
        window: Seconds until a node has its full weight, finite and > 0.
        aggression: How the weight grows, finite and > 0: 1 in step with time, more than 1 quickly
            at first, less than 1 slowly at first.
        min_weight: Part of its weight that a node has from the first moment on, > 0 and at most 1.

    Raises:
        TypeError: An argument is not a number.
        ValueError: An argument is out of range.

    A node has the part ``max(min_weight, (t / window) ** (1 / aggression))`` of its weight, t
    seconds after it joined or was HEALTHY again.

    Immutable, so thread-safe.

    Source: the slow start mode of Envoy's load balancers.

    Example:
        >>> rule = SlowStart(window=60.0, aggression=2.0)
        >>> [round(rule.factor(seconds), 3) for seconds in (0.0, 6.0, 60.0)]
        [0.1, 0.316, 1.0]
    """

    window: float = 60.0
    aggression: float = 1.0
    min_weight: float = 0.1

    def __post_init__(self) -> None:
        for name, must, most in (
            ("window", "a finite number of seconds above 0", math.inf),
            ("aggression", "a finite number above 0", math.inf),
            (
                "min_weight",
                "a part of a node's weight, above 0 (to warm up by)",
                1.0,
            ),
        ):
            given: object = getattr(self, name)
            plain = finite(f"{name} of SlowStart", given)
            if not 0 < plain <= most:
                limit = " and at most 1" if most == 1.0 else ""
                raise ValueError(f"{name} of SlowStart is {given!r}; it must be {must}{limit}")
            object.__setattr__(self, name, plain)

    def factor(self, seconds: float) -> float:
        """Return what part of its weight a node has after so many seconds. O(1)."""
        if not 0 < seconds < self.window:
            return self.min_weight if seconds <= 0 else 1.0
        return max(self.min_weight, math.pow(seconds / self.window, 1 / self.aggression))


@dataclass(frozen=True, slots=True, eq=False)
class Phase:
    """Weights of slow start as they are for a while.

    Attributes:
        membership: The members.
        warm_up: Their weights; ``None`` where all have their full one.
        panic: Whether that is because of a panic.
        mark: Which starts it knows of.
        since: When it began, by the balancer's clock.
        until: When the weights are due to be refreshed; inf for never.
    """

    membership: Membership[Any]
    warm_up: WarmUp | None
    panic: bool
    mark: int
    since: float
    until: float


class SharedStarts(Protocol):
    """Slow starts of the same nodes in other processes."""

    @property
    def begin(self) -> Callable[[Hashable, float], None]:
        """Tells others of a start, and when it was."""
        ...

    @property
    def last(self) -> Callable[[Hashable], float]:
        """Returns when a node's newest start was, in any process; 0 for none."""
        ...

    @property
    def is_new(self) -> Callable[[Hashable], bool]:
        """Tells whether no process has had a node before."""
        ...

    @property
    def left(self) -> Callable[[Hashable], None]:
        """Takes back what this process has told of a node."""
        ...

    @property
    def found(self) -> Callable[[Hashable], float | None]:
        """Returns when another process found a node's change of health, if it was another."""
        ...


class SlowStarts(ForkAware):
    """Starts of members whose weight still grows.

    Args:
        rule: How it grows.
        clock: The balancer's clock.
        share: Shares starts with other processes; told who wants to know of theirs. ``None`` where
            they are of this one alone.

    Thread-safety: a lock of its own, held for moments, under which nothing is asked of anybody.
    """

    def __init__(
        self,
        rule: SlowStart,
        clock: Clock,
        share: Callable[[Callable[[Hashable, float], None]], SharedStarts] | None = None,
    ) -> None:
        self._rule = rule
        self._clock = clock
        self._born: float | None = clock()
        self._mark = 0
        # When each start was, by id; and who was UNHEALTHY and has not been HEALTHY since.
        self._starts: dict[Hashable, float] = {}
        self._fallen: set[Hashable] = set()
        self._after_fork()
        self._shared = None if share is None else share(self.heard)
        reset_in_child(self)

    def _after_fork(self) -> None:
        # Re-entrant: the collector may strike while it is held, and end a lease.
        self._lock = RLock()

    def joined(self, identity: Hashable) -> None:
        """Begin the slow start of a member that joins; not in the balancer's first second.

        One that other processes have already goes on with theirs.
        """
        now, shared = self._clock(), self._shared
        # Asked no more after that, because a clock may go back.
        in_grace = self._born is not None and 0 <= now - self._born < _GRACE
        if not in_grace:
            self._born = None
            if shared is None or shared.is_new(identity):
                self._begin(identity, now)
                return
        if shared is not None:
            self.heard(identity, shared.last(identity))

    def changed(self, identity: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        """Begin the slow start of a member that is HEALTHY again after it was UNHEALTHY."""
        down = HealthStatus.UNHEALTHY
        if new is down:
            with self._lock:
                self._fallen.add(identity)
                self._starts.pop(identity, None)
        elif new is HealthStatus.HEALTHY and (
            identity in self._fallen or old in down | HealthStatus.RECOVERING
        ):
            found = None if self._shared is None else self._shared.found(identity)
            if found is None:
                self._begin(identity, self._clock())
            else:
                self._start(identity, found)

    def heard(self, identity: Hashable, since: float) -> None:
        """Have a slow start be the one that another process began, if that is the newest."""
        if self._starts.get(identity, self._clock() - self._rule.window) < since:
            self._start(identity, since)

    def _begin(self, identity: Hashable, now: float) -> None:
        self._start(identity, now)
        if self._shared is not None:
            self._shared.begin(identity, now)

    def _start(self, identity: Hashable, since: float) -> None:
        with self._lock:
            self._fallen.discard(identity)
            self._starts[identity] = since
            self._mark += 1

    def left(self, identity: Hashable) -> None:
        """Forget a member."""
        with self._lock:
            self._fallen.discard(identity)
            self._starts.pop(identity, None)
        if self._shared is not None:
            self._shared.left(identity)

    def factor(self, identity: Hashable) -> float | None:
        """Return what part of its weight a member has now, if that still grows."""
        since = self._starts.get(identity)
        if since is None:
            return None
        factor = self._rule.factor(self._clock() - since)
        return factor if factor < 1.0 else None

    def holds(self, phase: Phase | None) -> bool:
        """Tell whether the weights of a phase are still right."""
        if phase is None or phase.mark != self._mark:
            return False
        # A clock that went back must not keep them for longer than it went.
        return phase.until == math.inf or phase.since <= self._clock() < phase.until

    def phase(self, membership: Membership[Any], before: Phase | None, *, panic: bool) -> Phase:
        """Return the weights of members now. O(members in slow start), and a copy.

        Args:
            membership: The members.
            before: The phase before, which goes on while it holds.
            panic: Whether the balancer is in panic: then all have their full weight.
        """
        if (
            before is not None
            and before.membership is membership
            and before.panic is panic
            and self.holds(before)
        ):
            return before
        with self._lock:
            now, mark = self._clock(), self._mark
            growing = self._growing(now)
        if panic or not growing:
            # Whoever begins, or the end of the panic, ends it.
            return Phase(membership, None, panic, mark, now, math.inf)
        found = ((membership.index_of(identity), factor) for identity, factor in growing.items())
        factors = {index: factor for index, factor in found if index is not None}
        warm_up = WarmUp(membership, factors) if factors else None
        return Phase(membership, warm_up, panic, mark, now, now + self._rule.window / _STEPS)

    def _growing(self, now: float) -> dict[Hashable, float]:
        """Return the factors of all whose weight still grows, by id, and forget the others."""
        growing: dict[Hashable, float] = {}
        for identity, since in self._starts.copy().items():
            age = now - since
            if age < 0:  # the clock went back
                self._starts[identity] = now
            factor = self._rule.factor(age)
            if factor < 1.0:
                growing[identity] = factor
            elif not age < self._rule.window:
                del self._starts[identity]
        return growing
