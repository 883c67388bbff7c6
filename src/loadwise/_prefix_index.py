"""Index of the prompt prefixes that nodes have probably cached."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from itertools import compress
from threading import RLock
from typing import Final

from xxhash import xxh3_64_intdigest

from loadwise._fork import ForkAware, reset_in_child
from loadwise._numbers import whole
from loadwise._prompt import check_prompt

__all__ = ["PrefixIndex"]

_FEW: Final = 8
"""So many nodes are read off a mask bit by bit."""
_AS_FLAGS: Final = bytes.maketrans(b"01", b"\x00\x01")


class _Kept:
    """Blocks of one node.

    Attributes:
        bit: Its bit in masks.
        blocks: Its blocks, with the insertion that each was last sent by.
        sent: Insertions and their blocks, the oldest first. Blocks that were sent again stand here
            more than once; the last time counts.
        count: How many blocks stand there.
    """

    __slots__ = ("bit", "blocks", "count", "sent")

    def __init__(self, bit: int) -> None:
        self.bit = bit
        self.blocks: dict[int, int] = {}
        self.sent: deque[tuple[int, list[int]]] = deque()
        self.count = 0

    def add(self, turn: int, hashes: Sequence[int], capacity: int) -> None:
        """Have these blocks by an insertion. Amortised O(blocks)."""
        # Ctrl-C may strike after each call: what stands in `sent` alone is passed over later.
        self.sent.append((turn, [*hashes]))
        self.count += len(hashes)
        self.blocks.update(dict.fromkeys(hashes, turn))
        if self.count > 2 * capacity + len(hashes):
            get = self.blocks.get
            alive = [(turn, [h for h in sent if get(h) == turn]) for turn, sent in self.sent]
            self.sent = deque([each for each in alive if each[1]])
            self.count = len(self.blocks)


class PrefixIndex(ForkAware):
    """Index of which node has probably cached which prefixes of prompts.

    Servers of language models keep the KV cache of prompts they have seen, and skip the part of a
    new prompt that they find there (prefix caching). This index remembers what was sent where, so
    that a prompt can be sent where most of it is cached. It is a guess: nothing is asked of a node.

    A prompt is cut into blocks. Each is known by a hash of it and of all before it, so equal hashes
    mean equal prefixes. The end of a prompt that fills no block is not indexed. No text is kept.

    Args:
        capacity_blocks: Blocks to remember of each node, >= 1. Beyond it the least recently sent
            are forgotten, and of a prefix its end before its beginning. Take what fits a node's
            cache: its tokens * 4 / ``block_chars``.
        block_chars: Characters of a block, >= 1.

    Raises:
        TypeError: An argument is no whole number.
        ValueError: It is below 1.

    Memory: about 200 bytes for each block that a node has, 240 where conversations grow, and for
    each block an eighth of a byte for every node known. So with the defaults it is at most some
    2 MB for each node.

    Thread-safety: full, by a lock that is held for some microseconds; hashing is done outside of
    it. In a forked child it starts from nothing.

    Cost: O(blocks of the prompt) to hash and to insert, amortised, whatever is kept. To look up it
    is O(log blocks) for each length that nodes have, and O(nodes found). To remove a node it is
    O(its blocks).

    Source: hash chains over blocks are the key of vLLM's automatic prefix caching; xxh3 is
    Y. Collet's XXH3, here with the hash of the block before as its seed.

    Example:
        >>> index = PrefixIndex(block_chars=4)
        >>> index.insert("You are a poet. Rhyme!", "gpu-1")
        >>> index.insert("You are a cook.", "gpu-2")
        >>> dict(index.match("You are a poet. Sing!"))
        {'gpu-2': 2, 'gpu-1': 4}
    """

    def __init__(self, capacity_blocks: int = 8192, block_chars: int = 256) -> None:
        self.capacity_blocks = whole("capacity_blocks", capacity_blocks, 1)
        self.block_chars = whole("block_chars", block_chars, 1)
        self._after_fork()
        reset_in_child(self)

    def _after_fork(self) -> None:
        # Re-entrant: the collector may strike while it is held, and end a lease.
        self._lock = RLock()
        # By hash of a block, the nodes that have it, as a set of the bits of their numbers.
        self._holders: dict[int, int] = {}
        self._ids: list[Hashable] = []
        self._unused: list[int] = []
        self._kept: dict[Hashable, _Kept] = {}
        self._turn = 0
        self._leavers: deque[Hashable] = deque()

    def hashes(self, prompt: str) -> list[int]:
        """Return the hashes of a prompt's blocks, for `match_hashes` and `insert_hashes`.

        Raises:
            TypeError: It is no str.
        """
        check_prompt(prompt)
        size, end = self.block_chars, len(prompt) - self.block_chars + 1
        found: list[int] = []
        add, last = found.append, 0
        if prompt.isascii():
            data = prompt.encode()
            for start in range(0, end, size):
                last = xxh3_64_intdigest(data[start : start + size], last)
                add(last)
            return found
        for start in range(0, end, size):
            block = prompt[start : start + size].encode("utf-8", "surrogatepass")
            last = xxh3_64_intdigest(block, last)
            add(last)
        return found

    def match(self, prompt: str) -> dict[Hashable, int]:
        """Return how many blocks of a prompt, from its beginning, which nodes have; none with 0.

        Raises:
            TypeError: It is no str.
        """
        return self.match_hashes(self.hashes(prompt))

    def match_hashes(self, hashes: Sequence[int]) -> dict[Hashable, int]:
        """Return what `match` does for the prompt with these hashes."""
        found: dict[Hashable, int] = {}
        with self._lock:
            self._see_off()
            holders, depth, count = self._holders.get, 0, len(hashes)
            having = holders(hashes[0], 0) if count else 0
            while having:
                # A node that has a block has all that it stands on, so the place up to which all
                # of these have them is found by bisection.
                low, high = depth + 1, count
                middle = count - 1
                while low < high:
                    if holders(hashes[middle], 0) & having == having:
                        low = middle + 1
                    else:
                        high = middle
                    middle = (low + high) // 2
                still = holders(hashes[low], 0) & having if low < count else 0
                found = self._named(having & ~still, low, found)
                having, depth = still, low
            return found

    def _named(self, mask: int, depth: int, found: dict[Hashable, int]) -> dict[Hashable, int]:
        """Return what was found, and that the nodes of a mask have so many blocks."""
        if mask.bit_count() > _FEW:
            flags = f"{mask:b}"[::-1].encode().translate(_AS_FLAGS)
            more = dict.fromkeys(compress(self._ids, flags), depth)
            return found | more if found else more
        while mask:
            lowest = mask & -mask
            found[self._ids[lowest.bit_length() - 1]] = depth
            mask ^= lowest
        return found

    def insert(self, prompt: str, id: Hashable) -> None:  # noqa: A002 - the name of the thing everywhere else
        """Record that a prompt was sent to a node, which has its blocks from now on.

        Raises:
            TypeError: The prompt is no str.
        """
        self.insert_hashes(self.hashes(prompt), id)

    def insert_hashes(self, hashes: Sequence[int], id: Hashable) -> list[int]:  # noqa: A002
        """Record what `insert` does for the prompt with these hashes.

        Returns:
            Of each block that the node had, by which insertion it was last sent; for `correct`.
        """
        with self._lock:
            self._see_off()
            if len(hashes) > self.capacity_blocks:
                hashes = hashes[: self.capacity_blocks]
            if not hashes:
                return []
            kept = self._kept_of(id)
            holders, bit = self._holders, kept.bit
            # A node that has a block has all that it stands on.
            count, known, end = len(hashes), 0, len(hashes)
            while known < end:
                middle = (known + end) // 2
                if holders.get(hashes[middle], 0) & bit:
                    known = middle + 1
                else:
                    end = middle
            shared = known
            while shared < count and hashes[shared] in holders:
                shared += 1
            self._turn += 1
            before = [*map(kept.blocks.__getitem__, hashes[:known])]
            # Ctrl-C may strike in between: a block without a holder is evicted as any other.
            kept.add(self._turn, hashes, self.capacity_blocks)
            holders.update(dict.fromkeys(hashes[shared:], bit))
            for hashed in hashes[known:shared]:
                holders[hashed] |= bit
            while len(kept.blocks) > self.capacity_blocks:
                self._evict(kept, len(kept.blocks) - self.capacity_blocks)
            return before

    def _evict(self, kept: _Kept, most: int) -> None:
        """Forget at most so many blocks of the oldest insertion, ends before beginnings."""
        turn, hashes = kept.sent[0]
        blocks, holders, bit = kept.blocks, self._holders, kept.bit
        while hashes and most > 0:
            hashed = hashes[-1]
            if blocks.get(hashed) == turn:
                _drop(holders, hashed, bit)
                del blocks[hashed]
                most -= 1
            del hashes[-1]
            kept.count -= 1
        if not hashes:
            kept.sent.popleft()

    def correct(self, id: Hashable, before: Sequence[int], found: int) -> None:  # noqa: A002
        """Record that a node had fewer blocks of a prompt than was thought.

        What was sent to it before the first block that was missing is gone, too, because caches let
        go of the least recently used. Amortised O(1): what is forgotten was inserted.

        Args:
            id: The node.
            before: What `insert_hashes` returned.
            found: How many of those blocks the node had.
        """
        with self._lock:
            self._see_off()
            kept = self._kept.get(id)
            if kept is None or found >= len(before):
                return
            oldest = before[found]
            while kept.sent and kept.sent[0][0] <= oldest:
                self._evict(kept, self.capacity_blocks)

    def remove(self, id: Hashable) -> None:  # noqa: A002
        """Forget a node; one that is not known is no error."""
        with self._lock:
            self._see_off()
            self._remove(id)

    def leave(self, id: Hashable) -> None:  # noqa: A002
        """Have a node forgotten before anything else is asked; for finalizers. Takes no lock."""
        self._leavers.append(id)

    def blocks(self, id: Hashable) -> int:  # noqa: A002
        """Return how many blocks a node has. O(1)."""
        with self._lock:
            self._see_off()
            kept = self._kept.get(id)
            return 0 if kept is None else len(kept.blocks)

    def __len__(self) -> int:
        """Return how many blocks are known, those that several nodes have counted once."""
        with self._lock:
            self._see_off()
            return len(self._holders)

    def __bool__(self) -> bool:
        """Return ``True``: an index is one, whatever it holds."""
        return True

    def __repr__(self) -> str:
        nodes, blocks = len(self._kept), len(self._holders)
        return f"<PrefixIndex: {blocks} blocks of {self.block_chars} characters, {nodes} nodes>"

    def _kept_of(self, identity: Hashable) -> _Kept:
        kept = self._kept.get(identity)
        if kept is None:
            number = self._unused.pop() if self._unused else len(self._ids)
            self._ids[number : number + 1] = [identity]
            kept = self._kept[identity] = _Kept(1 << number)
        return kept

    def _see_off(self) -> None:
        while self._leavers:
            self._remove(self._leavers.popleft())

    def _remove(self, identity: Hashable) -> None:
        kept = self._kept.get(identity)
        if kept is None:
            return
        for hashed in kept.blocks:
            _drop(self._holders, hashed, kept.bit)
        del self._kept[identity]
        number = kept.bit.bit_length() - 1
        self._ids[number] = None
        self._unused.append(number)


def _drop(holders: dict[int, int], hashed: int, bit: int) -> None:
    """Take a node from the holders of a block."""
    having = holders.get(hashed, 0)
    if having & ~bit:
        holders[hashed] = having & ~bit
    elif having:
        del holders[hashed]
