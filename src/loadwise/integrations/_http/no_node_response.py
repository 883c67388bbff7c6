"""Answers to requests for which there is no node."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from loadwise.errors import NoNodeAvailable

__all__ = ["NO_NODE", "Refusal", "refusal_of"]

NO_NODE: Final = ("raise", "response")
"""Choices of what is done where there is no node."""

_IN_TIME: Final = ("quota", "rate_limited", "full")
_TOO_MANY_REQUESTS: Final = 429
_UNAVAILABLE: Final = 503


class Refusal(NamedTuple):
    """A response that no node has sent."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes


def refusal_of(error: NoNodeAvailable) -> Refusal:
    """Return the response that says what an error says.

    It is 429 where most nodes are out of quota, on cooldown or full, taken together, and 503 else.
    ``Retry-After`` is in whole seconds, at least 1; a 429 always has one.

    Source: RFC 6585, section 4; RFC 9110, sections 10.2.3 and 15.6.4.

    Example:
        >>> refusal_of(NoNodeAvailable("search", 3, {"quota": 1, "full": 1, "unhealthy": 1}))[:2]
        (429, 'Too Many Requests')
    """
    in_time = sum(error.reasons.get(reason, 0) for reason in _IN_TIME)
    others = (count for reason, count in error.reasons.items() if reason not in _IN_TIME)
    is_a_matter_of_time = 0 < in_time >= max(others, default=0)
    wait = error.retry_after
    if wait is None and is_a_matter_of_time:
        wait = 1.0
    body = str(error).encode()
    headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
    ]
    if wait is not None:
        headers.append(("Retry-After", str(max(1, math.ceil(wait)))))
    if is_a_matter_of_time:
        return Refusal(_TOO_MANY_REQUESTS, "Too Many Requests", headers, body)
    return Refusal(_UNAVAILABLE, "Service Unavailable", headers, body)
