"""Asynchronous iteration that leaves nothing open behind it.

An asynchronous generator that is left early runs its end when it is collected, wherever that is.
asyncio copes; trio warns, for nobody awaits it there.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import Any

__all__ = ["iterating"]


def iterating(pieces: AsyncIterable[bytes]) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
    """Return an iterator to be entered, which is closed at the end of the block if it can be."""
    iterator: Any = aiter(pieces)
    if hasattr(iterator, "aclose"):
        return aclosing(iterator)
    return nullcontext(iterator)
