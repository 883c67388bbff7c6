"""Trying a request on one node after another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar, cast

from loadwise._numbers import whole
from loadwise._prompt import Prompt
from loadwise.backoff import Backoff
from loadwise.balancer.failure_rules import Failures, outcome_of
from loadwise.balancer.held_failures import Blame
from loadwise.balancer.lease import Lease
from loadwise.balancer.pacing import Pacing
from loadwise.balancer.request import NOBODY, Request, as_ids
from loadwise.balancer.waiter import comes_with_time
from loadwise.clock import Clock
from loadwise.context import HashKey
from loadwise.errors import NoNodeAvailable
from loadwise.outcome import Outcome
from loadwise.retry_budget import RetryBudget

__all__ = ["Attempt", "Attempts", "LeaseSource"]

N = TypeVar("N")

_RETRIED = (Outcome.FAILURE, Outcome.RATE_LIMITED)


class LeaseSource(Protocol[N]):
    """A balancer, as far as attempts know it."""

    @property
    def acquire(self) -> Callable[..., Lease[N]]:
        """Choose a node and hold it, or raise `NoNodeAvailable`."""
        ...

    @property
    def acquire_async(self) -> Callable[..., Awaitable[Lease[N]]]:
        """Do the same, and let other tasks go on where it waits for a node."""
        ...

    @property
    def clock(self) -> Clock:
        """The clock that it goes by."""
        ...

    def _has_only(self, ids: frozenset[Hashable]) -> bool:
        """Tell whether there is no member but these."""
        ...

    def _anyone_left(self, request: Request[N]) -> bool:
        """Tell whether there is a node for such a request."""
        ...


class Attempts(Generic[N]):
    """The attempts of one request. Made by `Balancer.attempts`; iterate over it once.

    Attributes:
        number: How many have begun.
        pacing: What limits them in time and number beyond ``n``, if anything.

    Not thread-safe: one request belongs to one thread or task.
    """

    # Most requests never differ from these, so the constructor does not repeat them.
    pacing: Pacing | None = None
    _asked: dict[str, Any] | None = None
    _exclude: frozenset[Hashable] = frozenset()
    _tried: frozenset[Hashable] = frozenset()
    _delay: float = 0.0
    _blame: Blame | None = None
    _last_error: BaseException | None = None

    def __init__(  # noqa: PLR0913, PLR0917 - those of Balancer.attempts; by place, they cost less
        self,
        balancer: LeaseSource[N],
        n: int,
        retry_on: type[BaseException] | tuple[type[BaseException], ...],
        failures: Failures | None,
        deadline: float | None,
        backoff: Backoff | None,
        budget: RetryBudget | None,
        timeout: float | None,
        hash_key: HashKey,
        exclude: Iterable[Hashable],
        cost: Mapping[str, float] | None,
        tags: Mapping[str, str] | None,
        where: Callable[[N], bool] | None,
        prompt: str | Prompt | None,
    ) -> None:
        if n.__class__ is not int or n < 1:
            n = whole("n", n, 1)
        if retry_on is not Exception and not _is_kind(retry_on):
            _check_kinds(retry_on)
        self._balancer = balancer
        self._left = n
        self._retry_on = retry_on
        self._rule = failures
        self.number = 0
        self._over = False
        self._plain = True  # nothing of what follows is asked for, and nobody was tried
        if deadline is not None or backoff is not None or budget is not None or timeout != 0.0:
            self.pacing = Pacing(balancer.clock, deadline, backoff, budget, timeout)
            self._plain = False
        if exclude is not NOBODY:
            self._exclude = as_ids(exclude)
            self._plain = False
        if hash_key is not None or cost is not None or tags is not None or where is not None:
            self._asked = {"hash_key": hash_key, "cost": cost, "tags": tags, "where": where}
            self._plain = False
        if prompt is not None:
            # One for all attempts, so that it is hashed once.
            self._asked = {**(self._asked or {}), "prompt": Prompt.of(prompt)}
            self._plain = False
        if self._asked is not None:
            # What is wrong with them is said now, not at the first attempt.
            Request(**self._asked)

    def __iter__(self) -> Iterator[Attempt[N]]:
        return self

    def __next__(self) -> Attempt[N]:
        if self.go_on():
            return Attempt(self, self.number)
        raise StopIteration

    def go_on(self) -> bool:
        """Go on to the next attempt, and tell whether there is one."""
        if self._over or self._left < 1:
            return False
        # Attempts that were ended by a word on the lease leave no error to raise.
        if (
            self.number
            and self._last_error is None
            and not self._may_follow(in_this_round=self._anyone_left())
        ):
            return False
        self._left -= 1
        self.number += 1
        # Unless the attempt fails in a way that is worth another, it is the last.
        self._over = True
        return True

    def begin(self) -> Lease[N]:
        """Acquire a lease on a node not tried in this round, or raise the last error.

        Where the round is over it sleeps until the next.
        """
        if self._plain:
            return self._balancer.acquire()
        while True:
            self._check_time()
            if self._delay and self.pacing is not None:
                self.pacing.wait(self._delay)
                self._delay = 0.0
                self._check_time()
            try:
                return self._own(self._balancer.acquire(**self._request()))
            except NoNodeAvailable as error:
                nobody = error
            # Out of the handler's reach, so that an earlier error keeps its cause and context.
            self._end_round(nobody)

    async def begin_async(self) -> Lease[N]:
        """Acquire a lease as `begin` does, in a task that lets others go on while it waits."""
        pacing = self.pacing
        if pacing is None:
            return self.begin()
        while True:
            self._check_time()
            if self._delay:
                await pacing.wait_async(self._delay)
                self._delay = 0.0
                self._check_time()
            try:
                if pacing.timeout == 0.0:
                    return self._own(self._balancer.acquire(**self._request()))
                return self._own(await self._balancer.acquire_async(**self._request()))
            except NoNodeAvailable as error:
                nobody = error
            self._end_round(nobody)

    def end(self, lease: Lease[N], error: BaseException | None) -> bool:
        """End an attempt whose block was left; return whether its error is dealt with."""
        if self._plain and error is None and lease.success():
            return False  # as most requests end
        # A word on the lease holds, whatever has left the block.
        said = lease.outcome is not None
        if error is None:
            lease.success()
        elif not said:
            self._failures().end(lease, error)
        outcome = lease.outcome
        if outcome is Outcome.SUCCESS and self._blame is not None:
            self._blame.succeeded(lease.node_id)
        final = outcome not in _RETRIED or lease.given_up
        self._last_error = None
        if error is None:
            self._over = final
            if not final:
                self._note(lease)
            return False
        if (said and final) or not isinstance(error, self._retry_on):
            return False
        if outcome_of(type(error)) is Outcome.CANCELLED:
            return False
        self._note(lease)
        if self._left < 1 or not self._may_follow(in_this_round=not self._all_tried()):
            return False
        self._last_error = error
        self._over = False
        return True

    def stop(self) -> None:
        """Allow no further attempt."""
        self._left = 0

    def too_late(self, pacing: Pacing, when: str) -> TimeoutError:
        """Return the error for an attempt that the deadline has prevented or ended."""
        error = TimeoutError(f"the deadline of {pacing.deadline:g} s has passed {when}")
        if self._last_error is not None:
            error.add_note(f"the attempt before was left by {self._last_error!r}")
        return error

    def _check_time(self) -> None:
        """Raise the last error if an attempt is too late, or will be once it has waited."""
        pacing = self.pacing
        if pacing is not None and pacing.is_late(self._delay):
            if self._last_error is not None:
                raise self._last_error
            raise self.too_late(pacing, f"before attempt {self.number} began")

    def _own(self, lease: Lease[N]) -> Lease[N]:
        lease.blame = self._blame
        return lease

    def _request(self) -> dict[str, Any]:
        """Return what to ask of the balancer."""
        request = {} if self._asked is None else dict(self._asked)
        if self._exclude or self._tried:
            request["exclude"] = self._exclude | self._tried
        if self.pacing is not None and self.pacing.timeout != 0.0:
            request["timeout"] = self.pacing.patience()
        return request

    def _end_round(self, nobody: NoNodeAvailable) -> None:
        """Have the next round begin after a delay; raise the last error if there is none."""
        pacing, delay = self.pacing, None
        if pacing is not None:
            if self._tried:  # and so excluded, as they are not in the next round
                delay = pacing.next_delay(0.0)
            elif comes_with_time(nobody) or nobody.reason == "queue":
                delay = pacing.next_delay(nobody.retry_after or 0.0)
        if delay is None:
            raise nobody if self._last_error is None else self._last_error
        self._delay = delay
        self._tried = frozenset()

    def _failures(self) -> Failures:
        if self._rule is not None:
            return self._rule
        retried = self._retry_on
        # TimeoutError is an OSError.
        return Failures((*(retried if isinstance(retried, tuple) else (retried,)), OSError))

    def _note(self, lease: Lease[N]) -> None:
        """Remember an attempt that may be followed by another."""
        self._plain = False
        self._tried |= {lease.node_id}
        if self._blame is None:
            self._blame = Blame()
            if lease.outcome is Outcome.FAILURE:
                self._blame.counts_at_once()  # it has counted, for want of one to hold it

    def _may_follow(self, *, in_this_round: bool) -> bool:
        """Tell whether another attempt may follow; if so, it is taken from the budget."""
        pacing = self.pacing
        if pacing is None:
            return in_this_round
        if not in_this_round:
            delay = pacing.next_delay(0.0)
            if delay is None:
                return False
            self._delay = delay
            self._tried = frozenset()
        return pacing.allows_another()

    def _anyone_left(self) -> bool:
        if self._all_tried():
            return False
        asked = self._request()
        if asked.pop("timeout", 0.0) != 0.0:
            return True  # as far as can be told before it has been waited for
        return self._balancer._anyone_left(Request(**asked))  # noqa: SLF001 - one mechanism

    def _all_tried(self) -> bool:
        return self._balancer._has_only(self._tried)  # noqa: SLF001 - the two are one mechanism


def _check_kinds(retry_on: object) -> None:
    kinds = cast("tuple[object, ...]", retry_on if isinstance(retry_on, tuple) else (retry_on,))
    for kind in kinds:
        if not _is_kind(kind):
            raise TypeError(
                f"retry_on is {kind!r}; it must be an exception type or a tuple of them"
            )


def _is_kind(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


class Attempt(Generic[N]):
    """One attempt: a context manager, for ``with`` and ``async with``, that gives a lease.

    Attributes:
        number: Which attempt it is, from 1 on.
    """

    __slots__ = ("_attempts", "_lease", "number")

    def __init__(self, attempts: Attempts[N], number: int) -> None:
        self._attempts = attempts
        self.number = number
        self._lease: Lease[N] | None = None

    def __enter__(self) -> Lease[N]:
        if self._lease is not None:
            raise self._entered_before()
        self._lease = lease = self._attempts.begin()
        return lease

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        lease = self._lease
        return lease is not None and self._attempts.end(lease, exc)

    async def __aenter__(self) -> Lease[N]:
        if self._lease is not None:
            raise self._entered_before()
        self._lease = lease = await self._attempts.begin_async()
        return lease

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        return self.__exit__(exc_type, exc, traceback)

    def _entered_before(self) -> RuntimeError:
        return RuntimeError(f"attempt {self.number} has been entered before")
