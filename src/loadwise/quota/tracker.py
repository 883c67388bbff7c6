"""Keeps count of what nodes were asked for, and refuses what would exceed their limits."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from contextlib import suppress
from itertools import islice
from threading import RLock

from loadwise._fork import ForkAware, reset_in_child
from loadwise._numbers import finite
from loadwise.clock import Clock, check_clock
from loadwise.errors import LoadwiseError, nearest
from loadwise.nodes import id_of
from loadwise.quota.config import QuotaConfig, as_amount
from loadwise.quota.protocol import Left
from loadwise.quota.window import Bucket, SlidingWindow

__all__ = ["QuotaTracker", "Reservation"]

Amounts = Mapping[str, float]

_NOTHING: Amounts = {}
_HIGHEST = sys.float_info.max

_MOST_CHANGES = 1024


class _NodeQuota:
    __slots__ = ("windows",)

    def __init__(self, config: QuotaConfig, before: _NodeQuota | None) -> None:
        self.windows = {dim.name: SlidingWindow(dim) for dim in config.dimensions}
        if before is not None:
            for name, window in self.windows.items():
                if name in before.windows:
                    window.buckets = before.windows[name].buckets
                    window.held = before.windows[name].held
                    window.reserved = before.windows[name].reserved
                    for bucket in window.buckets:
                        bucket.closes = bucket.last  # its width was that of the old window
                    window.recount()


class Reservation:
    """Quota set aside for one request.

    Say what it really used with `settle`, or that it was never sent with `cancel`; without
    either, the reserved amounts stay charged.

    Attributes:
        node_id: The node it was made for.
        amounts: What was reserved, by dimension, default costs included.

    Thread-safety: each ends once, whoever is first.
    """

    __slots__ = ("_buckets", "_marks", "_open", "_tracker", "amounts", "node_id")

    def __init__(
        self,
        tracker: QuotaTracker,
        node_id: Hashable,
        amounts: Amounts,
        buckets: Mapping[str, Bucket],
        marks: Mapping[str, float],
    ) -> None:
        self._tracker = tracker
        self._buckets = buckets
        # How much had been reserved and was done with when it was made: an upstream that has seen
        # it has seen all of that.
        self._marks = marks
        self._open = [True]
        self.node_id = node_id
        self.amounts = amounts

    def settle(self, amounts: Amounts) -> None:
        """Replace the reserved amounts by the true ones, for the dimensions named.

        What was reserved too much is free again at once; what was used beyond the reservation is
        charged now, even above the limit, for it has been used.

        Args:
            amounts: The true amounts, by dimension.

        Raises:
            LoadwiseError: The reservation has already been settled or cancelled.
            ValueError: A dimension is unknown, or an amount negative, NaN or infinite.
        """
        self._tracker._settle(self, amounts)  # noqa: SLF001 - the two are one mechanism

    def correct(self, left: Mapping[str, Left]) -> None:
        """Correct what has been counted by what the answer to this request says is left.

        Where less is left than was counted, others use the same limit, and the difference is
        charged until the upstream's reset, or for a window. Where more is left, estimates were too
        careful, and the difference is given back; not so what was under way then, or was reserved
        since, for the upstream may not have seen it, and not if its limit is above the one
        registered.

        Args:
            left: What is left, by dimension; what the node does not limit is ignored.

        Best called after `settle`: what is reserved and not settled counts as unseen.
        """
        self._tracker._correct(self, left)  # noqa: SLF001 - the two are one mechanism

    def cancel(self) -> None:
        """Give everything back: the request was never sent. Does nothing once it has ended."""
        with suppress(LoadwiseError):
            self.settle(dict.fromkeys(self.amounts, 0))

    def _end(self) -> None:
        try:
            self._open.pop()
        except IndexError:
            raise LoadwiseError(
                f"the reservation on node {self.node_id!r} has already been settled or cancelled"
            ) from None


class QuotaTracker(ForkAware):
    """Quotas of nodes, by id, over windows that slide.

    Args:
        clock: Source of monotonic seconds.

    A node without a registered quota is unlimited.

    Attributes:
        version: A number that is another one after every change of who is unavailable, and of why.
        changes: How often a node may have got room, or lost it, by anything but time and
            reservations. See `changed_since`.

    Thread-safety: a lock; a reservation is atomic over all dimensions. In a forked child the
    counts go on from what the parent had used.

    Cost: O(dimensions * resolution) at most for each method; `next_change` and `unavailable`
    O(nodes out of quota).

    Example:
        >>> from loadwise import QuotaConfig, QuotaDimension
        >>> quota = QuotaTracker()
        >>> quota.register("key-1", QuotaConfig([QuotaDimension("rpm", limit=2, window=60.0)]))
        >>> first, second, third = (quota.try_acquire("key-1") for _ in range(3))
        >>> second is not None, third is None, quota.remaining("key-1", "rpm")
        (True, True, 0)
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        check_clock(clock)
        self.clock = clock
        self.version = 0
        self._nodes: dict[Hashable, _NodeQuota] = {}
        self._names: set[str] = set()
        self._rests: dict[Hashable, float] = {}
        self._blocked: dict[Hashable, float] = {}
        self.changes = 0
        self._changed: deque[Hashable] = deque(maxlen=_MOST_CHANGES)
        self._after_fork()
        reset_in_child(self)

    def _after_fork(self) -> None:
        # Re-entrant: the collector may strike while it is held, and close a generator that settles.
        # To wait for oneself would be to wait for ever.
        self._lock = RLock()
        for node in self._nodes.values():
            for window in node.windows.values():
                window.recount()

    def register(self, node_id: Hashable, config: QuotaConfig) -> None:
        """Set a node's limits. Registering again replaces them and keeps what was used.

        Raises:
            TypeError: ``config`` is not a `QuotaConfig`.
        """
        node_id = id_of(node_id)
        if not isinstance(config, QuotaConfig):
            raise TypeError(f"config is {config!r}; it must be a QuotaConfig")
        with self._lock:
            self._names.update(dimension.name for dimension in config.dimensions)
            self._nodes[node_id] = _NodeQuota(config, self._nodes.get(node_id))
            self._reconsider(node_id, self.clock())

    def remove(self, node_id: Hashable) -> None:
        """Forget a node and its limits. An id that is not known is not an error."""
        node_id = id_of(node_id)
        with self._lock:
            self._nodes.pop(node_id, None)
            self._rests.pop(node_id, None)
            self._reconsider(node_id, self.clock())

    def record_usage(self, node_id: Hashable, amounts: Amounts) -> bool:
        """Charge what a request has used, whether or not it is within the limits.

        Args:
            node_id: The node's id, or the node itself, as in all methods.
            amounts: Units by dimension; only the dimensions named are charged, and those that
                the node does not limit are ignored.

        Returns:
            Whether the node has a registered quota (else there is nothing to charge).

        Raises:
            TypeError: An amount is no number.
            ValueError: An amount is negative, NaN or infinite.
        """
        node_id = id_of(node_id)
        with self._lock:
            node = self._nodes.get(node_id)
            if node is None:
                return False
            amounts = self._checked(amounts, None, node_id)
            now = self._slide(node)
            for name, amount in amounts.items():
                if name in node.windows:
                    node.windows[name].charge(amount, now)
            self._reconsider(node_id, now)
            return True

    def try_acquire(self, node_id: Hashable, amounts: Amounts | None = None) -> Reservation | None:
        """Reserve quota for one request, in all dimensions or in none.

        Args:
            node_id: The node's id.
            amounts: Units by dimension; each dimension not named is charged its default cost. One
                that only other nodes have is free on this one.

        Returns:
            The reservation, or ``None`` when it does not fit or the node sits out.

        Raises:
            TypeError: An amount is no number.
            ValueError: A dimension is unknown, or an amount negative, NaN or infinite.
        """
        named = _NOTHING if amounts is None else amounts
        node_id = id_of(node_id)
        with self._lock:
            node = self._nodes.get(node_id)
            if named:
                named = self._checked(named, node, node_id)
            now = self.clock() if node is None else self._slide(node)
            if self._rests.get(node_id, now) > now:
                return None
            if node is None:
                return Reservation(self, node_id, _NOTHING, {}, {})
            full: dict[str, float] = {}
            for name, window in node.windows.items():
                full[name] = named.get(name, window.dimension.default_cost)
                if not window.fits(_need(window, named)):
                    return None
            buckets: dict[str, Bucket] = {}
            marks: dict[str, float] = {}
            # Nothing to think over while there is room for another request in all dimensions.
            settled = node_id not in self._rests and node_id not in self._blocked
            for name, window in node.windows.items():
                held = window.held
                buckets[name] = window.hold(full[name], now)
                marks[name] = window.reserved - held
                settled = settled and window.fits(_need(window, _NOTHING))
            if not settled:
                self._reconsider(node_id, now)
            return Reservation(self, node_id, full, buckets, marks)

    def mark_exhausted(self, node_id: Hashable, seconds: float) -> None:
        """Have a node sit out, for example for the Retry-After of a rate limit.

        Args:
            node_id: The node's id, registered or not.
            seconds: How long from now, finite and >= 0. A longer pause under way is kept.

        Raises:
            TypeError: ``seconds`` is no number.
            ValueError: ``seconds`` is negative, NaN or infinite.
        """
        node_id = id_of(node_id)
        pause = finite("seconds", seconds)
        if not pause >= 0:
            raise ValueError(f"seconds is {seconds!r}; it must be finite and at least 0")
        with self._lock:
            now = self.clock()
            if self._rests.get(node_id, now) <= now < now + pause and node_id in self._blocked:
                self.version += 1  # another reason than before, whatever the time
            self._rests[node_id] = max(now + pause, self._rests.get(node_id, now))
            self._reconsider(node_id, now)

    def lift(self, node_id: Hashable) -> bool:
        """End the pause that `mark_exhausted` began; what is used of the quota still counts.

        Args:
            node_id: The node's id, registered or not.

        Returns:
            Whether the node sat out.
        """
        node_id = id_of(node_id)
        with self._lock:
            now = self.clock()
            until = self._rests.pop(node_id, now)
            if until <= now:
                return False
            self.version += 1  # if its quota is used up till the same moment, the reason differs
            self._reconsider(node_id, now)
            return True

    def is_available(self, node_id: Hashable) -> bool:
        """Whether the node does not sit out and has room for a request at default costs."""
        until = self._blocked.get(id_of(node_id))
        return until is None or self.clock() >= until

    def remaining(self, node_id: Hashable, dimension: str) -> float:
        """Return the units left in a dimension, at least 0; inf for a node without a quota.

        Raises:
            ValueError: The node has no such dimension.
        """
        node_id = id_of(node_id)
        with self._lock:
            node = self._nodes.get(node_id)
            if node is None:
                return math.inf
            if dimension not in node.windows:
                raise ValueError(_unknown(dimension, node.windows, node_id))
            self._slide(node)
            return _left(node.windows[dimension])

    def remaining_by_dimension(self, node_id: Hashable) -> dict[str, float]:
        """Return the units left in every dimension; empty for a node without a quota."""
        node_id = id_of(node_id)
        with self._lock:
            node = self._nodes.get(node_id)
            if node is None:
                return {}
            self._slide(node)
            return {name: _left(window) for name, window in node.windows.items()}

    def rests_until(self, node_id: Hashable) -> float | None:
        """Return when a node that `mark_exhausted` made sit out is back, or ``None``."""
        until = self._rests.get(id_of(node_id))
        return None if until is None or until <= self.clock() else until

    def available_at(self, node_id: Hashable, amounts: Amounts | None = None) -> float:
        """Return when such a request will fit, in seconds of the clock; inf if never.

        Raises:
            ValueError: A dimension is unknown, or an amount negative, NaN or infinite.
        """
        named = _NOTHING if amounts is None else amounts
        node_id = id_of(node_id)
        with self._lock:
            named = self._checked(named, self._nodes.get(node_id), node_id)
            return self._free_at(node_id, named, self.clock())

    def unavailable(self) -> list[Hashable]:
        """Return the ids of the nodes that are not available now."""
        with self._lock:
            now = self.clock()
            for known in (self._blocked, self._rests):
                # From a copy, and asked again: the collector may strike meanwhile and end a lease.
                for identity, until in [*known.items()]:
                    if until <= now and known.get(identity, math.inf) <= now:
                        del known[identity]
            return list(self._blocked)

    def next_change(self) -> float:
        """Return when `unavailable` changes by the passing of time alone; inf if never."""
        with self._lock:
            now = self.clock()
            blocked = [*self._blocked.values()]
            return min((until for until in blocked if until > now), default=math.inf)

    def changed_since(self, changes: int) -> tuple[int, list[Hashable] | None]:
        """Return the number of `changes` now, and whose they were since it was the one given.

        Between two calls nothing but these changes and the passing of time can have given a node
        room earlier than `available_at` said. ``None`` in the place of the ids when they are too
        many to be remembered. O(changes since).
        """
        with self._lock:
            new = self.changes - changes
            if new > len(self._changed):
                return self.changes, None
            return self.changes, list(islice(reversed(self._changed), new))

    def _slide(self, node: _NodeQuota) -> float:
        now = self.clock()
        for window in node.windows.values():
            window.slide(now)
        return now

    def _free_at(self, node_id: Hashable, amounts: Amounts, now: float) -> float:
        free = max(now, self._rests.get(node_id, now))
        node = self._nodes.get(node_id)
        if node is not None:
            for window in node.windows.values():
                window.slide(now)
                free = max(free, window.free_at(_need(window, amounts), now))
        return free

    def _reconsider(self, node_id: Hashable, now: float) -> None:
        """Bring up to date whether, and until when, a node is blocked."""
        self._changed.append(node_id)
        self.changes += 1
        until = self._rests.get(node_id, now)
        if until <= now:
            self._rests.pop(node_id, None)
        node = self._nodes.get(node_id)
        if node is not None:
            for window in node.windows.values():
                until = max(until, window.free_at(_need(window, _NOTHING), now))
        before = self._blocked.get(node_id)
        if until > now:
            self._blocked[node_id] = until
            if before != until:
                self.version += 1
        elif before is not None:
            del self._blocked[node_id]
            self.version += 1

    def _checked(self, amounts: Amounts, node: _NodeQuota | None, node_id: Hashable) -> Amounts:
        """Return the amounts as plain numbers, if they make sense.

        What only other nodes limit is free here.
        """
        converted: dict[str, float] | None = None
        for name, amount in amounts.items():
            # Most are plain numbers in range, and not to be copied.
            kind = amount.__class__
            if (kind is not int and kind is not float) or not 0 <= amount <= _HIGHEST:
                converted = dict(amounts) if converted is None else converted
                converted[name] = as_amount(name, amount)
            if node is not None and name not in node.windows and name not in self._names:
                raise ValueError(_unknown(name, node.windows, node_id))
        return amounts if converted is None else converted

    def _settle(self, reservation: Reservation, amounts: Amounts) -> None:
        with self._lock:
            node = self._nodes.get(reservation.node_id)
            if reservation.amounts:
                amounts = self._checked(amounts, node, reservation.node_id)
            reservation._end()  # noqa: SLF001 - the two are one mechanism
            if node is None:
                return
            now = self._slide(node)
            for name, bucket in reservation._buckets.items():  # noqa: SLF001
                if name in node.windows:
                    node.windows[name].let_go(bucket, reservation.amounts[name])
            for name, amount in amounts.items():
                reserved = reservation.amounts.get(name)
                if reserved is None or name not in node.windows:
                    continue
                window = node.windows[name]
                if amount > reserved:
                    window.charge(amount - reserved, now)
                else:
                    reservation._buckets[name].amount -= reserved - amount  # noqa: SLF001
                    window.recount()
            self._reconsider(reservation.node_id, now)

    def _correct(self, reservation: Reservation, left: Mapping[str, Left]) -> None:
        with self._lock:
            node = self._nodes.get(reservation.node_id)
            if node is None:
                return
            now = self._slide(node)
            for name, each in left.items():
                mark, window = reservation._marks.get(name), node.windows.get(name)  # noqa: SLF001
                if mark is not None and window is not None:
                    own = reservation.amounts[name] if reservation._open else 0  # noqa: SLF001
                    window.correct(each, window.reserved - mark + own, now)
            self._reconsider(reservation.node_id, now)


def _left(window: SlidingWindow) -> float:
    return max(0, window.dimension.limit - window.used)


def _need(window: SlidingWindow, amounts: Amounts) -> float:
    """Return the room that a request needs: where it costs nothing by default, a trace of it."""
    dimension = window.dimension
    amount = amounts.get(dimension.name)
    return (dimension.default_cost or math.ulp(dimension.limit)) if amount is None else amount


def _unknown(name: str, known: Iterable[str], node_id: Hashable) -> str:
    names = ", ".join(map(repr, sorted(known)))
    return (
        f"node {node_id!r} has no quota dimension {name!r}{nearest(name, known)} (it has {names})"
    )
