"""Complaints of a watcher: each is logged when it begins, and not again while it lasts."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from loadwise._text import visible

__all__ = ["Complaints"]

_log = logging.getLogger("loadwise")

_LONGEST = 800
_FRACTION = re.compile(r"\d+\.\d+")
_MOST_REASONS = 5
"""Reasons that are logged of one outage."""


class Complaints:
    """The log of one watcher.

    A source that is asked every few seconds would else fill the log with one and the same line.

    Args:
        who: What to call the source in messages.

    Not thread-safe: it belongs to the thread that keeps the fleet.
    """

    def __init__(self, who: str) -> None:
        self._who = visible(who)
        self._lasting: set[str] = set()
        self._failures = 0
        self._reasons: set[str] = set()

    def failed(self, reason: str, kept: str) -> None:
        """Log that the source could not be asked, unless that has been said since it last could.

        Args:
            reason: Why it could not.
            kept: What is kept, in words.
        """
        self._failures += 1
        # Who mends a file is to hear of the next mistake; but a reason may be new every time.
        plain = _FRACTION.sub("0", reason)  # such as of the seconds that were waited for an answer
        if plain not in self._reasons and len(self._reasons) < _MOST_REASONS:
            self._reasons.add(plain)
            self._warn(f"{reason}; {kept}, and it is asked again within 10 s")

    def answered(self) -> None:
        """Log that the source can be asked again."""
        if self._failures:
            count = f"{self._failures} error{'s' if self._failures > 1 else ''}"
            _log.info("%s: it answers again, after %s", self._who, count)
        self._failures = 0
        self._reasons.clear()

    def noted(self, complaints: Mapping[str, str]) -> None:
        """Log those complaints about an answer that the last one gave no cause for."""
        for kind in sorted(complaints.keys() - self._lasting):
            self._warn(complaints[kind])
        self._lasting = set(complaints)

    def happened(self, text: str) -> None:
        """Log what is no state but an event, whenever it happens."""
        self._warn(text)

    def _warn(self, text: str) -> None:
        _log.warning("%s: %s", self._who, visible(text)[:_LONGEST])
