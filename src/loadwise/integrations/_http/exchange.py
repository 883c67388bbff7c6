"""One request's way through the fleet: attempts, verdicts, retries.

The state machine is the same for every HTTP library, sync or async; a library's shell sends what
`Exchange` hands out and tells it what came back. It does no I/O.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from contextlib import suppress
from math import inf
from typing import Any, NamedTuple

from loadwise.balancer import Lease
from loadwise.balancer.acquiring import Acquisition
from loadwise.balancer.blame import Blame
from loadwise.balancer.failures import outcome_of
from loadwise.context import HashKey
from loadwise.errors import NoNodeAvailable
from loadwise.integrations._http.metering import Account, Amounts, Left
from loadwise.integrations._http.patience import search_of
from loadwise.integrations._http.settings import Options, Settings
from loadwise.integrations._http.span_events import current_events
from loadwise.integrations._http.stale import frame_of
from loadwise.integrations._http.verdict import Verdict
from loadwise.nodes import node_id
from loadwise.outcome import Outcome

__all__ = ["Exchange", "Prior"]

_READ_AHEAD = 65_536
_WHOLE = 4_194_304
_NOT_SET_UP = Verdict(Outcome.FAILURE, retry=True, never_sent=True)
_RATE_LIMITED = 429
_NOTHING_LEFT: Mapping[str, Left] = {}
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})


class Prior(NamedTuple):
    """History of a request before its way through the fleet.

    Args:
        ends: The deadline of the request that it was made of, as after a redirect.
        found: What has come of waiting for a node, where that was awaited.
        began: When that waiting began, by the balancer's clock.
        challenger: The node that has asked for credentials, which this request brings: what it has
            given with its challenge, other nodes may not know.
    """

    ends: float | None = None
    found: Lease[Any] | NoNodeAvailable | None = None
    challenger: Hashable | None = None
    began: float | None = None


_NOTHING = Prior()


class Exchange:
    """One request's way through the fleet. Not thread-safe: it belongs to one request.

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
        ends: The moment of the deadline, by the balancer's clock; ``None`` without one.
        account: What it is charged.
        used: What the present attempt has used, where the status of its answer has told.
    """

    __slots__ = (
        "_blame",
        "_client",
        "_events",
        "_left",
        "_limited",
        "_options",
        "_patient_until",
        "_refused",
        "_replayable",
        "_request",
        "_search",
        "_settings",
        "_stranded",
        "_tried",
        "account",
        "attempts",
        "base_url",
        "ends",
        "lease",
        "node_id",
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
        account: Account | None,
        *,
        request: Any,
        client: Any,
        replayable: bool,
        prior: Prior | None = None,
    ) -> None:
        self._settings = settings
        self._options = options
        self.account = account
        self._search = search_of(settings, options, hash_key, account)
        self._request = request
        self._client = client
        self._replayable = replayable
        prior = prior or _NOTHING
        limit, patience = options.time(settings), options.patience(settings)
        began = prior.began
        if began is None and (patience or limit is not None):
            began = settings.balancer.clock()
        own = None if limit is None or began is None else began + limit
        self.ends = own if prior.ends is None else prior.ends
        # Until when a node is waited for, if there is none.
        self._patient_until = began + patience if patience and began is not None else None
        # Where nothing but a node is missing for the next attempt: the search, and what it found.
        self._stranded: tuple[Acquisition[Any], NoNodeAvailable] | None = None
        self._tried: tuple[Hashable, ...] = ()
        # Those of them that a rate limit has refused.
        self._limited: tuple[Hashable, ...] = ()
        self._refused = 0
        # A pause on the word of one request needs another node's word that the request is sound.
        self._blame = Blame(holds_pauses=len(settings.balancer.nodes) > 1)
        self.attempts = 0
        self._events = current_events(settings.balancer.name)
        settings.budget.deposit()
        self._begin(prior)

    def clock(self) -> float:
        """Return the seconds of the balancer's clock."""
        return self._settings.balancer.clock()

    def time_left(self) -> float | None:
        """Return the seconds until the deadline; ``None`` without one."""
        return None if self.ends is None else self.seconds_left()

    def seconds_left(self) -> float:
        """Return the seconds until the deadline; infinite without one."""
        return inf if self.ends is None else self.ends - self._settings.balancer.clock()

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
        unread = verdict.never_sent and self._has_body_left(error)
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
        if verdict.outcome is not Outcome.RATE_LIMITED:  # that one sits out, for as long as it says
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
        in_time = self.ends is None or self.seconds_left() > 0
        unused = unsent and self._has_body_left(error)
        return in_time and not self._client.closed and (unused or self.may_repeat())

    def _has_body_left(self, error: BaseException) -> bool:
        """Tell whether the body can be sent again after a server said that it was unread."""
        return self._replayable or frame_of(error) is None

    def may_read_ahead(self, length: int | None) -> bool:
        """Tell whether a body is so small that it is better read before the response is handed on.

        A node may die between its headers and its last byte. As long as nobody has seen the
        response, a request that may be repeated can still be sent to another node.
        """
        return length is not None and length <= _READ_AHEAD and self.may_repeat()

    def may_read(self, length: int | None, verdict: Verdict) -> int:
        """Return how much of a body is better read before the response is handed on.

        Of small ones that is all, of others as much as the ``verdict`` wants.
        """
        if self.may_read_ahead(length):
            return _READ_AHEAD
        wanted = verdict.whole and self.may_repeat() and (length or 0) <= _WHOLE
        return _WHOLE if wanted else 0

    @property
    def is_stranded(self) -> bool:
        """True if nothing but a node is missing for the next attempt, and may be waited for."""
        return self._stranded is not None

    def may_open(self, verdict: Verdict) -> bool:
        """Tell whether a response is better held back until its body has begun."""
        return verdict.watch is not None and self._settings.max_attempts > 1 and self.may_repeat()

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

    def may_repeat(self) -> bool:
        """Tell whether the request may be sent again although a server may have acted on it.

        Source: RFC 9110, section 9.2.2, for the methods.
        """
        return self._replayable and (
            self._request.method.upper() in _IDEMPOTENT
            or self._options.retry
            or self._settings.repeatable
            or "Idempotency-Key" in self._request.headers
        )

    def _may_send_again(self) -> bool:
        return self.may_repeat() or self._refuse("unsafe")

    def _begin_next(self, verdict: Verdict) -> bool:
        settings, failed = self._settings, self.node_id
        # Another node may well have room, and the one that has none sits out: that it was asked is
        # no failure, and asking around puts no load on what ails.
        limited = verdict.outcome is Outcome.RATE_LIMITED and settings.max_attempts > 1
        if limited:
            self._refused += 1
            if not verdict.confirm:  # that one does not sit out yet
                self._limited = (*self._limited, failed)
        if not limited and self.attempts - self._refused >= settings.max_attempts:
            return self._refuse("attempts")
        left = self.time_left()
        if left is not None and left <= 0:
            return self._refuse("deadline")
        if not limited and not settings.budget.try_withdraw():
            return self._refuse("budget")
        self._tried = (*self._tried, failed)
        search = self._search.besides(self._tried)
        found = search.look()
        if isinstance(found, NoNodeAvailable):
            self._stranded = search, found
            return self._give_up_search() if self._patient_until is None else False
        self._hold(found)
        self._tell_retry(failed, verdict)
        return True

    def _give_up_search(self) -> bool:
        stranded, self._stranded = self._stranded, None
        if stranded is not None:
            search, refusal = stranded
            search.refused(refusal)
        return self._refuse("no_node")

    def wait(self, verdict: Verdict) -> bool:
        """Wait for a node for the next attempt, where nothing else is missing.

        Those that a rate limit has refused may be asked again, for each sits out until then.

        Returns:
            Whether the next attempt has begun, as by `answered`.
        """
        seconds = self._patience_left(verdict)
        if not seconds:
            return False
        failed = self.node_id
        try:
            self._hold(self._search.wait(seconds, self._tried))
        except NoNodeAvailable:
            return self._refuse("no_node")
        self._tell_retry(failed, verdict)
        return True

    async def wait_async(self, verdict: Verdict) -> bool:
        """Wait as `wait` does, without a thread."""
        seconds = self._patience_left(verdict)
        if not seconds:
            return False
        failed = self.node_id
        try:
            lease = await self._search.wait_async(seconds, self._tried)
        except NoNodeAvailable:
            return self._refuse("no_node")
        self._hold(lease)
        self._tell_retry(failed, verdict)
        return True

    def _patience_left(self, verdict: Verdict) -> float:
        """Return for how long a node may be waited for; end the present attempt if it may."""
        if self._stranded is None:
            return 0.0
        seconds = 0.0 if self._client.closed else self._seconds_patient()
        if not seconds:
            self._give_up_search()
            return 0.0
        self._stranded = None
        self.end(self.lease, verdict, used=self.used)
        self._tried = tuple(each for each in self._tried if each not in self._limited)
        self._limited = ()
        return seconds

    def _seconds_patient(self) -> float:
        if self._patient_until is None:
            return 0.0
        left = self._patient_until - self._settings.balancer.clock()
        return max(0.0, min(left, self.seconds_left()))

    def _tell_retry(self, failed: Hashable, verdict: Verdict) -> None:
        metrics = self._settings.balancer.metrics
        if metrics is not None:
            metrics.on_retry(failed, verdict.outcome.value)

    def _refuse(self, reason: str) -> bool:
        metrics = self._settings.balancer.metrics
        if metrics is not None:
            metrics.on_retry_refused(reason)
        return False

    def _begin(self, prior: Prior) -> None:
        challenger, found = prior.challenger, prior.found
        if challenger is not None and found is None:
            with suppress(NoNodeAvailable):
                self._hold(self._search.of(lambda node: node_id(node) == challenger))
                return
        if isinstance(found, NoNodeAvailable):
            raise found
        if found is None:
            seconds = self._seconds_patient()
            found = self._search.wait(seconds) if seconds else self._search.now()
        self._hold(found)

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
