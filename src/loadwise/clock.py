"""Time, as the library takes it."""

from __future__ import annotations

from collections.abc import Callable

from loadwise._callables import refuse_async
from loadwise._numbers import shown

__all__ = ["Clock", "check_clock"]

Clock = Callable[[], float]
"""Returns seconds that never go back, from any origin, as `time.monotonic` does."""


def check_clock(clock: object) -> None:
    """Raise ``TypeError`` unless ``clock`` can be asked for the time."""
    if not callable(clock):
        raise TypeError(
            f"clock is {shown(clock)}; it must be a function that returns seconds, such as "
            f"time.monotonic (without parentheses)"
        )
    refuse_async("clock", clock, "the time is needed at once: give a plain function")
