"""What a response, or the lack of one, says about the node that was asked."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime

from loadwise._numbers import finite, shown
from loadwise.outcome import Outcome, check_outcome

__all__ = ["Verdict", "judge_status", "parse_retry_after"]

_BAD_GATEWAYS = frozenset({502, 503, 504})
_TOO_MANY_REQUESTS = 429
_UNAVAILABLE = 503
_LONGEST_PAUSE = 86_400.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an attempt says about its node, and whether another node might do better.

    Attributes:
        outcome: What to report of the node.
        retry: Whether another node is worth a try, if the request may be sent again.
        never_sent: Whether the request certainly never reached a server, so that even a request
            that must not be repeated may be sent again.
        retry_after: Seconds the node asks to be left alone; ``None`` if it does not say.
        reason: In words, for those who ask about the node; not compared.

    Raises:
        TypeError: ``outcome`` is no `Outcome`, or another attribute of the wrong type.
        ValueError: ``retry_after`` is negative, NaN or infinite.
    """

    outcome: Outcome
    retry: bool = False
    never_sent: bool = False
    retry_after: float | None = None
    reason: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        check_outcome(self.outcome)
        if not isinstance(self.reason, str | None):
            raise TypeError(f"reason is {shown(self.reason)}; it must be a str, or None")
        for name in ("retry", "never_sent"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise TypeError(f"{name} is {shown(value)}; it must be True or False")
        if self.retry_after is not None:
            pause = finite("retry_after", self.retry_after)
            if not pause >= 0:
                raise ValueError(
                    f"retry_after is {self.retry_after!r}; it must be a finite number of seconds, "
                    f"at least 0"
                )
            object.__setattr__(self, "retry_after", pause)


_FINE = Verdict(Outcome.SUCCESS)


def judge_status(status: int, headers: Mapping[str, str]) -> Verdict:
    """Judge a response by its status code and ``Retry-After`` header.

    502, 503 and 504 are failures; 429, and 503 with a Retry-After, are rate limits; everything
    else is an answer from a node that works.
    """
    if status == _TOO_MANY_REQUESTS or status in _BAD_GATEWAYS:
        pause = parse_retry_after(headers.get("retry-after"))
        reason = f"{status} from the server"
        if status == _TOO_MANY_REQUESTS or (status == _UNAVAILABLE and pause is not None):
            return Verdict(Outcome.RATE_LIMITED, retry=True, retry_after=pause, reason=reason)
        return Verdict(Outcome.FAILURE, retry=True, reason=reason)
    return _FINE


def parse_retry_after(value: str | None) -> float | None:
    """Return the seconds of a ``Retry-After`` header, at most a day; ``None`` if it has none.

    Source: RFC 9110, section 10.2.3: a number of seconds or an HTTP date (section 5.6.7).
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
            if moment.tzinfo is None:  # asctime's format, which names no zone, means UTC
                moment = moment.replace(tzinfo=UTC)
            seconds = moment.timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    if math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), _LONGEST_PAUSE)
