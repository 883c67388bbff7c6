"""Trying a request on one node after another."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

from loadwise._numbers import whole
from loadwise.balancer.blame import Blame
from loadwise.balancer.failures import Failures, outcome_of
from loadwise.balancer.lease import Lease
from loadwise.balancer.request import NOBODY, Request, as_ids
from loadwise.context import HashKey
from loadwise.errors import NoNodeAvailable
from loadwise.outcome import Outcome

if TYPE_CHECKING:
    from loadwise.balancer.balancer import Balancer

__all__ = ["Attempt", "Attempts"]

N = TypeVar("N")

_RETRIED = (Outcome.FAILURE, Outcome.RATE_LIMITED)


class Attempts(Generic[N]):
    """The attempts of one request. Made by `Balancer.attempts`; iterate over it once.

    Not thread-safe: one request belongs to one thread or task.
    """

    def __init__(  # noqa: PLR0913 - those of Balancer.attempts, and what it adds
        self,
        balancer: Balancer[N],
        n: int,
        retry_on: type[BaseException] | tuple[type[BaseException], ...],
        failures: Failures | None = None,
        *,
        hash_key: HashKey = None,
        exclude: Iterable[Hashable] = NOBODY,
        cost: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        where: Callable[[N], bool] | None = None,
    ) -> None:
        n = whole("n", n, 1)
        kinds = retry_on if isinstance(retry_on, tuple) else (retry_on,)
        for kind in kinds:
            _check_kind(kind)
        if exclude is not NOBODY:
            exclude = as_ids(exclude)
        # What is wrong with the keywords is said now, not at the first attempt.
        Request(hash_key=hash_key, exclude=exclude, cost=cost, tags=tags, where=where)
        self._balancer = balancer
        self._left = n
        self._retry_on = kinds
        self._hash_key = hash_key
        self._exclude = frozenset(exclude)
        self._cost = cost
        self._tags = tags
        self._where = where
        self._tried: set[Hashable] = set()
        self._rule = failures
        self._blame = Blame()
        self._over = False
        self._number = 0
        self._last_error: BaseException | None = None

    def __iter__(self) -> Iterator[Attempt[N]]:
        return self

    def __next__(self) -> Attempt[N]:
        if self._over or self._left < 1:
            raise StopIteration
        if self._number and self._last_error is None and not self._anyone_left():
            # The attempts before were ended by a word on the lease: there is no error to raise.
            raise StopIteration
        self._left -= 1
        self._number += 1
        # Unless the attempt fails in a way that is worth another, it is the last.
        self._over = True
        return Attempt(self, self._number)

    def _spared(self) -> Iterable[Hashable]:
        """Return the ids not to choose; `NOBODY` where there are none, the balancer's short way."""
        return self._exclude | self._tried if self._exclude or self._tried else NOBODY

    def _anyone_left(self) -> bool:
        if self._all_tried():
            return False
        request: Request[N] = Request(exclude=self._spared(), cost=self._cost, where=self._where)
        return self._balancer._anyone_left(request)  # noqa: SLF001 - the two are one mechanism

    def _all_tried(self) -> bool:
        members = self._balancer._fleet.ids  # noqa: SLF001 - the two are one mechanism
        return len(self._tried) >= len(members) and self._tried.issuperset(members)

    def begin(self) -> Lease[N]:
        """Acquire a lease on a node not tried before, or raise the last error."""
        error: BaseException
        try:
            lease = self._balancer.acquire(
                hash_key=self._hash_key,
                exclude=self._spared(),
                cost=self._cost,
                tags=self._tags,
                where=self._where,
            )
        except NoNodeAvailable as nobody:
            error = nobody if self._last_error is None else self._last_error
        else:
            lease.blame = self._blame
            self._tried.add(lease.node_id)
            return lease
        # Raised out of the handler's reach, so that it keeps its own cause and context.
        raise error

    def end(self, lease: Lease[N], error: BaseException | None) -> bool:
        """End an attempt whose block was left; return whether its error is dealt with."""
        # A word on the lease holds, whatever has left the block.
        said = lease.outcome is not None
        if error is None:
            lease.success()
        else:
            # TimeoutError is an OSError.
            rule = self._rule or Failures((*self._retry_on, OSError))
            lease._left_by(error, rule)  # noqa: SLF001 - what its own block would do, by this rule
        if self._number > 1 and lease.outcome is Outcome.SUCCESS:
            self._blame.succeeded(lease.node_id)
        final = self._blame.given_up or lease.outcome not in _RETRIED
        if error is None:
            self._over = final
            self._last_error = None
            return False
        if (said and final) or not isinstance(error, self._retry_on):
            return False
        if outcome_of(type(error)) is Outcome.CANCELLED:
            return False
        if self._left < 1 or self._all_tried():
            return False
        self._last_error = error
        self._over = False
        return True


def _check_kind(kind: object) -> None:
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        raise TypeError(f"retry_on is {kind!r}; it must be an exception type or a tuple of them")


class Attempt(Generic[N]):
    """One attempt: a context manager, for ``with`` and ``async with``, that gives a lease.

    Attributes:
        number: Which attempt it is, from 1 on.
    """

    def __init__(self, attempts: Attempts[N], number: int) -> None:
        self._attempts = attempts
        self.number = number
        self._lease: Lease[N] | None = None

    def __enter__(self) -> Lease[N]:
        if self._lease is not None:
            raise RuntimeError(f"attempt {self.number} has been entered before")
        self._lease = self._attempts.begin()
        return self._lease

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        lease = self._lease
        if lease is None:
            return False
        return self._attempts.end(lease, exc)

    async def __aenter__(self) -> Lease[N]:
        return self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        return self.__exit__(exc_type, exc, traceback)
