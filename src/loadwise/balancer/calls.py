"""Calling a function with one node after another, until it succeeds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Mapping
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR, isawaitable
from typing import Any, Final, Generic, TypedDict, TypeVar

from loadwise._callables import discard, refuse_async
from loadwise._numbers import shown
from loadwise._prompt import Prompt
from loadwise.backoff import Backoff
from loadwise.balancer.attempts import Attempts
from loadwise.balancer.lease import Lease
from loadwise.balancer.pacing import Pacing
from loadwise.context import HashKey
from loadwise.errors import NoNodeAvailable
from loadwise.retry_budget import RetryBudget

__all__ = ["CallOptions", "run", "run_async"]

N = TypeVar("N")


class CallOptions(TypedDict, Generic[N], total=False):
    """The keywords of `Balancer.call` and `Balancer.call_async` but ``with_lease``, for types."""

    attempts: int
    retry_on: type[BaseException] | tuple[type[BaseException], ...]
    deadline: float | None
    backoff: Backoff | None
    budget: RetryBudget | None
    timeout: float | None
    hash_key: HashKey
    exclude: Iterable[Hashable]
    cost: Mapping[str, float] | None
    tags: Mapping[str, str] | None
    where: Callable[[N], bool] | None
    prompt: str | Prompt | None


_LATER: Final = CO_COROUTINE | CO_GENERATOR | CO_ASYNC_GENERATOR
_TO_AWAIT: Final = "await call_async(...) instead"


def run(attempts: Attempts[N], fn: Callable[..., Any], *, with_lease: bool) -> Any:  # noqa: ANN401 - what ``fn`` returns
    """Call ``fn`` in one attempt after another, and return what it returns.

    Raises:
        TypeError: ``fn`` is no function, or what it returns is to be awaited.
        NoNodeAvailable: There was no node for the first attempt.
        Exception: The last attempt's error.
    """
    # In short, as most are plain functions; the long way takes 1 us.
    if getattr(getattr(fn, "__code__", None), "co_flags", _LATER) & _LATER:
        refuse_async("fn", fn, f"{_TO_AWAIT}, or give a plain function")
        _check(fn, with_lease)
    elif with_lease is not False:
        _check(fn, with_lease)
    answer: Any = None
    answered = False
    lease: Lease[N] | None = None
    try:
        while attempts.go_on():
            lease = attempts.begin()
            answered = False
            try:
                answer = fn(lease.node, lease) if with_lease else fn(lease.node)
                if hasattr(answer.__class__, "__await__"):
                    raise _not_awaited(answer, lease)  # noqa: TRY301 - it ends the attempt
            except BaseException as error:
                if not attempts.end(lease, error):
                    raise
            else:
                attempts.end(lease, None)
                answered = True
    except BaseException as error:
        _end(lease)
        # An answer that was called a failure is better than no node for another try.
        if not (answered and isinstance(error, (NoNodeAvailable, TimeoutError))):
            raise
    return answer


def run_async(
    attempts: Attempts[N], fn: Callable[..., Awaitable[Any]], *, with_lease: bool
) -> Coroutine[Any, Any, Any]:
    """Return a coroutine that does as `run` does, with a function whose answers are awaited."""
    _check(fn, with_lease)
    return _run_async(attempts, fn, with_lease=with_lease)


async def _run_async(
    attempts: Attempts[N], fn: Callable[..., Awaitable[Any]], *, with_lease: bool
) -> Any:  # noqa: ANN401 - what ``fn`` returns
    pacing = attempts.pacing
    if pacing is not None and pacing.deadline is not None:
        _check_task()
    answer: Any = None
    answered = False
    lease: Lease[N] | None = None
    try:
        while attempts.go_on():
            lease = await attempts.begin_async()
            answered = False
            try:
                waiting = fn(lease.node, lease) if with_lease else fn(lease.node)
                if not isawaitable(waiting):
                    raise _not_awaitable(waiting, lease)  # noqa: TRY301 - it ends the attempt
                if pacing is None or pacing.deadline is None:
                    answer = await waiting
                else:
                    answer = await _in_time(waiting, pacing, attempts, lease)
            except BaseException as error:
                if not attempts.end(lease, error):
                    raise
            else:
                attempts.end(lease, None)
                answered = True
    except BaseException as error:
        _end(lease)
        # An answer that was called a failure is better than no node for another try.
        if not (answered and isinstance(error, (NoNodeAvailable, TimeoutError))):
            raise
    return answer


async def _in_time(
    waiting: Awaitable[Any], pacing: Pacing, attempts: Attempts[N], lease: Lease[N]
) -> Any:  # noqa: ANN401 - what is waited for
    """Wait for an answer; at the deadline give the request up."""
    from asyncio import CancelledError, timeout  # noqa: PLC0415 - threads have no use for it

    given_up = False
    try:
        async with timeout(pacing.time_left()) as timer:
            try:
                return await waiting
            except BaseException as error:
                if timer.expired():
                    attempts.stop()
                    given_up = isinstance(error, CancelledError)
                    if given_up:
                        # Said here, where it is a cancellation still.
                        lease.cancel()
                raise
    except TimeoutError as error:
        if not given_up:
            raise  # the function's own
        when = f"in attempt {attempts.number}, on node {lease.node_id!r}"
        raise attempts.too_late(pacing, when) from error.__cause__


def _end(lease: Lease[N] | None) -> None:
    """End a lease that was interrupted as it was about to be ended; most have been before."""
    if lease is not None:
        lease.cancel()


def _check_task() -> None:
    from asyncio import current_task  # noqa: PLC0415 - as above

    try:
        is_task = current_task() is not None
    except RuntimeError:
        is_task = False
    if not is_task:
        raise RuntimeError(
            "call_async(deadline=...) needs a task of asyncio; elsewhere, put the timeout of your "
            "library around it"
        )


def _check(fn: object, with_lease: object) -> None:
    if not callable(fn):
        raise TypeError(f"fn is {shown(fn)}; it must be a function of a node")
    if not isinstance(with_lease, bool):
        raise TypeError(f"with_lease is {shown(with_lease)}; it must be True or False")


def _not_awaited(answer: object, lease: Lease[N]) -> TypeError:
    lease.call_off()  # the caller's own mistake, which no other node would mend
    discard(answer)
    return TypeError(f"fn returned {shown(answer)}, which is to be awaited; {_TO_AWAIT}")


def _not_awaitable(answer: object, lease: Lease[N]) -> TypeError:
    lease.call_off()
    discard(answer)
    return TypeError(
        f"fn returned {shown(answer)}, which cannot be awaited; give a coroutine function, or use "
        f"call(...) instead"
    )
