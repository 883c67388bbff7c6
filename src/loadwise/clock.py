"""Time, as the library takes it."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Clock"]

Clock = Callable[[], float]
"""Returns seconds that never go back, from any origin, as `time.monotonic` does."""
