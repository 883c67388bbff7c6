"""A client of the simulated fleet: a real balancer, and a caller who sees a request through."""

from __future__ import annotations

from collections.abc import Callable

from loadwise.balancer import Balancer
from loadwise.errors import NoNodeAvailable
from loadwise.retry_budget import RetryBudget
from loadwise.simulation.scenario import Callers
from loadwise.simulation.world.attempt import SimulatedAttempt, SimulatedRequest
from loadwise.simulation.world.loop import Action, Loop
from loadwise.simulation.world.network import Delays
from loadwise.simulation.world.recorder import Recorder
from loadwise.simulation.world.server import Server

__all__ = ["Client"]


class Client:
    """Sends requests through a balancer of its own, as its callers want it done.

    Args:
        loop: Virtual time.
        balancer: Who chooses; it is the one that ships.
        callers: What callers do about trouble.
        delays: How long messages take, or ``None`` where they take no time.
        recorder: Counts what happens.
        block_tokens: Tokens of a block of the requests' prompts; ``None`` where they have none.

    Attributes:
        done: Called by a server that has done its work, with the attempt.
    """

    def __init__(
        self,
        loop: Loop,
        balancer: Balancer[Server],
        callers: Callers,
        delays: Delays | None,
        recorder: Recorder,
        block_tokens: int | None = None,
    ) -> None:
        self.balancer = balancer
        self._loop = loop
        self._callers = callers
        self._delays = delays
        self._recorder = recorder
        self._acquire = balancer.acquire
        self._block_tokens = block_tokens
        self._end: Action = self._answered if block_tokens is None else self._answered_in_tokens
        self.done: Action = self._end if delays is None else self._answer_later
        self._gone = False
        self._budget = RetryBudget(callers.budget, clock=loop.clock)
        self._retries = callers.attempts > 1
        # Whether anything but the plain way of a request has to be thought of.
        self._watchful = (
            self._retries
            or callers.timeout is not None
            or callers.hedge is not None
            or block_tokens is not None
        )

    def send(self, request: SimulatedRequest[Server]) -> None:
        """Send a request, and see it through."""
        if self._watchful or request.key is not None or request.cost is not None:
            self._send_watchfully(request)
            return
        try:
            lease = self._acquire()
        except NoNodeAvailable:
            self._recorder.dropped += 1
            return
        self._dispatch(SimulatedAttempt(self, request, lease))

    def _send_watchfully(self, request: SimulatedRequest[Server]) -> None:
        if self._retries:
            self._budget.deposit()
        attempt = self._attempt(request)
        if attempt is None:
            request.over = True
            self._recorder.dropped += 1
            return
        if request.key is not None:
            self._recorder.keyed(request.key, attempt.lease.node.id)
        if self._callers.hedge is not None:
            self._loop.at(self._loop.now + self._callers.hedge, self._hedge, request)
        self._dispatch(attempt)

    def _attempt(self, request: SimulatedRequest[Server]) -> SimulatedAttempt[Server] | None:
        """Begin an attempt on a server not tried before, if there is one."""
        tried, prompt = request.tried, request.prompt
        text = None
        if prompt is not None and self._block_tokens is not None:
            text = prompt.text(self._block_tokens)
        try:
            if tried:
                lease = self._acquire(
                    hash_key=request.key, exclude=tried, cost=request.cost, prompt=text
                )
            else:
                lease = self._acquire(hash_key=request.key, cost=request.cost, prompt=text)
        except NoNodeAvailable:
            return None
        attempt = SimulatedAttempt(self, request, lease)
        if self._watchful:
            request.tried = [*(tried or ()), lease.node.id]
            request.under_way = [*(request.under_way or ()), attempt]
        if self._callers.timeout is not None:
            self._loop.at(self._loop.now + self._callers.timeout, self._time_out, attempt)
        return attempt

    def _dispatch(self, attempt: SimulatedAttempt[Server]) -> None:
        server = attempt.lease.node
        server.picks += 1
        if server.troubled:
            server.troubled_picks += 1
        if self._delays is None:  # as _tell does, in one call less for each request
            server.accept(attempt)
        else:
            self._tell(attempt, server.accept)

    def _tell(
        self, attempt: SimulatedAttempt[Server], action: Callable[[SimulatedAttempt[Server]], None]
    ) -> None:
        """Have the server of an attempt do something, once it hears of it."""
        if self._delays is None:
            action(attempt)
        else:
            self._loop.at(self._loop.now + self._delay(attempt), action, attempt)

    def _delay(self, attempt: SimulatedAttempt[Server]) -> float:
        """Return the seconds that a message takes to the server of an attempt, or back."""
        return 0.0 if self._delays is None else self._delays.to(attempt.lease.node.zone)

    def _answer_later(self, attempt: SimulatedAttempt[Server]) -> None:
        self._loop.at(self._loop.now + self._delay(attempt), self._end, attempt)

    def began(self, attempt: SimulatedAttempt[Server]) -> None:
        """The first token of an answer is on its way."""
        if self._delays is None:
            self._began(attempt)
        else:
            self._loop.at(self._loop.now + self._delay(attempt), self._began, attempt)

    def _began(self, attempt: SimulatedAttempt[Server]) -> None:
        if not attempt.over:
            attempt.began = self._loop.now
            attempt.lease.first_byte()

    def broke(self, attempt: SimulatedAttempt[Server]) -> None:
        """A server refused or broke the connection, or answered with an error."""
        self._after_delay(attempt, self._failed, "error")

    def rejected(self, attempt: SimulatedAttempt[Server]) -> None:
        """A server had no room in its queue."""
        self._after_delay(attempt, self._rejected, "queue full")

    def limited(self, attempt: SimulatedAttempt[Server], retry_after: float) -> None:
        """A server refused a request by its quota."""
        self._after_delay(attempt, self._refused, retry_after)

    def _after_delay(self, attempt: SimulatedAttempt[Server], then: Action, word: object) -> None:
        # By way of the loop even without a delay: a retry then begins on a clean stack.
        self._loop.at(self._loop.now + self._delay(attempt), then, (attempt, word))

    def _answered(self, attempt: SimulatedAttempt[Server]) -> None:
        if attempt.over:
            return
        attempt.over = True
        lease, request = attempt.lease, attempt.request
        lease.success()
        if request.cost is not None and request.true_cost is not None:
            # The client keeps account of the quotas that it knows, and of no others.
            lease.settle({name: request.true_cost[name] for name in request.cost})
        request.over = True
        if self._gone:
            self._recorder.failed += 1
        else:
            self._recorder.completed(request.arrived)
        if request.under_way is not None:
            self._call_off(request.under_way)

    def _answered_in_tokens(self, attempt: SimulatedAttempt[Server]) -> None:
        prompt = attempt.request.prompt
        if prompt is not None and not attempt.over and not self._gone:
            self._recorder.written(attempt.request.arrived, attempt.began, prompt.output)
        self._answered(attempt)

    def _call_off(self, attempts: list[SimulatedAttempt[Server]]) -> None:
        """Wait no longer for the other copies of a request that has its answer."""
        for attempt in attempts:
            if not attempt.over:
                attempt.over = True
                attempt.lease.call_off()
                self._tell(attempt, attempt.lease.node.call_off)

    def _failed(self, what: tuple[SimulatedAttempt[Server], str]) -> None:
        attempt, reason = what
        if self._ended(attempt):
            attempt.lease.failure(reason)
            self._go_on(attempt)

    def _rejected(self, what: tuple[SimulatedAttempt[Server], str]) -> None:
        attempt, reason = what
        if self._ended(attempt):
            attempt.lease.failure(reason)
            self._go_on(attempt, rejected=True)

    def _refused(self, what: tuple[SimulatedAttempt[Server], float]) -> None:
        attempt, retry_after = what
        if self._ended(attempt):
            attempt.lease.rate_limited(retry_after)
            attempt.lease.refund()
            self._recorder.rate_limited += 1
            self._go_on(attempt)

    def _time_out(self, attempt: SimulatedAttempt[Server]) -> None:
        if self._ended(attempt):
            attempt.lease.failure("timeout")
            self._recorder.timeouts += 1
            self._go_on(attempt)

    def _ended(self, attempt: SimulatedAttempt[Server]) -> bool:
        """Record that an attempt has failed; return whether that is news."""
        if attempt.over:
            return False
        attempt.over = True
        return True

    def _go_on(self, attempt: SimulatedAttempt[Server], *, rejected: bool = False) -> None:
        """After an attempt that failed: try another server, or give the request up."""
        request = attempt.request
        request.failures += 1
        others = [each for each in request.under_way or () if not each.over]
        request.under_way = others
        if (
            not self._gone
            and request.failures < self._callers.attempts
            and self._budget.try_withdraw()
        ):
            following = self._attempt(request)
            if following is not None:
                self._recorder.retries += 1
                self._dispatch(following)
                return
        if others:
            return
        request.over = True
        if rejected:
            self._recorder.dropped += 1
        else:
            self._recorder.failed += 1

    def _hedge(self, request: SimulatedRequest[Server]) -> None:
        if request.over or self._gone:
            return
        attempt = self._attempt(request)
        if attempt is not None:
            self._recorder.hedges += 1
            self._dispatch(attempt)

    def leave(self) -> None:
        """Begin no more attempts, and lose what is under way."""
        self._gone = True
