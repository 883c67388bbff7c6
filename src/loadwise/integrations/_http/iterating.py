"""Asynchronous iteration that leaves nothing open behind it.

An asynchronous generator that is left early runs its end when it is collected, wherever that is.
asyncio copes; trio warns, because nobody awaits it there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from types import TracebackType
from typing import Any

__all__ = ["iterating"]


class iterating:  # noqa: N801 - it reads as a verb
    """Context manager that iterates over pieces, and closes the iterator at the end of the block.

    Where a whole chain of generators is collected at once, as a stream that its caller has dropped,
    asyncio closes each of them by a task of its own; one that is being closed by another then would
    be reported as an error. So there each is left to it.

    Args:
        pieces: What to iterate over.
    """

    def __init__(self, pieces: AsyncIterable[bytes]) -> None:
        self._iterator: Any = aiter(pieces)

    async def __aenter__(self) -> AsyncIterator[bytes]:
        iterator: AsyncIterator[bytes] = self._iterator
        return iterator

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is GeneratorExit and _is_of_asyncio():
            return
        if hasattr(self._iterator, "aclose"):
            await self._iterator.aclose()


def _is_of_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
