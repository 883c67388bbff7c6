"""An event loop in virtual time.

Apart from the clock, because it needs asyncio, which programs that use threads have no use for.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable

__all__ = ["VirtualLoop"]

_STUCK_AFTER = 10.0
"""Real seconds after which a loop without timers is taken to wait for ever."""


class _Selector(selectors.DefaultSelector):
    """Waits for nothing but input and output: time it lets pass."""

    def __init__(self, advance: Callable[[float], None], stuck_after: float) -> None:
        super().__init__()
        self._advance = advance
        self._stuck_after = stuck_after

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            found = super().select(self._stuck_after)
            if not found:
                raise RuntimeError(
                    f"no task has anything to do, no timer is set, and for {self._stuck_after:g} "
                    f"real seconds nothing has come: they wait for something that does not come"
                )
            return found
        found = super().select(0)
        if not found and timeout > 0:
            self._advance(timeout)
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is that of a clock, and passes when all tasks wait.

    Args:
        clock: Tells the time.
        advance: Lets it pass by some seconds.
        stuck_after: Real seconds to wait for other threads, and for input and output, where no
            timer is set.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        advance: Callable[[float], None],
        stuck_after: float = _STUCK_AFTER,
    ) -> None:
        self.clock = clock
        super().__init__(_Selector(advance, stuck_after))

    def time(self) -> float:
        """Return the time of the clock."""
        return self.clock()
