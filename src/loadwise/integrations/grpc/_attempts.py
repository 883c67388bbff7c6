"""Attempts of one call: their nodes, their verdicts, and whether another follows.

The state machine is the same for both channels and for all kinds of calls; it does no I/O. What
calls it sends each attempt, and reports how it ended.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Hashable, Iterable
from types import EllipsisType
from typing import Any, Final, NamedTuple

from grpc import CallCredentials, Compression, StatusCode

from loadwise._log import log_exception
from loadwise.backoff import Backoff
from loadwise.balancer import Lease
from loadwise.balancer.acquiring import checked_timeout
from loadwise.balancer.held_failures import Blame
from loadwise.errors import NoNodeAvailable
from loadwise.integrations._http.block_options import OPTIONS
from loadwise.integrations._http.client_life import ClientLife
from loadwise.integrations._http.node_search import Search
from loadwise.integrations._http.verdict import Verdict
from loadwise.integrations.grpc._load_reports import report_in
from loadwise.integrations.grpc._settings import CallDetails, GrpcSettings
from loadwise.integrations.grpc._verdicts import Trailers, judge
from loadwise.outcome import Outcome

__all__ = ["CallArguments", "CallAttempts"]

_UNREACHED: Final = Verdict(
    Outcome.FAILURE, retry=True, never_sent=True, reason="no connection to the node"
)
_PAUSES: Final = Backoff(base=0.05, cap=1.0)


class CallArguments(NamedTuple):
    """Arguments of a call, beside its requests."""

    timeout: float | None
    metadata: Iterable[tuple[str, str | bytes]] | None
    credentials: CallCredentials | None
    wait_for_ready: bool | None
    compression: Compression | None


class CallAttempts:
    """Attempts of one call, each on another node. Not thread-safe: it belongs to one call.

    Args:
        settings: What holds for all calls.
        life: Tells whether the channel was closed.
        method: The full name of its method.
        request: The request message; ``None`` for a stream of them.
        arguments: Its other arguments.
        repeatable: Whether its requests can be sent again.

    Attributes:
        lease: The present attempt's hold on its node.
    """

    # Most calls never differ from these, so the constructor does not repeat them.
    lease: Lease[Any]
    _ends: float | None = None
    _patient_until: float | None = None
    _tried: tuple[Hashable, ...] = ()
    # Those of them that may be asked again after a wait: their cooldown ends, or they come back.
    _limited: tuple[Hashable, ...] = ()
    _unreached: tuple[Hashable, ...] = ()
    # The verdict on the present attempt, where nothing but a node is missing for the next.
    _stranded: Verdict | None = None
    _blame: Blame | None = None
    _attempts = 0
    # How many of them use up none of those allowed.
    _uncounted = 0
    _rounds = 0

    def __init__(
        self,
        settings: GrpcSettings,
        life: ClientLife,
        method: str,
        request: object,
        arguments: CallArguments,
        *,
        repeatable: bool,
    ) -> None:
        options = OPTIONS.get()
        self._settings = settings
        self._life = life
        balancer = settings.balancer
        self._clock = clock = balancer.clock
        self._options = options
        self._key = key = options.hash_key
        if key is None and settings.hash_key is not None:
            self._key = settings.hash_key(
                CallDetails(method, request, tuple(arguments.metadata or ()))
            )
        self._may_repeat = repeatable and (method in settings.idempotent or options.retry)
        self._needs_ready = bool(arguments.wait_for_ready)
        limit = _least(arguments.timeout, options.deadline, settings.deadline)
        patience = _patience(options.timeout, settings.timeout)
        if self._needs_ready:
            patience = math.inf
        if patience or limit is not None:
            began = clock()
            if limit is not None:
                self._ends = began + limit
            if patience:
                self._patient_until = began + patience
        settings.budget.deposit()

    def begin(self) -> None:
        """Begin the first attempt; wait for a node if the call says so.

        Raises:
            NoNodeAvailable: There is none.
        """
        if self._patient_until is None:
            self._hold(self._now())
        else:
            self._hold(self._search.wait(self.patience()))

    async def begin_async(self) -> None:
        """Begin the first attempt as `begin` does, without a thread."""
        if self._patient_until is None:
            self._hold(self._now())
        else:
            self._hold(await self._search.wait_async(self.patience()))

    def _now(self) -> Lease[Any]:
        options = self._options
        return self._settings.balancer.acquire(
            hash_key=self._key, cost=options.cost, where=options.where
        )

    @property
    def _search(self) -> Search:
        """The search for further nodes, or for a first one that is waited for."""
        options = self._options
        return Search(self._settings.balancer, self._key, options.cost, options.where)

    def patience(self) -> float:
        """Return for how many more seconds a node may be waited for."""
        if self._patient_until is None:
            return 0.0
        until = self._patient_until if self._ends is None else min(self._patient_until, self._ends)
        return max(0.0, until - self._clock())

    def seconds(self, *, single: bool) -> float | None:
        """Return the seconds that the present attempt has; ``None`` for any time.

        Args:
            single: Whether it is to have a single response.
        """
        own = self._settings.attempt_timeout if single else None
        if self._ends is None:
            return own
        left = max(0.0, self._ends - self._clock())
        if own is None:
            return left
        return min(own, left)

    def unreachable(self) -> bool:
        """Report that there was no connection, so that nothing was sent.

        Returns:
            Whether the next attempt has begun. Else the present one still holds its node, so that
            gRPC itself can tell what is wrong there.
        """
        self._unreached = (*self._unreached, self.lease.node_id)
        before = self.lease
        if not self._begin_next(_UNREACHED):
            return False
        self._end(before, _UNREACHED)
        return True

    def succeeded(self, trailers: Trailers | None) -> None:
        """Report a call that has come to a good end."""
        if self._blame is not None:
            self._blame.succeeded(self.lease.node_id)
        self.lease.success()
        if trailers is not None:
            self._tell_load(trailers)

    def failed(
        self,
        code: StatusCode,
        trailers: Trailers | None,
        details: str | None,
        *,
        again: bool = True,
    ) -> bool:
        """Report how an attempt has failed; return whether the next one has begun.

        Args:
            code: Its status.
            trailers: The metadata that came with it.
            details: What gRPC says of it, for those who ask about the node.
            again: Whether another attempt is of use to the caller.
        """
        if self._life.closed:
            self.lease.call_off()
            return False
        verdict = judge(code, trailers, self._settings.max_cooldown)
        if verdict.outcome is Outcome.SUCCESS and self._blame is not None:
            self._blame.succeeded(self.lease.node_id)
        # Where the answer had begun, the call was sound: what breaks after that is the node's.
        self._end(self.lease, verdict, details, held=again)
        self._tell_load(trailers)
        if not (again and verdict.retry):
            return False
        return (self._may_repeat or self._refuse("unsafe")) and self._begin_next(verdict)

    def cancelled(self) -> None:
        """Report that the caller has given the call up."""
        lease = getattr(self, "lease", None)  # there may have been no node yet
        if lease is not None:
            if lease.outcome is None:
                lease.blame = self._blamed()
            lease.cancel()

    def give_up(self) -> None:
        """Report that something else than the node has failed; a report made before holds."""
        lease = getattr(self, "lease", None)  # as above
        if lease is not None:
            lease.call_off()

    def wait(self) -> bool:
        """Wait in this thread for the next attempt, where nothing but a node is missing for it.

        Returns:
            Whether it has begun.
        """
        verdict = self._may_wait()
        if verdict is None:
            return False
        time.sleep(self._pause())
        try:
            lease = self._search.wait(self.patience(), self._excluded())
        except NoNodeAvailable:
            return self._refuse("no_node")
        return self._go_on(lease, verdict)

    async def wait_async(self) -> bool:
        """Wait as `wait` does, without a thread."""
        verdict = self._may_wait()
        if verdict is None:
            return False
        await asyncio.sleep(self._pause())
        try:
            lease = await self._search.wait_async(self.patience(), self._excluded())
        except NoNodeAvailable:
            return self._refuse("no_node")
        return self._go_on(lease, verdict)

    @property
    def is_stranded(self) -> bool:
        """True if nothing but a node is missing for the next attempt, and may be waited for."""
        return self._stranded is not None

    def _may_wait(self) -> Verdict | None:
        """End the present attempt by its verdict, and return that, if there is time to wait."""
        verdict, self._stranded = self._stranded, None
        if verdict is None:
            return None
        if self._life.closed or not self.patience():
            self._refuse("no_node")
            return None
        self._end(self.lease, verdict)
        return verdict

    def _pause(self) -> float:
        """Return the seconds to wait before nodes that were not reached are tried again."""
        if not self._unreached:
            return 0.0
        self._rounds += 1
        return min(_PAUSES.delay(self._rounds - 1), self.patience())

    def _excluded(self) -> tuple[Hashable, ...]:
        """Return the nodes that are left out of a wait: those tried that may not return."""
        returning = {*self._limited, *(self._unreached if self._needs_ready else ())}
        self._tried = tuple(each for each in self._tried if each not in returning)
        self._limited = self._unreached = ()
        return self._tried

    def _begin_next(self, verdict: Verdict) -> bool:
        settings, failed = self._settings, self.lease.node_id
        # Another node may well have room, and the one that has none is on cooldown: that it was
        # asked is no failure, and asking around puts no load on what ails.
        limited = verdict.outcome is Outcome.RATE_LIMITED and settings.max_attempts > 1
        free = limited or (verdict.never_sent and self._needs_ready)
        if limited:
            self._limited = (*self._limited, failed)
        if free:
            self._uncounted += 1
        elif self._attempts - self._uncounted >= settings.max_attempts:
            return self._refuse("attempts")
        if self._life.closed or (self._ends is not None and self._ends <= self._clock()):
            return self._refuse("deadline")
        if not free and not settings.budget.try_withdraw():
            return self._refuse("budget")
        self._tried = (*self._tried, failed)
        search = self._search.besides(self._tried)
        found = search.look()
        if not isinstance(found, NoNodeAvailable):
            return self._go_on(found, verdict)
        if self._patient_until is not None:
            self._stranded = verdict
            return False
        search.refused(found)
        return self._refuse("no_node")

    def _go_on(self, lease: Lease[Any], verdict: Verdict) -> bool:
        metrics, failed = self._settings.balancer.metrics, self.lease.node_id
        self._hold(lease)
        if metrics is not None:
            metrics.on_retry(failed, verdict.outcome.value)
        return True

    def _refuse(self, reason: str) -> bool:
        metrics = self._settings.balancer.metrics
        if metrics is not None:
            metrics.on_retry_refused(reason)
        return False

    def _end(
        self, lease: Lease[Any], verdict: Verdict, details: str | None = None, *, held: bool = True
    ) -> None:
        if held:
            lease.blame = self._blamed()
        if verdict.never_sent:
            lease.refund()
        reason = f"{verdict.reason}: {details}" if details else verdict.reason
        if verdict.outcome is Outcome.SUCCESS:
            lease.success()
        elif verdict.outcome is Outcome.FAILURE:
            lease.failure(reason, verdict.retry_after)
        else:
            lease.rate_limited(verdict.retry_after, verdict.reason)

    def _tell_load(self, trailers: Trailers | None) -> None:
        tell = self._settings.on_load_report
        report = None if tell is None else report_in(trailers)
        if tell is None or report is None:
            return
        try:
            tell(self.lease.node, report)
        except Exception:  # noqa: BLE001 - the call has nothing to do with it
            log_exception("on_load_report failed for node %r", self.lease.node_id)

    def _hold(self, lease: Lease[Any]) -> None:
        self.lease = lease
        self._attempts += 1

    def _blamed(self) -> Blame:
        """Return what holds failures back until it is known whose fault they are."""
        if self._blame is None:
            # A cooldown on the word of one call needs another node's that the call is sound.
            self._blame = Blame(holds_cooldowns=len(self._settings.balancer.nodes) > 1)
        return self._blame


def _least(timeout: float | None, deadline: float | None, default: float | None) -> float | None:
    """Return the seconds that a call has: by its caller's word, or else by the channel's."""
    if timeout is None:
        return default if deadline is None else deadline
    return timeout if deadline is None else min(timeout, deadline)


def _patience(own: float | EllipsisType | None, default: float | None) -> float:
    """Return the seconds for which a call waits for a node."""
    timeout = default if isinstance(own, EllipsisType) else own
    return checked_timeout(timeout) if timeout != 0 else 0.0  # the usual, at no cost
