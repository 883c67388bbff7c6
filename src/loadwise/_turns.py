"""Work on many entries, in turns with the threads that serve requests.

A thread that computes gives up the interpreter's lock every 5 milliseconds, and within one call of
C not at all. So whoever waits for it, a request among them, would wait that long.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

__all__ = ["in_turns"]

T = TypeVar("T")

_AT_ONCE: Final = 16


def in_turns(items: Iterable[T]) -> Iterator[T]:
    """Yield the items, and let other threads run after every few of them.

    Example:
        >>> list(in_turns("abc"))
        ['a', 'b', 'c']
    """
    for count, item in enumerate(items, 1):
        yield item
        if count % _AT_ONCE == 0:
            time.sleep(0)  # by this name, which gevent may have replaced
