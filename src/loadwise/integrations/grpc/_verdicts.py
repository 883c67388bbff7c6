"""Verdicts: what the status of a call says about the node that was asked.

| status | outcome |
|---|---|
| UNAVAILABLE, INTERNAL, DEADLINE_EXCEEDED, DATA_LOSS | FAILURE; with a pushback also a cooldown |
| RESOURCE_EXHAUSTED with a pushback | RATE_LIMITED |
| all others | SUCCESS: the node has answered |

A pushback is a ``grpc-retry-pushback-ms`` or a ``google.rpc.RetryInfo`` in the trailers. Without
one RESOURCE_EXHAUSTED may as well mean that a message was too large.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from grpc import StatusCode

from loadwise.integrations._http.verdict import Verdict
from loadwise.integrations.grpc._wire import fields
from loadwise.outcome import Outcome

__all__ = ["Pushback", "Trailers", "judge", "pushback_of"]

Trailers = Iterable[tuple[str, str | bytes]]
"""Metadata that comes with the status of a call."""

FAILURES: Final = frozenset(
    {
        StatusCode.UNAVAILABLE,
        StatusCode.INTERNAL,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.DATA_LOSS,
    }
)
_PUSHBACK: Final = "grpc-retry-pushback-ms"
_DETAILS: Final = "grpc-status-details-bin"
_RETRY_INFO: Final = "google.rpc.RetryInfo"
_WHOLE: Final = re.compile(r"[0-9]{1,18}")
_SIGN_BIT: Final = 1 << 63
_FINE: Final = Verdict(Outcome.SUCCESS)


class Pushback(NamedTuple):
    """Request of a server to be left alone.

    Attributes:
        seconds: For how long; ``None`` if it did not say.
        retry: Whether another node may be asked meanwhile.
    """

    seconds: float | None
    retry: bool = True


def judge(code: StatusCode, trailers: Trailers | None, longest: float) -> Verdict:
    """Judge a call by its status and its trailers.

    Args:
        code: The status code.
        trailers: The trailing metadata, if there was any.
        longest: Seconds of the longest cooldown that is granted.
    """
    failed = code in FAILURES
    if not failed and code is not StatusCode.RESOURCE_EXHAUSTED:
        return _FINE
    pushback = pushback_of(trailers or ())
    if pushback is None:
        return Verdict(Outcome.FAILURE, retry=True, reason=code.name) if failed else _FINE
    seconds = None if pushback.seconds is None else min(pushback.seconds, longest)
    return Verdict(
        Outcome.FAILURE if failed else Outcome.RATE_LIMITED,
        retry=pushback.retry,
        retry_after=seconds,
        reason=f"{code.name} from the server",
    )


def pushback_of(trailers: Trailers) -> Pushback | None:
    """Return what a server says about when it may be asked again, if it does.

    A ``grpc-retry-pushback-ms`` that is negative or no number forbids to try again; so do several.

    Source: gRFC A6, "Pushback"; ``google/rpc/error_details.proto`` for RetryInfo.

    Example:
        >>> pushback_of([("grpc-retry-pushback-ms", "1500")])
        Pushback(seconds=1.5, retry=True)
        >>> pushback_of([("grpc-retry-pushback-ms", "-1")])
        Pushback(seconds=None, retry=False)
    """
    said: list[str | bytes] = []
    details: bytes | None = None
    for key, value in trailers:
        if key == _PUSHBACK:
            said.append(value)
        elif key == _DETAILS and isinstance(value, bytes):
            details = value
    if said:
        text = said[0]
        if len(said) > 1 or not isinstance(text, str) or not _WHOLE.fullmatch(text):
            return Pushback(None, retry=False)
        return Pushback(int(text) / 1000)
    seconds = None if details is None else _retry_delay(details)
    return None if seconds is None else Pushback(seconds)


def _retry_delay(status: bytes) -> float | None:
    """Return the seconds of the RetryInfo in a ``google.rpc.Status``, if it has a sound one."""
    try:
        for number, detail in fields(status):
            if number == 3 and isinstance(detail, bytes):  # noqa: PLR2004 - Status.details
                packed = dict(fields(detail))
                url, info = packed.get(1), packed.get(2, b"")
                if (
                    isinstance(url, bytes)
                    and isinstance(info, bytes)
                    and url.decode().rpartition("/")[2] == _RETRY_INFO
                ):
                    return _seconds(dict(fields(info)).get(1, b""))
    except ValueError:
        pass  # what a server packs there need not be a Status
    return None


def _seconds(duration: int | bytes) -> float | None:
    """Return the seconds of a ``google.protobuf.Duration``; ``None`` for those of no use."""
    if isinstance(duration, int):
        return None
    parts = dict(fields(duration))
    whole, nanos = parts.get(1, 0), parts.get(2, 0)
    if isinstance(whole, bytes) or isinstance(nanos, bytes):
        return None
    if whole >= _SIGN_BIT or nanos >= _SIGN_BIT:
        return None
    seconds = whole + nanos / 1e9
    return seconds if math.isfinite(seconds) else None
