"""KV cache of a simulated server: the blocks of prompts that it has computed."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence

__all__ = ["KvCache"]


class KvCache:
    """Blocks of prompts, the least recently used given up first, and ends before beginnings.

    Args:
        capacity: Blocks that it holds; 0 for none.

    Cost: O(blocks of the prompt).

    Source: the order is that of vLLM's automatic prefix caching: blocks that others stand on are
    kept longer.

    Example:
        >>> cache = KvCache(3)
        >>> cache.keep((1, 2, 3))
        >>> cache.keep((1, 4))
        >>> cache.matched((1, 2, 3)), cache.matched((1, 4, 5))
        (2, 2)
    """

    __slots__ = ("_blocks", "_capacity")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        # The least recent first, each before the one that it stands on.
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def matched(self, blocks: Sequence[int]) -> int:
        """Return how many blocks of a prompt, from its beginning, are here."""
        kept, found = self._blocks, 0
        for block in blocks:
            if block not in kept:
                break
            found += 1
        return found

    def keep(self, blocks: Sequence[int]) -> None:
        """Keep the blocks of a prompt, from its beginning, as the most recent ones."""
        kept, backwards = self._blocks, blocks[::-1]
        kept.update(dict.fromkeys(backwards))
        deque(map(kept.move_to_end, backwards), 0)
        for _ in range(len(kept) - self._capacity):
            kept.popitem(last=False)

    def clear(self) -> None:
        """Lose everything."""
        self._blocks.clear()

    def __len__(self) -> int:
        """Return how many blocks are here."""
        return len(self._blocks)
