"""Quotas of nodes in one process: reservations that must fit, and their true amounts."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Hashable, Mapping
from contextlib import suppress
from itertools import islice

from loadwise.clock import Clock
from loadwise.errors import LoadwiseError
from loadwise.nodes import id_of
from loadwise.quota.config import QuotaConfig
from loadwise.quota.counts import NOTHING, NodeQuota, QuotaCounts, need
from loadwise.quota.protocol import Amounts, Left
from loadwise.quota.window import UsageBucket

__all__ = ["QuotaTracker", "Reservation"]

_MOST_CHANGES = 1024


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
        buckets: Mapping[str, UsageBucket],
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
        charged now, even above the limit, because it has been used.

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
        since, because the upstream may not have seen it, and not if its limit is above the one
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


class QuotaTracker(QuotaCounts[NodeQuota]):
    """Quotas of nodes, by id, over windows that slide.

    Args:
        clock: Source of monotonic seconds.

    A node without a registered quota is unlimited.

    Attributes:
        version: Changes after every change of who is unavailable, and of why.
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
        self.changes = 0
        self._changed: deque[Hashable] = deque(maxlen=_MOST_CHANGES)
        super().__init__(clock)

    def register(self, node_id: Hashable, config: QuotaConfig) -> None:
        """Set a node's limits. Registering again replaces them and keeps what was used.

        Raises:
            TypeError: ``config`` is not a `QuotaConfig`.
        """
        self._set_limits(id_of(node_id), config)

    def try_acquire(self, node_id: Hashable, amounts: Amounts | None = None) -> Reservation | None:
        """Reserve quota for one request, in all dimensions or in none.

        Args:
            node_id: The node's id.
            amounts: Units by dimension; each dimension not named is charged its default cost. One
                that only other nodes have is free on this one.

        Returns:
            The reservation, or ``None`` when it does not fit or the node is on cooldown.

        Raises:
            TypeError: An amount is no number.
            ValueError: A dimension is unknown, or an amount negative, NaN or infinite.
        """
        named = NOTHING if amounts is None else amounts
        node_id = id_of(node_id)
        with self._lock:
            node = self._nodes.get(node_id)
            if named:
                named = self._checked(named, node, node_id)
            now = self.clock() if node is None else self._slide(node)
            if self._cooldowns.get(node_id, now) > now:
                return None
            if node is None:
                return Reservation(self, node_id, NOTHING, {}, {})
            full: dict[str, float] = {}
            for name, window in node.windows.items():
                full[name] = named.get(name, window.dimension.default_cost)
                if not window.fits(need(window.dimension, named)):
                    return None
            buckets: dict[str, UsageBucket] = {}
            marks: dict[str, float] = {}
            # Nothing to think over while there is room for another request in all dimensions.
            settled = node_id not in self._cooldowns and node_id not in self._blocked
            for name, window in node.windows.items():
                held = window.held
                buckets[name] = window.hold(full[name], now)
                marks[name] = window.reserved - held
                settled = settled and window.fits(need(window.dimension, NOTHING))
            if not settled:
                self._reconsider(node_id, now)
            return Reservation(self, node_id, full, buckets, marks)

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

    def _new_node(self, node_id: Hashable, config: QuotaConfig) -> NodeQuota:
        return NodeQuota(node_id, config)

    def _reconsider(self, node_id: Hashable, now: float) -> None:
        self._changed.append(node_id)
        self.changes += 1
        super()._reconsider(node_id, now)

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
