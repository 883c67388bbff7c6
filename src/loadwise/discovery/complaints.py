"""Complaints of a watcher: each is logged when it begins, and not again while it lasts."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from loadwise._text import visible

__all__ = ["Complaints"]

_log = logging.getLogger("loadwise")

_LONGEST = 500


class Complaints:
    """The log of one watcher.

    A source that is asked every few seconds would else fill the log with one and the same line.

    Args:
        who: What to call the source in messages.

    Not thread-safe: it belongs to the thread that keeps the fleet.
    """

    def __init__(self, who: str) -> None:
        self._who = who
        self._lasting: set[str] = set()
        self._failures = 0

    def failed(self, reason: str, kept: int) -> None:
        """Log that the source could not be asked, unless it could not the last time either."""
        self._failures += 1
        if self._failures == 1:
            self._warn(
                f"{reason}; the {kept} nodes that there are stay as they are, and it is asked "
                f"again within 10 s"
            )

    def answered(self) -> None:
        """Log that the source can be asked again."""
        if self._failures:
            _log.info("%s: it answers again, after %d errors", self._who, self._failures)
        self._failures = 0

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
