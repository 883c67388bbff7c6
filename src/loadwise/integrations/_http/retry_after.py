"""Cooldowns that a response asks for by ``Retry-After``."""

from __future__ import annotations

import re
import time
from datetime import UTC
from email.utils import parsedate_to_datetime

__all__ = ["EVER", "LONGEST_COOLDOWN", "parse_retry_after"]

EVER = 1e9
"""Seconds of a cooldown that is not to be cut, but must be finite."""

LONGEST_COOLDOWN = 120.0
"""Seconds of the longest cooldown that a response is granted, where nothing else is said."""

_DIGITS = re.compile(r"[0-9]+")


def parse_retry_after(value: str | None, longest: float = LONGEST_COOLDOWN) -> float | None:
    """Return the seconds of a ``Retry-After`` header; ``None`` if it says nothing to be believed.

    That is a number of seconds, in digits alone, or a date, in any format of RFC 5322 or of HTTP.
    Zero, what is past, and all else count as unsaid: a server that is ready has no need to say so.

    Source: RFC 9110, section 10.2.3, and 5.6.7 for dates.

    Args:
        value: The header, or ``None``.
        longest: Seconds to cut it to.

    Example:
        >>> [parse_retry_after(value) for value in ("7", "86400", "0", "-1", "1.5", "soon")]
        [7.0, 120.0, None, None, None, None]
    """
    if value is None:
        return None
    value = value.strip(" \t")
    if _DIGITS.fullmatch(value):
        seconds = float(value)
    else:
        try:
            moment = parsedate_to_datetime(value)
            if moment.tzinfo is None:  # asctime's format, which names no zone, means UTC
                moment = moment.replace(tzinfo=UTC)
            seconds = moment.timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(seconds, longest) if seconds > 0 else None
