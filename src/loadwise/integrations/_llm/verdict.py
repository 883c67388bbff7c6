"""Verdicts on a key, from the answers of a language model's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadwise.integrations._http.bodies import is_async, is_readable, peek, peek_async
from loadwise.integrations._http.retry_after import LONGEST_COOLDOWN
from loadwise.integrations._http.verdict import Verdict, of_repeatable
from loadwise.integrations._llm.cooldowns import LONG_REST, LONGEST_RESET, asked_wait, reset_wait
from loadwise.integrations._llm.errors import ErrorCause, Told, told_by
from loadwise.integrations._llm.stream_ends import StreamWatch
from loadwise.outcome import Outcome

__all__ = ["classify_llm"]

_OK = 200
_ERRORS = 400
_UNAUTHORIZED = 401
_PAYMENT = 402
_FORBIDDEN = 403
_TOO_MANY = 429
_SERVER_ERRORS = 500
# The server has not come to the request: it came too slowly, or another one was in its way.
_UNDONE = frozenset({408, 409})
# Their bodies tell whose fault they are.
_TOLD = frozenset({400, _UNAUTHORIZED, _PAYMENT, _FORBIDDEN, _TOO_MANY})
_WHY = {ErrorCause.SPENT: "the account has nothing left", ErrorCause.KEY: "the key is refused"}
_NOTHING = Told()
_WHOLE = Verdict(Outcome.SUCCESS, whole=True)
_VAGUE = (None, "invalid_request_error")
"""Words for all that may be wrong with a request, and so for nothing in particular."""


@of_repeatable
def classify_llm(result: Any) -> Any:
    """Judge an answer of a language model's API, for ``classify=`` of the HTTP transports.

    It goes by the rules of OpenAI's and Anthropic's SDKs, and of those made like them. As they do,
    it holds that any prompt may be sent again: the worst of it is paying twice.

    - 408, 409, 429, 5xx (529, too), lost connections, and what ``x-should-retry: true`` comes with,
      are retried with another key; not so with ``x-should-retry: false``.
    - 5xx are failures. 408 and 409 say nothing about the key.
    - 429 is a rate limit: the key is on cooldown for as long as ``retry-after-ms``, ``Retry-After``
      or the provider's headers say, by when limits that are used up are restored (these an
      hour at most, unless the transport has a ``max_cooldown``).
    - 401, 402 and 403, and codes such as ``insufficient_quota``, take the key out for an hour, and
      another is asked. Why is told by ``Balancer.status()``. After 401 and 403 it is out once
      another key has answered the same prompt, because the prompt may be refused everywhere.
    - A 429 that says that the prompt is larger than the limit says nothing about the key.
    - 400, 404, 413, 422 and all else are the caller's own doing, and so is a 403 whose code blames
      the model or the content.
    - An error event in a stream, or a stream that ends without its end marker, is a failure,
      although it began with 200. If it is the first that comes, another key is asked.
    - An answer in JSON that breaks off is retried, too.
    - Whose fault it is that no response came is judged as ever.

    Args:
        result: A response of httpx2 or httpx, of a synchronous client or not, or an exception. Of a
            response of aiohttp status and headers count.

    Returns:
        A `Verdict`, or a coroutine that returns it where a body has to be awaited; ``None`` for the
        default rule.

    Of an error's body 64 KiB at most are read, of 400, 401, 402, 403 and 429 alone; whoever comes
    after finds all of it. Nothing of it is repeated in reasons but codes that are known.

    Thread-safety: it has no state.

    Cost: O(length) of a stream; of an error's body O(1), because it is bounded.

    Example:
        >>> import httpx2
        >>> classify_llm(httpx2.Response(529)).outcome
        <Outcome.FAILURE: 'failure'>
        >>> limited = httpx2.Response(429, headers={"retry-after-ms": "250"})
        >>> classify_llm(limited).retry_after
        0.25
        >>> spent = httpx2.Response(429, json={"error": {"code": "insufficient_quota"}})
        >>> classify_llm(spent).reason
        '429 from the server: the account has nothing left (insufficient_quota)'
    """
    status: object = getattr(result, "status_code", None) or getattr(result, "status", None)
    if not isinstance(status, int) or isinstance(result, BaseException):
        return None
    if status < _ERRORS:
        return _good(result.headers) if status == _OK else None
    if status not in _TOLD or not is_readable(result):
        return _judge(status, result.headers, _NOTHING)
    if is_async(result):
        return _read_and_judge(status, result)
    return _judge(status, result.headers, told_by(peek(result)))


async def _read_and_judge(status: int, response: Any) -> Verdict:
    return _judge(status, response.headers, told_by(await peek_async(response)))


def _good(headers: Mapping[str, str]) -> Verdict | None:
    """Return what is said at the headers of an answer: its body may still break off."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "text/event-stream":
        return Verdict(Outcome.SUCCESS, watch=StreamWatch())
    return _WHOLE if kind == "application/json" else None


def _judge(status: int, headers: Mapping[str, str], told: Told) -> Verdict:
    said = headers.get("x-should-retry")
    retry = said != "false"
    fault, reason = _fault_of(status, told), f"{status} from the server"
    word = f" ({told.word})" if told.word else ""
    if fault is not None:
        # Whatever is said of trying again is said of this key.
        reason += f": {_WHY[fault]}{word}"
        return Verdict(
            Outcome.RATE_LIMITED,
            retry=True,
            retry_after=LONG_REST,
            reason=reason,
            # A request may be refused for what is in it, or beside it, with any key.
            confirm=fault == ErrorCause.KEY,
        )
    if status == _TOO_MANY and told.word not in _VAGUE and told.fault == ErrorCause.REQUEST:
        return Verdict(Outcome.CANCELLED, retry=retry, reason=reason + word)
    if status == _TOO_MANY:
        return _limited(headers, reason + word, retry=retry)
    if status >= _SERVER_ERRORS:
        wait = asked_wait(headers)
        return Verdict(
            Outcome.FAILURE, retry=retry, retry_after=wait, reason=reason, ceiling=LONGEST_COOLDOWN
        )
    if status in _UNDONE or said == "true":
        return Verdict(Outcome.CANCELLED, retry=retry, reason=reason)
    return Verdict(Outcome.SUCCESS)


def _limited(headers: Mapping[str, str], reason: str, *, retry: bool) -> Verdict:
    wait, ceiling = asked_wait(headers), LONGEST_COOLDOWN
    if wait is None:
        wait, ceiling = reset_wait(headers), LONGEST_RESET
    return Verdict(
        Outcome.RATE_LIMITED, retry=retry, retry_after=wait, reason=reason, ceiling=ceiling
    )


def _fault_of(status: int, told: Told) -> str | None:
    """Return whose fault an error is, where its key needs a long cooldown."""
    if told.fault in (ErrorCause.SPENT, ErrorCause.KEY):
        return told.fault
    if status == _PAYMENT:
        return ErrorCause.SPENT
    if status == _UNAUTHORIZED:
        return ErrorCause.KEY
    if status == _FORBIDDEN:
        # Another caller may well do with this key what this one may not.
        blamed = told.fault == ErrorCause.REQUEST and told.word not in _VAGUE
        return None if blamed else ErrorCause.KEY
    return None
