"""One request's way through the fleet: attempts, verdicts, retries.

The state machine is the same for every HTTP library, sync or async; a library's shell sends what
`Exchange` hands out and tells it what came back. It does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from math import inf
from typing import Any, NamedTuple

from loadwise.balancer import Lease
from loadwise.balancer.blame import Blame
from loadwise.balancer.failures import outcome_of
from loadwise.context import HashKey
from loadwise.errors import NoNodeAvailable
from loadwise.integrations._http.settings import Amounts, Options, Settings
from loadwise.integrations._http.stale import frame_of
from loadwise.integrations._http.verdict import Verdict
from loadwise.nodes import node_id
from loadwise.outcome import Outcome

__all__ = ["Exchange", "Prior"]

_READ_AHEAD = 65_536
_NOT_SET_UP = Verdict(Outcome.FAILURE, retry=True, never_sent=True)
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})


class Prior(NamedTuple):
    """What has been before a request's way through the fleet.

    Args:
        ends: The deadline of the request that it was made of, as after a redirect.
        found: What has come of waiting for a node, where that was awaited.
        challenger: The node that has asked for credentials, which this request brings: what it has
            given with its challenge, other nodes may not know.
    """

    ends: float | None = None
    found: Lease[Any] | NoNodeAvailable | None = None
    challenger: Hashable | None = None


_NOTHING = Prior()


class Exchange:
    """One request's way through the fleet. Not thread-safe: it belongs to one request.

    Args:
        settings: What holds for all requests.
        options: What this one says for itself.
        hash_key: What it belongs to.
        cost: What it is expected to use.
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
    """

    __slots__ = (
        "_blame",
        "_client",
        "_cost",
        "_hash_key",
        "_options",
        "_replayable",
        "_request",
        "_settings",
        "_tried",
        "attempts",
        "base_url",
        "ends",
        "lease",
        "node_id",
        "sent",
    )

    base_url: str

    def __init__(
        self,
        settings: Settings,
        options: Options,
        hash_key: HashKey,
        cost: Amounts | None,
        *,
        request: Any,
        client: Any,
        replayable: bool,
        prior: Prior | None = None,
    ) -> None:
        self._settings = settings
        self._options = options
        self._hash_key = hash_key
        self._cost = cost
        self._request = request
        self._client = client
        self._replayable = replayable
        limit = settings.deadline if options.deadline is None else options.deadline
        own = None if limit is None else settings.balancer.clock() + limit
        prior = prior or _NOTHING
        self.ends = own if prior.ends is None else prior.ends
        self._tried: tuple[Hashable, ...] = ()
        # A pause on the word of one request needs another node's word that the request is sound.
        self._blame = Blame(holds_pauses=len(settings.balancer.nodes) > 1)
        self.attempts = 0
        settings.budget.deposit()
        self._begin(prior)

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
            lease.cancel()
            return False
        if verdict.never_sent:
            lease.refund()
        if self._client.closed:
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
        # In this order, so that it is held like other failures: what is wrong with the function
        # itself would else take out one node after another.
        lease.failure(f"set-up failed: {type(error).__name__}: {error}")
        lease.refund()
        return self._begin_next(_NOT_SET_UP)

    def answered(self, verdict: Verdict, *, events: bool = False) -> bool:
        """Report a response; return whether the next attempt has begun and it is to be dropped.

        Where it is to be kept, the lease stays open until `end` is called for its last byte. The
        headers of a stream of ``events`` are no answer yet: the first event is.
        """
        lease = self.lease
        if not events:
            lease.first_byte()
        if verdict.outcome is Outcome.SUCCESS:
            self._blame.succeeded(self.node_id)
        elif verdict.outcome is Outcome.FAILURE and verdict.never_sent:
            lease.refund()
        if not (verdict.retry and self._may_send_again() and self._begin_next(verdict)):
            return False
        self.end(lease, verdict)
        return True

    def may_reconnect(self, error: BaseException, *, unsent: bool) -> bool:
        """Whether the present attempt may be made once more, after its connection had ended.

        It was no attempt then, and says nothing about the node.
        """
        in_time = self.ends is None or self.seconds_left() > 0
        unused = unsent and self._has_body_left(error)
        return in_time and not self._client.closed and (unused or self.may_repeat())

    def _has_body_left(self, error: BaseException) -> bool:
        """Whether the body can be sent after a request of which a server says it was unread."""
        return self._replayable or frame_of(error) is None

    def may_read_ahead(self, length: int | None) -> bool:
        """Whether a body is so small that it is better read before the response is handed on.

        A node may die between its headers and its last byte. As long as nobody has seen the
        response, a request that may be repeated can still be sent to another node.
        """
        return length is not None and length <= _READ_AHEAD and self.may_repeat()

    def broke(self, lease: Lease[Any], verdict: Verdict, error: BaseException) -> None:
        """Report that the body of a response did not come to its end.

        Where the ``verdict`` at its headers was a success, the request was sound, and what breaks
        after that is the node's alone.
        """
        if verdict.outcome is Outcome.SUCCESS:
            lease.blame = None
        outcome = Outcome.CANCELLED if self._client.closed else outcome_of(type(error))
        self.end(lease, Verdict(outcome), error)

    def end(self, lease: Lease[Any], verdict: Verdict, error: BaseException | None = None) -> None:
        """Report how an attempt ended."""
        if verdict.outcome is Outcome.SUCCESS:
            lease.success()
        elif verdict.outcome is Outcome.FAILURE:
            lease.failure(verdict.reason if error is None else error, verdict.retry_after)
        elif verdict.outcome is Outcome.RATE_LIMITED:
            limited = lease.rate_limited(verdict.retry_after, verdict.reason)
            if limited and not verdict.never_sent:
                refused = self._settings.refused()
                if refused is not None:
                    lease.settle(refused)
        else:
            lease.call_off()

    def give_up(self) -> None:
        """Report that something else than the node has failed; a report made before holds."""
        if not self.sent:
            self.lease.refund()
        self.lease.call_off()

    def may_repeat(self) -> bool:
        """Whether the request may be sent again although a server may have acted on it.

        Source: RFC 9110, section 9.2.2, for the methods.
        """
        return self._replayable and (
            self._request.method.upper() in _IDEMPOTENT
            or self._options.retry
            or "Idempotency-Key" in self._request.headers
        )

    def _may_send_again(self) -> bool:
        return self.may_repeat() or self._refuse("unsafe")

    def _begin_next(self, verdict: Verdict) -> bool:
        if self.attempts >= self._settings.max_attempts:
            return self._refuse("attempts")
        left = self.time_left()
        if left is not None and left <= 0:
            return self._refuse("deadline")
        if not self._settings.budget.try_withdraw():
            return self._refuse("budget")
        failed = self.node_id
        self._tried = (*self._tried, failed)
        try:
            self._hold(self._find(self._options.where))
        except NoNodeAvailable:
            return self._refuse("no_node")
        metrics = self._settings.balancer.metrics
        if metrics is not None:
            metrics.on_retry(failed, verdict.outcome.value)
        return True

    def _refuse(self, reason: str) -> bool:
        metrics = self._settings.balancer.metrics
        if metrics is not None:
            metrics.on_retry_refused(reason)
        return False

    def _begin(self, prior: Prior) -> None:
        challenger, found = prior.challenger, prior.found
        if challenger is not None and found is None:
            with suppress(NoNodeAvailable):
                self._hold(self._find(lambda node: node_id(node) == challenger))
                return
        if isinstance(found, NoNodeAvailable):
            raise found
        if found is None:
            found = self._find(self._options.where, self._options.limits(self._settings.deadline))
        self._hold(found)

    def _find(
        self, where: Callable[[Any], bool] | None, limits: Sequence[float] = ()
    ) -> Lease[Any]:
        return self._settings.balancer.acquire(
            hash_key=self._hash_key,
            exclude=self._tried,
            cost=self._cost,
            where=where,
            timeout=min(limits, default=0.0),
        )

    def _hold(self, lease: Lease[Any]) -> None:
        self.lease = lease
        lease.blame = self._blame
        self.node_id = lease.node_id
        self.sent = False
        self.attempts += 1
