"""Sessions of aiohttp: the work they do around a middleware, and their errors.

Some of it is told only by attributes that aiohttp keeps to itself: a request's timer, who sends its
body, and the name of the function that waits for a free connection. Should they go, timeouts and
aiohttp's own repetition of a request are judged less well, and tests say so.
"""

from __future__ import annotations

import asyncio
import copy
import sys
import weakref
from contextlib import suppress
from contextvars import ContextVar
from math import inf
from typing import NamedTuple

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from loadwise.integrations._http.aiohttp_connections import Passage
from loadwise.integrations._http.deadline import Deadline
from loadwise.integrations._http.httpx_verdicts import is_local
from loadwise.integrations._http.verdict import Verdict
from loadwise.outcome import Outcome

__all__ = [
    "deadline_of",
    "drop",
    "judge_error",
    "note_deadline",
    "raise_if_spent",
    "remember_spent",
    "send",
    "stop_sending",
    "wait_for_body",
    "what_broke",
]

_PATIENCE = 1.0
_SPARE_TIME = 0.1
_SPARE_BYTES = 65_536
_NOBODYS = Verdict(Outcome.CANCELLED)
_NOT_CONNECTED = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ServerFingerprintMismatch,
)


async def send(
    outbound: ClientRequest, handler: ClientHandlerType, left: float | None
) -> ClientResponse:
    """Send a request, for at most as long as is left of its time."""
    # The session turns its total timeout, a cancellation of this task, into an error only outside
    # the middlewares; here it must be told from a cancellation by the caller.
    with outbound._timer:  # noqa: SLF001 - see the module's docstring
        if left is None:
            return await handler(outbound)
        limit = asyncio.timeout(left)
        try:
            async with limit:
                return await handler(outbound)
        except TimeoutError as error:
            if limit.expired():
                raise aiohttp.ServerTimeoutError(
                    f"no answer from {outbound.url.origin()} by the deadline of the request"
                ) from error
            raise


async def wait_for_body(
    response: ClientResponse, outbound: ClientRequest, deadline: Deadline
) -> None:
    """Wait until a small body has come, which stays to be read; but not for too long.

    Raises:
        aiohttp.ClientError: It has broken off, or had not come by the deadline of the request.
    """
    content = response.content
    broken = content.exception()
    if broken is not None:
        raise broken
    if content.is_eof():
        return
    left = None if deadline.ends is None else max(deadline.seconds_left(), 0.0)
    limit = asyncio.timeout(_PATIENCE if left is None else left)
    with outbound._timer:  # noqa: SLF001 - see the module's docstring
        try:
            async with limit:
                await content.wait_eof()
        except TimeoutError as error:
            if not limit.expired():
                raise
            if left is not None:
                raise aiohttp.ServerTimeoutError(
                    f"the body from {outbound.url.origin()} had not come by the request's deadline"
                ) from error


async def drop(response: ClientResponse) -> None:
    """Release a response that nobody will see; with its connection only if much is left."""
    length = response.content_length
    if response.connection is not None and (length is None or length <= _SPARE_BYTES):
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(_SPARE_TIME):
                await response.content.wait_eof()
    response.release()


async def stop_sending(outbound: ClientRequest) -> None:
    """Wait until what still sends the body of an attempt that is over has noticed."""
    with suppress(aiohttp.ClientError, OSError):
        await outbound.close()


def judge_error(error: BaseException, outbound: ClientRequest, passage: Passage) -> Verdict:
    """Judge an attempt that brought no response.

    Args:
        error: What was raised.
        outbound: The request as it went to the node.
        passage: What is known of the way it went.
    """
    sent = outbound.response is not None
    if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
        # Where a node has a proxy of its own, another node may be reached.
        retry = outbound.proxy != passage.proxy
        return Verdict(Outcome.CANCELLED, retry=retry, never_sent=True)
    if isinstance(error, TimeoutError) and _waited_for_pool(error):
        # The client's own connections are all busy, which says nothing about the node.
        retry = isinstance(error, aiohttp.ServerTimeoutError) and _has_pool_per_node(outbound)
        return Verdict(Outcome.CANCELLED, retry=retry, never_sent=not sent)
    if isinstance(error, aiohttp.InvalidURL) or _is_of_the_body(error):
        return Verdict(Outcome.CANCELLED)
    if isinstance(error, aiohttp.ClientError):
        never_sent = not sent and isinstance(error, _NOT_CONNECTED)
        outcome = Outcome.CANCELLED if never_sent and is_local(error) else Outcome.FAILURE
        return Verdict(outcome, retry=True, never_sent=never_sent)
    if isinstance(error, TimeoutError):
        # The session's total timeout, after which it sends nothing more.
        return Verdict(Outcome.FAILURE, never_sent=not sent)
    return Verdict(Outcome.FAILURE, retry=True) if isinstance(error, OSError) else _NOBODYS


