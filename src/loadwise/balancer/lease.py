"""One request's hold on a node, from pick to outcome."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from loadwise._native import mypyc_attr
from loadwise.balancer.cooldowns import checked_cooldown
from loadwise.balancer.held_failures import Blame
from loadwise.balancer.limits import Room
from loadwise.balancer.outcome_reporting import LATENCY_WEIGHT, Reporter
from loadwise.balancer.request import Request
from loadwise.balancer.slot import Slot
from loadwise.health import KNOWN_DOWN, Probe
from loadwise.outcome import Outcome
from loadwise.quota import CorrectableQuota, Left, ReservedQuota

__all__ = ["Lease"]

N = TypeVar("N")

_SUCCESS: Final = Outcome.SUCCESS
_FAILURE: Final = Outcome.FAILURE
_CANCELLED: Final = Outcome.CANCELLED
_ONE: list[None] = [None]


@mypyc_attr(allow_interpreted_subclasses=True)
class Lease(Generic[N]):
    """One request's hold on a node. Made by `Balancer.acquire`.

    Use it in a ``with`` or ``async with`` block around the request: a normal end is a success, an
    exception a failure (see ``failures`` of the balancer), a cancellation neither. Or say what
    happened, inside the block or without one, with `success`, `failure`, `rate_limited` or
    `cancel`; the first call counts. Whatever happens, the in-flight slot is given back exactly
    once. A lease that is garbage-collected before it ended counts as cancelled, with a
    ``ResourceWarning``.

    Attributes:
        node: The node to send the request to.
        outcome: How the request ended; ``None`` while it is under way.
        latency: Seconds from acquisition to the end, or to `first_byte`; ``None`` while under way.
        blame: Holds back failures of the request that this is one attempt of; ``None`` for a
            request that is not tried again.
        given_up: Whether the caller gave the request up, and that counted as a failure.

    Thread-safety: it may be ended from any thread; the first one wins.

    Cost: O(1).
    """

    # Most leases never differ from these, so the constructor does not repeat them.
    outcome: Outcome | None = None
    latency: float | None = None
    blame: Blame | None = None
    given_up: bool = False
    _sent: bool = True
    _probe: Probe | None = None
    _reservation: ReservedQuota | None = None
    _room: Room | None = None
    _stopped: float | None = None
    _token: int = 0

    def __init__(  # noqa: PLR0917 - keywords would cost a tenth of it
        self,
        reporter: Reporter,
        slot: Slot,
        node: N,
        started: float,
        probe: Probe | None = None,
        reservation: ReservedQuota | None = None,
        room: Room | None = None,
        holder: Request[N] | None = None,
    ) -> None:
        self._reporter = reporter
        self._slot = slot
        self.node = node
        self._started = started
        if probe is not None:
            self._probe = probe
        if reservation is not None:
            self._reservation = reservation
        if room is not None:
            # Nothing is called until the lease is open. Who is interrupted gives the permit back:
            # the request that holds it until here, then the lease.
            if holder is None:
                del room.free[-1]
            else:
                holder.room = None
            self._room = room
        # Emptied by the first who ends the lease: that is atomic, a flag is not.
        self._open = [None]
        # Ctrl-C strikes before the line above, when nothing is to be given back, or after the call.
        slot.in_flight.append(None)
        if slot.begin is not None:
            # No other lease has it, because this one takes it back before it goes.
            self._token = token = id(self)
            slot.begin(slot.cell, token, started)

    @property
    def node_id(self) -> Hashable:
        """The node's id, as the balancer has known it since the node joined."""
        return self._slot.id

    def success(self) -> bool:  # noqa: C901, PLR0912 - what nearly all requests come to, in one go
        """End it as a success. Returns whether this was the first word on it."""
        # As _end does it, with a shorter way for what nearly all requests come to.
        slot = self._slot
        try:
            # Not pop: Ctrl-C strikes after calls, and must find all done or nothing.
            del self._open[0]
        except IndexError:
            return False
        try:
            if slot.room is None or self._room is None:
                slot.in_flight.pop()
            else:
                # Nothing is called from the word above on, so Ctrl-C finds all done or nothing.
                del slot.in_flight[-1]
                room = self._room
                free = room.free
                free += _ONE
                if room.known_full:
                    room.known_full = False
                    freed = room.freed
                    freed += room.mine
            if slot.tokens is not None:
                slot.tokens.pop(self._token, None)
            self.outcome = _SUCCESS
            # As Reporter.succeeded does it, written out: a call is a fiftieth of the whole.
            reporter, stopped, probe = self._reporter, self._stopped, self._probe
            now = reporter.clock()
            latency = (now if stopped is None else stopped) - self._started
            if latency < 0.0:  # noqa: PLR1730 - max() costs a call; by a clock that goes back
                latency = 0.0
            if slot.observe is not None:
                slot.observe(slot.cell, latency, _SUCCESS, now)
            if slot.observers:
                for observe, cell in slot.observers:
                    observe(cell, latency, _SUCCESS, now)
            if now >= slot.rolls_at:
                reporter.roll(slot, now)
            next(slot.successes)
            before = slot.latency
            slot.succeeded_at = now
            slot.latency = (
                latency if before is None else before + LATENCY_WEIGHT * (latency - before)
            )
            if probe is not None or (reporter.tracked_ids and slot.id in reporter.tracked_ids):
                reporter.tell_health(slot, _SUCCESS, self._started, None, probe)
            if reporter.metrics is not None:
                reporter.metrics.on_outcome(slot.id, _SUCCESS, latency)
            self.latency = latency
            if reporter.waiting:
                reporter.tell_waiting(None if probe is not None else self._room)
        except BaseException:
            if slot.tokens is not None:
                slot.tokens.pop(self._token, None)  # Ctrl-C may have struck before the one above
            self._reporter.end_probe(slot, self._probe)
            self._reporter.tell_waiting(None)
            raise
        return True

    def failure(
        self, reason: str | BaseException | None = None, retry_after: float | None = None
    ) -> bool:
        """End it as a failure of the node.

        Args:
            reason: What went wrong, for those who ask about the node's health.
            retry_after: Seconds of the node's cooldown, finite and >= 0; ``None`` for no
                cooldown.

        Returns:
            Whether this was the first word on it.

        Raises:
            ValueError: ``retry_after`` is negative, NaN or infinite; the lease is still open.
        """
        if retry_after is None:
            return self._end(_FAILURE, reason)
        return self._end(_FAILURE, reason, (reason, checked_cooldown(retry_after)))

    def rate_limited(
        self, retry_after: float | None = None, reason: str | BaseException | None = None
    ) -> bool:
        """End it as refused by a rate limit; the node goes on cooldown.

        Args:
            retry_after: Seconds of cooldown, finite and >= 0; 1 if the node did not say.
            reason: How it was refused, for those who ask about the cooldown.

        Returns:
            Whether this was the first word on it.

        Raises:
            TypeError: ``retry_after`` is no number.
            ValueError: ``retry_after`` is negative, NaN or infinite.
        """
        cooldown = None if retry_after is None else checked_cooldown(retry_after)
        return self._end(Outcome.RATE_LIMITED, None, (reason, cooldown))

    def cancel(self) -> bool:
        """End it as given up by the caller. Returns whether this was the first word on it.

        It is a failure where no answer has come for as long as ``hung_after`` of the balancer says.
        """
        return self._end(_CANCELLED)

    def call_off(self) -> bool:
        """End it as cancelled, however long it took. Returns whether this was the first word on it.

        For whoever gave it up for another reason than that no answer came: another copy of the
        request was answered first, or the caller's own code failed.
        """
        if self._stopped is None and self._open:
            self._stopped = self._reporter.clock()  # as for an answer, which nobody is told of
        return self._end(_CANCELLED)

    def settle(self, amounts: Mapping[str, float]) -> None:
        """Replace the quota reserved by what the request really used; also after its end.

        Args:
            amounts: The true amounts, by quota dimension. Does nothing without a quota.

        Raises:
            LoadwiseError: It has been settled before.
            ValueError: A dimension is unknown, or an amount negative, NaN or infinite.
        """
        if self._reservation is not None:
            self._reservation.settle(amounts)
            self._reporter.tell_waiting(None)

    def correct(self, left: Mapping[str, Left]) -> None:
        """Correct the quota by what the answer says is left of it; see `Reservation.correct`.

        Args:
            left: What is left, by quota dimension. A quota that cannot be corrected stays.
        """
        if isinstance(self._reservation, CorrectableQuota):
            self._reservation.correct(left)
            self._reporter.tell_waiting(None)

    def refund(self) -> None:
        """Give back the quota reserved: the request was never sent.

        Said before its end, it has a failure count at once, because nothing in the request caused
        it.
        """
        self._sent = False
        if self._reservation is not None:
            self._reservation.cancel()
            self._reporter.tell_waiting(None)

    def first_byte(self) -> None:
        """Tell that the answer has begun; the request goes on.

        The latency is the time until now, the request ages no more in `PeakEwma`, and to cancel it
        says nothing of the node. For streams and long polls: how fast a node answers is one thing,
        how long its answer is another. It is in flight until the end. The first call counts.
        """
        if self._stopped is None:
            now = self._reporter.clock()
            # The order is for Ctrl-C: what is not done yet is done when it is called again.
            self._slot.first_byte(self._token, now)
            self._stopped = now

    def stop_clock(self) -> None:
        """Tell that the answer has begun, by the old name of `first_byte`."""
        warnings.warn("stop_clock is now first_byte", DeprecationWarning, stacklevel=2)
        self.first_byte()

    def _end(
        self,
        outcome: Outcome,
        reason: str | BaseException | None = None,
        cooldown: tuple[str | BaseException | None, float | None] | None = None,
    ) -> bool:
        """End it; the node's cooldown, if any, has a reason and some seconds."""
        slot = self._slot
        try:
            del self._open[0]  # as in success()
        except IndexError:
            return False
        try:
            if slot.room is None or self._room is None:
                slot.in_flight.pop()
            else:
                # As in success().
                del slot.in_flight[-1]
                room = self._room
                free = room.free
                free += _ONE
                if room.known_full:
                    room.known_full = False
                    freed = room.freed
                    freed += room.mine
            if slot.tokens is not None:
                slot.tokens.pop(self._token, None)
            if outcome is _CANCELLED and self._stopped is None:
                hung = self._reporter.why_hung(self._started)
                if hung is not None:
                    self.given_up = True
                    outcome, reason = _FAILURE, hung
            self.outcome = outcome
            self.latency = self._reporter.ended(
                slot,
                outcome,
                self._started,
                reason,
                self._probe,
                self._stopped,
                self.blame if outcome is _FAILURE and self._holds(self.blame) else None,
            )
            if cooldown is not None:
                self._reporter.cool_down(slot, outcome, *cooldown, self.blame)
            # After the cooldown, or one who waits would be given the node that has just refused.
            self._reporter.tell_waiting(None)
        except BaseException:
            if slot.tokens is not None:
                slot.tokens.pop(self._token, None)  # Ctrl-C may have struck before the one above
            self._reporter.end_probe(slot, self._probe)
            self._reporter.tell_waiting(None)
            raise
        slot.settle()
        return True

    def _holds(self, blame: Blame | None) -> bool:
        """Record a failure; return whether ``blame`` is to hold its report back."""
        if blame is None or blame.counts_at_once():
            return False
        is_probe = self._probe is not None and self._probe is not KNOWN_DOWN
        return self._sent and not is_probe

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is None:
            self.success()
        elif self._open:
            self._reporter.failures.end(self, exc)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(exc_type, exc, traceback)

    def __del__(self) -> None:
        try:
            if not self._open:
                return
            del self._open[0]
        except (AttributeError, IndexError):
            # The constructor was interrupted, or another thread has ended it in between.
            return
        # Collection may strike inside any lock that this thread holds, so nothing is locked here:
        # the counts are given back, and the balancer does the rest at its next pick.
        slot = self._slot
        if slot.room is None or self._room is None:
            slot.in_flight.pop()
        else:
            # As in success().
            del slot.in_flight[-1]
            room = self._room
            free = room.free
            free += _ONE
            if room.known_full:
                room.known_full = False
                freed = room.freed
                freed += room.mine
        if slot.tokens is not None:
            slot.tokens.pop(self._token, None)
        self._reporter.dropped.append((slot, self._started, self._probe))
        self._reporter.tell_waiting(None)
        warnings.warn(
            f"a lease on node {slot.id!r} was dropped without saying how its request ended; use "
            f"it in a with block, or call success(), failure(), rate_limited() or cancel()",
            ResourceWarning,
            source=self,
            stacklevel=2,
        )

    def __repr__(self) -> str:
        state = "open" if self.outcome is None else self.outcome.value
        return f"<Lease on {self._slot.id!r}: {state}>"
