"""Strategies of a user's own, in a module that other processes can import."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from multiprocessing import parent_process
from typing import Any

from loadwise import RoundRobin, SelectionContext

__all__ = ["Broken", "First", "Killed", "Stubborn", "first"]

_PLAIN = SelectionContext()


class First:
    """The first server that may be chosen."""

    def select(self, candidates: Sequence[Any], context: SelectionContext = _PLAIN) -> int | None:
        return next((i for i in range(len(candidates)) if i not in context.exclude), None)


def first() -> First:
    """Return a strategy, as a function does it."""
    return First()


class Broken(First):
    """Raises an error of its own."""

    def select(self, candidates: Sequence[Any], context: SelectionContext = _PLAIN) -> int | None:
        raise ZeroDivisionError("broken on purpose")


class _UnsendableError(Exception):
    """Pickles, and does not come back: its constructor takes what pickle does not keep."""

    def __init__(self, reason: str, *, place: str) -> None:
        super().__init__(f"{reason} in {place}")


class Stubborn(First):
    """Raises what no other process can be sent."""

    def select(self, candidates: Sequence[Any], context: SelectionContext = _PLAIN) -> int | None:
        raise _UnsendableError("an odd error", place="select")


class Killed(RoundRobin[Any]):
    """Ends its process, as one that runs out of memory does."""

    def __init__(self) -> None:
        if parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        super().__init__()