def _has_pool_per_node(outbound: ClientRequest) -> bool:
    connector = outbound.session.connector
    return connector is not None and 0 < connector.limit_per_host < (connector.limit or inf)


def what_broke(response: ClientResponse) -> BaseException | None:
    """Return what has broken a response off that is being closed, if anything has."""
    broken = response.content.exception()
    # aiohttp marks a response that was closed early by an error of this very type.
    if broken is not None and type(broken) is not aiohttp.ClientConnectionError:
        return broken
    # It does not say why it was closed early, but it closes while that is being handled.
    error = sys.exception()
    if isinstance(error, TimeoutError):
        try:
            response._timer.assert_timeout()  # noqa: SLF001 - see the module's docstring
        except TimeoutError:
            return error
        error = error.__cause__  # a timeout of the caller's own is a cancellation
    if not isinstance(error, asyncio.CancelledError):
        return None
    # Once a response is done with, aiohttp cancels whoever still sends the request's body.
    sender = getattr(response, "_writer", None)
    return None if sender is not None and sender is asyncio.current_task() else error


def _is_of_the_body(error: BaseException) -> bool:
    """Tell whether an error is what the request's own body raised, such as a generator.

    aiohttp wraps it, as it does what the network does to it; but that is always an ``OSError``.
    """
    cause = error.__cause__
    return (
        type(error) is aiohttp.ClientConnectionError
        and cause is not None
        and not isinstance(cause, aiohttp.ClientError | OSError)
    )


def _waited_for_pool(error: BaseException | None) -> bool:
    """Tell whether a timeout struck while the request waited for a connection of its own side.

    aiohttp raises the same error for this as for a server that does not let itself be reached, so
    the place where it struck must tell.
    """
    for _ in range(8):  # the chain is shorter; a loop in it would not end
        if error is None:
            break
        step = error.__traceback__
        while step is not None:
            if step.tb_frame.f_code.co_name == "_wait_for_available_connection":
                return True
            step = step.tb_next
        error = error.__cause__ or error.__context__
    return False


class _Spent(NamedTuple):
    """A request that has been given up, and that its session may repeat."""

    timer: object
    request: weakref.ref[ClientRequest]
    error: Exception


_SPENT: ContextVar[_Spent | None] = ContextVar("loadwise_spent", default=None)


def remember_spent(request: ClientRequest, error: BaseException) -> None:
    """Remember the error of a request that has failed for good, if its session would repeat it."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return
    if isinstance(error, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError):
        # A copy, because the original keeps alive all that its traceback has been through.
        _SPENT.set(_Spent(request._timer, weakref.ref(request), copy.copy(error)))  # noqa: SLF001 - see the module's docstring


def raise_if_spent(request: ClientRequest) -> None:
    """Raise the error of a request that has been given up, if this is the session repeating it.

    After a lost connection a session sends an idempotent request once more, through all
    middlewares, as a new request with the same timer. The retries were ours to decide.
    """
    spent = _SPENT.get()
    if spent is not None:
        _SPENT.set(None)
        if spent.timer is request._timer and spent.request() is not request:  # noqa: SLF001 - see the module's docstring
            raise spent.error


_ENDS: ContextVar[tuple[object, weakref.ref[ClientRequest], float] | None] = ContextVar(
    "loadwise_ends", default=None
)


def note_deadline(request: ClientRequest, ends: float) -> None:
    """Have requests that a session makes of this one, as after a redirect, end when it does."""
    _ENDS.set((request._timer, weakref.ref(request), ends))  # noqa: SLF001 - see the module's docstring


def deadline_of(request: ClientRequest) -> float | None:
    """Return the deadline of the request that this one was made of, if there is one."""
    noted = _ENDS.get()
    if noted is None or noted[0] is not request._timer or noted[1]() is request:  # noqa: SLF001 - see the module's docstring
        return None
    return noted[2]
