"""Retries of one request: its attempts, their verdicts, and whether another follows.

The state machine is the same for every HTTP library, sync or async; a library's shell sends each
attempt and reports to `RetryLoop` what came back. It does no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadwise.balancer import Lease
from loadwise.balancer.failure_rules import outcome_of
from loadwise.balancer.held_failures import Blame
from loadwise.context import HashKey
from loadwise.errors import NoNodeAvailable
from loadwise.integrations._http.failover import Failover, Prior
from loadwise.integrations._http.metering import Amounts, Left, RequestAccount
from loadwise.integrations._http.node_search import search_of
from loadwise.integrations._http.replay import ReplayRules
from loadwise.integrations._http.settings import Options, Settings
from loadwise.integrations._http.span_events import current_events
from loadwise.integrations._http.verdict import Verdict
from loadwise.outcome import Outcome

__all__ = ["RetryLoop"]

_NOT_SET_UP = Verdict(Outcome.FAILURE, retry=True, never_sent=True)
_RATE_LIMITED = 429
_NOTHING_LEFT: Mapping[str, Left] = {}
_NOTHING = Prior()


class RetryLoop:
    """Attempts of one request, each on another node. Not thread-safe: it belongs to one request.

    Args:
        settings: What holds for all requests.
        options: What this one says for itself.
        hash_key: What it belongs to.
        account: What it is charged; ``None`` where nobody meters.
        request: The request itself, for its ``method`` and its ``headers``.
        client: Who sends it, for its ``closed``: what breaks then is not the node's doing.
        replayable: Whether its body can be sent again.
        prior: What has been before it.

    Attributes:
        lease: The present attempt's hold on its node.
        node_id: The id of that node.
        base_url: Where that node is reached, once the request has been made ready for it.
        sent: Whether the present attempt's request has been made ready and may have been sent.
        attempts: How many attempts there have been.
        deadline: The moment by which the request has to end.
        failover: Where the next attempt goes, and whether it waits.
        replay: Whether the request may be sent again.
        account: What it is charged.
        used: What the present attempt has used, where the status of its answer has told.
    """

    __slots__ = (
        "_blame",
        "_client",
        "_events",
        "_left",
        "_refused",
        "_settings",
        "account",
        "attempts",
        "base_url",
        "deadline",
        "failover",
        "lease",
        "node_id",
        "replay",
        "sent",
        "used",
    )

    base_url: str
    used: Amounts | None
    _left: Mapping[str, Left]

    def __init__(
        self,
        settings: Settings,
        options: Options,
        hash_key: HashKey,
        account: RequestAccount | None,
        *,
        request: Any,
        client: Any,
        replayable: bool,
        prior: Prior | None = None,
    ) -> None:
        self._settings = settings
        self.account = account
        self._client = client
        prior = prior or _NOTHING
        search = search_of(settings, options, hash_key, account)
        self.failover = Failover(settings, options, search, prior)
        self.deadline = self.failover.deadline
        self.replay = ReplayRules(settings, options, request, has_stored_body=replayable)
        # How many attempts a rate limit has refused, which use up none of those allowed.
        self._refused = 0
        # A cooldown on the word of one request needs another node's word that the request is sound.
        self._blame = Blame(holds_cooldowns=len(settings.balancer.nodes) > 1)
        self.attempts = 0
        self._events = current_events(settings.balancer.name)
        settings.budget.deposit()
        self._hold(self.failover.first(prior))

    def failed(self, error: BaseException, verdict: Verdict) -> bool:
        """Report an attempt without a response; return whether the next one has begun."""
        lease = self.lease
        if outcome_of(type(error)) is Outcome.CANCELLED:
            self.tell_span(Outcome.CANCELLED, error)
            lease.cancel()
            return False
        if verdict.never_sent:
            lease.refund()
        if self._client.closed:
            self.tell_span(Outcome.CANCELLED, error)
            lease.call_off()
            return False
        unread = verdict.never_sent and self.replay.has_body_left(error)
        again = verdict.retry and (unread or self._may_send_again())
        self.end(lease, verdict, error)
        return again and self._begin_next(verdict)

    def set_up_failed(self, error: Exception) -> bool:
        """Report that a request could not be made ready for its node; return as `failed` does.

        What is wrong with one node, such as a key that is missing, is no reason not to ask another.
        """
        lease = self.lease
        self.tell_span(Outcome.FAILURE, error)
        # In this order, so that it is held like other failures: what is wrong with the function
        # itself would else take out one node after another.
        lease.failure(f"set-up failed: {type(error).__name__}: {error}")
        lease.refund()
        return self._begin_next(_NOT_SET_UP)

    def answered(
        self, verdict: Verdict, status: int, headers: Mapping[str, str], *, events: bool = False
    ) -> bool:
        """Report a response; return whether the next attempt has begun and it is to be dropped.

        Where it is to be kept, the lease stays open until `end` is called for its last byte. The
        headers of a stream of ``events`` are no answer yet: the first event is.
        """
        lease = self.lease
        if self._events is not None:
            self._events.answered(status, verdict.outcome)
        if not events:
            lease.first_byte()
        if verdict.outcome is Outcome.SUCCESS:
            self._blame.succeeded(self.node_id)
        elif verdict.outcome is Outcome.FAILURE and verdict.never_sent:
            lease.refund()
        self._meter(verdict, status, headers)
        used, left = self.used, self._left
        if not (verdict.retry and self._may_send_again() and self._begin_next(verdict)):
            if events:
                self.correct(lease)  # its end is too far away
            return False
        self.end(lease, verdict, used=used)
        if left:
            lease.correct(left)
        return True

    def _meter(self, verdict: Verdict, status: int, headers: Mapping[str, str]) -> None:
        """Read what an answer has used, and what it leaves, off its status and its headers."""
        if self.account is None:
            return
        self.used = self.account.used_by(status)
        # Its cooldown is as long as it says.
        if verdict.outcome is not Outcome.RATE_LIMITED:
            self._left = self.account.left(headers)

    def correct(self, lease: Lease[Any]) -> None:
        """Correct the quota by what the answer's headers say is left, once."""
        left, self._left = self._left, _NOTHING_LEFT
        if left:
            lease.correct(left)

    def may_reconnect(self, error: BaseException, *, unsent: bool) -> bool:
        """Tell whether the present attempt may be made once more, after its connection had ended.

        It was no attempt then, and says nothing about the node.
        """
        unused = unsent and self.replay.has_body_left(error)
        in_time = not (self.deadline.has_passed or self._client.closed)
        return in_time and (unused or self.replay.may_repeat())

    def broke(self, lease: Lease[Any], verdict: Verdict, error: BaseException) -> None:
        """Report that the body of a response did not come to its end.

        Where the ``verdict`` at its headers was a success, the request was sound, and what breaks
        after that is the node's alone.
        """
        if verdict.outcome is Outcome.SUCCESS:
            lease.blame = None
        outcome = Outcome.CANCELLED if self._client.closed else outcome_of(type(error))
        self.end(lease, Verdict(outcome), error)

    def end(
        self,
        lease: Lease[Any],
        verdict: Verdict,
        error: BaseException | None = None,
        *,
        used: Amounts | None = None,
    ) -> None:
        """Report how an attempt ended, and what it has used, where that is known by now."""
        if lease is self.lease:
            self.tell_span(verdict.outcome, error)
        if verdict.outcome is Outcome.SUCCESS:
            ended = lease.success()
        elif verdict.outcome is Outcome.FAILURE:
            ended = lease.failure(verdict.reason if error is None else error, verdict.retry_after)
        elif verdict.outcome is Outcome.RATE_LIMITED:
            self._blame.doubts_limits = verdict.confirm
            ended = lease.rate_limited(verdict.retry_after, verdict.reason)
        else:
            ended = lease.call_off()
        if not ended or verdict.never_sent or self.account is None:
            return
        if used is None and verdict.outcome is Outcome.RATE_LIMITED:
            used = self.account.used_by(_RATE_LIMITED)
        if used is not None:
            lease.settle(used)

    def give_up(self) -> None:
        """Report that something else than the node has failed; a report made before holds."""
        self.tell_span(Outcome.CANCELLED)
        if not self.sent:
            self.lease.refund()
        self.lease.call_off()

    def _may_send_again(self) -> bool:
        return self.replay.may_repeat() or self._refuse("unsafe")

    def _begin_next(self, verdict: Verdict) -> bool:
        settings = self._settings
        # Another node may well have room, and the one that has none is on cooldown: that it was
        # asked is no failure, and asking around puts no load on what ails.
        limited = verdict.outcome is Outcome.RATE_LIMITED and settings.max_attempts > 1
        if limited:
            self._refused += 1
        elif self.attempts - self._refused >= settings.max_attempts:
            return self._refuse("attempts")
        if self.deadline.has_passed:
            return self._refuse("deadline")
        if not limited and not settings.budget.try_withdraw():
            return self._refuse("budget")
        # One whose cooldown needs another node's word is not on cooldown yet.
        lease = self.failover.next(self.node_id, may_return=limited and not verdict.confirm)
        if lease is None:
            return False if self.failover.is_stranded else self._refuse("no_node")
        return self._retry(lease, verdict)

    def _retry(self, lease: Lease[Any], verdict: Verdict) -> bool:
        metrics, failed = self._settings.balancer.metrics, self.node_id
        self._hold(lease)
        if metrics is not None:
            metrics.on_retry(failed, verdict.outcome.value)
        return True

    def wait(self, verdict: Verdict) -> bool:
        """Wait for a node for the next attempt, where nothing else is missing.

        Those that a rate limit has refused may be asked again: each is on cooldown until then.

        Returns:
            Whether the next attempt has begun, as by `answered`.
        """
        seconds = self._end_to_wait(verdict)
        if not seconds:
            return False
        try:
            lease = self.failover.wait(seconds)
        except NoNodeAvailable:
            return self._refuse("no_node")
        return self._retry(lease, verdict)

    async def wait_async(self, verdict: Verdict) -> bool:
        """Wait as `wait` does, without a thread."""
        seconds = self._end_to_wait(verdict)
        if not seconds:
            return False
        try:
            lease = await self.failover.wait_async(seconds)
        except NoNodeAvailable:
            return self._refuse("no_node")
        return self._retry(lease, verdict)

    def _end_to_wait(self, verdict: Verdict) -> float:
        """End the present attempt if a node may be waited for; return for how many seconds."""
        if not self.failover.is_stranded:
            return 0.0
        seconds = 0.0 if self._client.closed else self.failover.patience()
        if seconds:
            self.end(self.lease, verdict, used=self.used)
        else:
            self.failover.abandon()
            self._refuse("no_node")
        return seconds

    def _refuse(self, reason: str) -> bool:
        metrics = self._settings.balancer.metrics
        if metrics is not None:
            metrics.on_retry_refused(reason)
        return False

    def tell_span(self, outcome: Outcome | None = None, error: BaseException | None = None) -> None:
        """Add the event of the present attempt to the current span, once.

        Args:
            outcome: How it ended, if not as its response means.
            error: What was raised instead of a response, or while that was read.
        """
        if self._events is not None:
            url = self.base_url if self.sent else None
            self._events.end(self.attempts, self.node_id, url, outcome=outcome, error=error)

    def _hold(self, lease: Lease[Any]) -> None:
        if self.attempts:
            self.tell_span()
        self.lease = lease
        lease.blame = self._blame
        self.node_id = lease.node_id
        self.sent = False
        self.used = None
        self._left = _NOTHING_LEFT
        self.attempts += 1
