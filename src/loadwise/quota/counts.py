"""Counts of what nodes were asked for, and the answers that follow from them.

`loadwise.QuotaTracker` decides by these counts alone. Quotas that processes share fill them from a
server's answers too, so both answer every question about a node in the same way.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Hashable, Iterable
from threading import RLock
from typing import Generic, TypeVar

from loadwise._fork import ForkAware, reset_in_child
from loadwise._numbers import finite
from loadwise.clock import Clock, check_clock
from loadwise.errors import nearest
from loadwise.nodes import id_of
from loadwise.quota.config import QuotaConfig, QuotaDimension, as_amount
from loadwise.quota.protocol import Amounts
from loadwise.quota.window import SlidingWindow

__all__ = ["NOTHING", "NodeQuota", "QuotaCounts", "full_amounts", "need"]

NOTHING: Amounts = {}
"""The amounts of a request that names none."""

_HIGHEST = sys.float_info.max


class NodeQuota:
    """The quota of one node: a window for each dimension. Not thread-safe: the counts hold a lock.

    Args:
        node_id: The node's id.
        config: Its limits.
    """

    __slots__ = ("id", "windows")

    def __init__(self, node_id: Hashable, config: QuotaConfig) -> None:
        self.id = node_id
        self.windows: dict[str, SlidingWindow] = {}
        self.configure(config)

    def configure(self, config: QuotaConfig) -> None:
        """Go on under these limits: dimensions of the same name keep what was counted."""
        windows = {dim.name: SlidingWindow(dim) for dim in config.dimensions}
        for name in windows.keys() & self.windows.keys():
            window, before = windows[name], self.windows[name]
            window.buckets = before.buckets
            window.held, window.reserved = before.held, before.reserved
            for bucket in window.buckets:
                bucket.closes = bucket.last  # its width was that of the old window
            window.recount()
        self.windows = windows

    def charge(self, name: str, amount: float, now: float) -> None:
        """Charge what was used of a dimension."""
        self.windows[name].charge(amount, now)

    def left(self, name: str, now: float) -> float:
        """Return the units left in a dimension, at least 0."""
        window = self.windows[name]
        window.slide(now)
        return max(0, window.dimension.limit - window.used)


_Node = TypeVar("_Node", bound=NodeQuota)


class QuotaCounts(ForkAware, Generic[_Node]):
    """Counts of nodes' quotas, by id, and the answers that need nothing else.

    Args:
        clock: Source of monotonic seconds.

    Attributes:
        version: Changes after every change of who is unavailable, and of why.

    Thread-safety: a lock. In a forked child the counts go on from what the parent had used.
    Methods that begin with an underscore want the lock to be held.

    Cost: O(dimensions * resolution) at most for each method; `next_change` and `unavailable`
    O(nodes out of quota).
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        check_clock(clock)
        self.clock = clock
        self.version = 0
        self._nodes: dict[Hashable, _Node] = {}
        self._names: set[str] = set()
        self._cooldowns: dict[Hashable, float] = {}
        self._blocked: dict[Hashable, float] = {}
        self._lock = RLock()
        reset_in_child(self)

    def _after_fork(self) -> None:
        # Re-entrant: the collector may strike while it is held, and close a generator that settles.
        # To wait for oneself would be to wait for ever.
        self._lock = RLock()
        for node in self._nodes.values():
            for window in node.windows.values():
                window.recount()

    def _set_limits(self, node_id: Hashable, config: QuotaConfig) -> None:
        if not isinstance(config, QuotaConfig):
            raise TypeError(f"config is {config!r}; it must be a QuotaConfig")
        with self._lock:
            self._names.update(dimension.name for dimension in config.dimensions)
            node = self._nodes.get(node_id)
            if node is None:
                self._nodes[node_id] = self._new_node(node_id, config)
            else:
                node.configure(config)
            self._reconsider(node_id, self.clock())

    def _new_node(self, node_id: Hashable, config: QuotaConfig) -> _Node:
        """Return a node's quota, of which nothing has been used."""
        raise NotImplementedError

    def remove(self, node_id: Hashable) -> None:
        """Forget a node and its limits. An id that is not known is not an error."""
        node_id = id_of(node_id)
        with self._lock:
            self._nodes.pop(node_id, None)
            self._cooldowns.pop(node_id, None)
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
                    node.charge(name, amount, now)
            self._reconsider(node_id, now)
            return True

    def mark_exhausted(self, node_id: Hashable, seconds: float) -> None:
        """Put a node on cooldown, for example for the Retry-After of a rate limit.

        Args:
            node_id: The node's id, registered or not.
            seconds: How long from now, finite and >= 0. A longer cooldown under way is kept,
                but 0 ends it, as `lift` does.

        Raises:
            TypeError: ``seconds`` is no number.
            ValueError: ``seconds`` is negative, NaN or infinite.
        """
        node_id = id_of(node_id)
        cooldown = finite("seconds", seconds)
        if not cooldown >= 0:
            raise ValueError(f"seconds is {seconds!r}; it must be finite and at least 0")
        if not cooldown:
            self.lift(node_id)
            return
        with self._lock:
            now = self.clock()
            if (
                self._cooldowns.get(node_id, now) <= now < now + cooldown
                and node_id in self._blocked
            ):
                self.version += 1  # another reason than before, whatever the time
            self._cooldowns[node_id] = max(now + cooldown, self._cooldowns.get(node_id, now))
            self._reconsider(node_id, now)
            self._cooldown_changed(node_id, lift=False)

    def lift(self, node_id: Hashable) -> bool:
        """End a node's cooldown; what is used of its quota still counts.

        Args:
            node_id: The node's id, registered or not.

        Returns:
            Whether the node was on cooldown.
        """
        node_id = id_of(node_id)
        with self._lock:
            now = self.clock()
            was_on_cooldown = self._cooldowns.pop(node_id, now) > now
            if was_on_cooldown:
                self.version += 1  # its quota may be used up till then, but the reason differs
                self._reconsider(node_id, now)
            self._cooldown_changed(node_id, lift=True)
            return was_on_cooldown

    def _cooldown_changed(self, node_id: Hashable, *, lift: bool) -> None:
        """Have others told of a cooldown that was begun or lifted here, where there are any."""

    def is_available(self, node_id: Hashable) -> bool:
        """Tell whether the node is not on cooldown and has room for a request at default costs."""
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
            return node.left(dimension, self.clock())

    def remaining_by_dimension(self, node_id: Hashable) -> dict[str, float]:
        """Return the units left in every dimension; empty for a node without a quota."""
        node_id = id_of(node_id)
        with self._lock:
            node = self._nodes.get(node_id)
            if node is None:
                return {}
            now = self.clock()
            return {name: node.left(name, now) for name in node.windows}

    def cooldown_until(self, node_id: Hashable) -> float | None:
        """Return when the cooldown of a node ends; ``None`` if it is on none."""
        until = self._cooldowns.get(id_of(node_id))
        return None if until is None or until <= self.clock() else until

    def rests_until(self, node_id: Hashable) -> float | None:
        """Return when a cooldown ends, by the old name of `cooldown_until`."""
        warnings.warn("rests_until is now cooldown_until", DeprecationWarning, stacklevel=2)
        return self.cooldown_until(node_id)

    def available_at(self, node_id: Hashable, amounts: Amounts | None = None) -> float:
        """Return when such a request will fit, in seconds of the clock; inf if never.

        Raises:
            ValueError: A dimension is unknown, or an amount negative, NaN or infinite.
        """
        named = NOTHING if amounts is None else amounts
        node_id = id_of(node_id)
        with self._lock:
            named = self._checked(named, self._nodes.get(node_id), node_id)
            return self._free_at(node_id, named, self.clock())

    def unavailable(self) -> list[Hashable]:
        """Return the ids of the nodes that are not available now."""
        with self._lock:
            now = self.clock()
            for known in (self._blocked, self._cooldowns):
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

    def _slide(self, node: _Node) -> float:
        now = self.clock()
        for window in node.windows.values():
            window.slide(now)
        return now

    def _free_at(self, node_id: Hashable, amounts: Amounts, now: float) -> float:
        free = max(now, self._cooldowns.get(node_id, now))
        node = self._nodes.get(node_id)
        if node is not None:
            for window in node.windows.values():
                window.slide(now)
                free = max(free, window.free_at(need(window.dimension, amounts), now))
        return free

    def _reconsider(self, node_id: Hashable, now: float) -> None:
        """Bring up to date whether, and until when, a node is blocked."""
        if self._cooldowns.get(node_id, now) <= now:
            self._cooldowns.pop(node_id, None)
        until = self._free_at(node_id, NOTHING, now)
        before = self._blocked.get(node_id)
        if until > now:
            self._blocked[node_id] = until
            if before != until:
                self.version += 1
        elif before is not None:
            del self._blocked[node_id]
            self.version += 1

    def _checked(self, amounts: Amounts, node: NodeQuota | None, node_id: Hashable) -> Amounts:
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


def full_amounts(node: NodeQuota, amounts: Amounts) -> dict[str, float]:
    """Return what a request is charged in every dimension, default costs included."""
    return {
        name: amounts.get(name, window.dimension.default_cost)
        for name, window in node.windows.items()
    }


def need(dimension: QuotaDimension, amounts: Amounts) -> float:
    """Return the room that a request needs: where it costs nothing by default, a trace of it."""
    amount = amounts.get(dimension.name)
    return (dimension.default_cost or math.ulp(dimension.limit)) if amount is None else amount


def _unknown(name: str, known: Iterable[str], node_id: Hashable) -> str:
    names = ", ".join(map(repr, sorted(known)))
    return (
        f"node {node_id!r} has no quota dimension {name!r}{nearest(name, known)} (it has {names})"
    )
