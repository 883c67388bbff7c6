"""Cooldowns that answers of a language model's API ask for.

It does no I/O.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from loadwise.integrations._http.retry_after import EVER, parse_retry_after

__all__ = ["LONGEST_RESET", "LONG_REST", "asked_wait", "reset_wait", "seconds_until"]

LONG_REST = 3_600.0
"""Seconds of the cooldown of a key that time alone does not mend."""

LONGEST_RESET = 3_600.0
"""Seconds of the longest wait for a limit that is granted, where nothing else is said."""

_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_DURATION = re.compile(
    r"(?:(?P<d>{n})d)?(?:(?P<h>{n})h)?(?:(?P<m>{n})m)?(?:(?P<s>{n})s)?(?:(?P<ms>{n})ms)?".replace(
        "{n}", _DECIMAL.pattern
    )
)
_SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_LONGEST = 64
"""Characters of the longest header that is looked at."""
_EPOCH = 1_000_000_000.0
_EPOCH_MS = 1_000_000_000_000.0
"""Numbers from here on are no seconds to wait, but a moment: its seconds, or milliseconds."""


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that ``retry-after-ms`` or ``Retry-After`` asks for.

    The first goes before the second. Decimals are understood, as the SDKs do; what is not above 0
    counts as unsaid, as do all other words.

    Example:
        >>> asked_wait({"retry-after-ms": "250", "retry-after": "1"})
        0.25
        >>> print(asked_wait({"retry-after": "inf"}))
        None
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip(" \t")
        if len(value) <= _LONGEST and _DECIMAL.fullmatch(value):
            seconds = float(value) * unit
            if seconds > 0:
                return min(seconds, EVER)
    return parse_retry_after(headers.get("retry-after"), EVER)


def reset_wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until all limits that are used up are restored.

    Providers tell, for each limit, what remains and when it is restored: OpenAI and those like it
    by ``x-ratelimit-remaining-tokens`` and ``x-ratelimit-reset-tokens``, Anthropic by
    ``anthropic-ratelimit-tokens-remaining`` and ``anthropic-ratelimit-tokens-reset``, others
    without a prefix. Limits that are not used up count for nothing.

    Example:
        >>> reset_wait({
        ...     "x-ratelimit-remaining-requests": "17", "x-ratelimit-reset-requests": "59m",
        ...     "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s",
        ... })
        360.0
    """
    return max(_resets(headers), default=None)


def _resets(headers: Mapping[str, str]) -> Iterator[float]:
    for told, remaining in headers.items():
        name = told.lower()
        if "ratelimit" in name and "remaining" in name and _is_zero(remaining):
            seconds = seconds_until(headers.get(name.replace("remaining", "reset"), ""))
            if seconds is not None:
                yield seconds


def _is_zero(value: str) -> bool:
    value = value.strip(" \t")
    return len(value) <= _LONGEST and bool(_DECIMAL.fullmatch(value)) and float(value) == 0


def seconds_until(value: str) -> float | None:
    """Return the seconds that a reset header tells; ``None`` if it says nothing to be believed.

    That is a duration (``1h2m3.5s``, ``6m0s``, ``120ms``), a number of seconds, the time as seconds
    or milliseconds since 1970, or as RFC 3339 has it. What is not above 0 counts as unsaid.

    Example:
        >>> [seconds_until(value) for value in ("6m0s", "120ms", "1d2h", "2.5", "0s", "soon")]
        [360.0, 0.12, 93600.0, 2.5, None, None]
    """
    value = value.strip(" \t")
    if not 0 < len(value) <= _LONGEST:
        return None
    if _DECIMAL.fullmatch(value):
        seconds = float(value)
        if seconds >= _EPOCH:
            seconds = (seconds * 0.001 if seconds >= _EPOCH_MS else seconds) - time.time()
    else:
        found = _DURATION.fullmatch(value)
        if found is None:
            seconds = _until(value)
        else:
            told = found.groupdict(default="0")
            seconds = sum(float(told[unit]) * each for unit, each in _SECONDS.items())
    return min(seconds, EVER) if seconds > 0 else None


def _until(moment: str) -> float:
    """Return the seconds until a moment, as RFC 3339 has it; 0 if it is none."""
    try:
        parsed = datetime.fromisoformat(moment)
    except ValueError:
        return 0.0
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    return parsed.timestamp() - time.time()
