"""Index of the prompt prefixes that nodes have probably cached."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable, Sequence
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

    Memory: about 160 bytes for each block that a node has, and for each block an eighth of a byte
    for every node known. So with the defaults it is at most some 1.5 MB for each node.

    Thread-safety: full, by a lock that is held for some microseconds; hashing is done outside of
    it. In a forked child it starts from nothing.

    Cost: O(blocks of the prompt) to look up and to insert, amortised, whatever is kept, and
    O(nodes found). O(blocks of a node) to remove it.

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
        self._numbers: dict[Hashable, int] = {}
        self._ids: list[Hashable] = []
        self._unused: list[int] = []
        # By node, its blocks, the least recent first. Each comes before the one that it stands on.
        # With each is kept by which insertion it was last sent.
        self._blocks: dict[Hashable, OrderedDict[int, int]] = {}
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

    def match_hashes(self, hashes: Iterable[int]) -> dict[Hashable, int]:
        """Return what `match` does for the prompt with these hashes."""
        found: dict[Hashable, int] = {}
        with self._lock:
            self._see_off()
            holders, nobody = self._holders.get, 0
            having, depth = nobody, 0
            for hashed in hashes:
                still = holders(hashed, nobody)
                if still != having:
                    if depth:
                        still &= having
                        found = self._named(having & ~still, depth, found)
                    having = still
                    if not still:
                        return found
                depth += 1
            return self._named(having, depth, found)

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
            bit, blocks = 1 << self._number(id), self._blocks[id]
            holders = self._holders
            count = known = len(hashes)
            while known and not holders.get(hashes[known - 1], 0) & bit:
                known -= 1
            shared = known
            while shared < count and hashes[shared] in holders:
                shared += 1
            self._turn += 1
            before = [*map(blocks.__getitem__, hashes[:known])]
            # From the end, so that each is less recent than the one it stands on. Ctrl-C may strike
            # in between: a block without a holder is evicted as any other.
            blocks.update(dict.fromkeys(hashes[::-1], self._turn))
            holders.update(dict.fromkeys(hashes[shared:], bit))
            for hashed in hashes[known:shared]:
                holders[hashed] |= bit
            deque(map(blocks.move_to_end, hashes[:known][::-1]), 0)
            for _ in range(len(blocks) - self.capacity_blocks):
                self._drop(blocks.popitem(last=False)[0], bit)
            return before

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
            blocks = self._blocks.get(id)
            if blocks is None or found >= len(before):
                return
            bit, oldest = 1 << self._numbers[id], before[found]
            while blocks and blocks[next(iter(blocks))] <= oldest:
                self._drop(blocks.popitem(last=False)[0], bit)

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
            return len(self._blocks.get(id, ()))

    def __len__(self) -> int:
        """Return how many blocks are known, those that several nodes have counted once."""
        with self._lock:
            self._see_off()
            return len(self._holders)

    def __bool__(self) -> bool:
        """Return ``True``: an index is one, whatever it holds."""
        return True

    def __repr__(self) -> str:
        nodes, blocks = len(self._blocks), len(self._holders)
        return f"<PrefixIndex: {blocks} blocks of {self.block_chars} characters, {nodes} nodes>"

    def _number(self, identity: Hashable) -> int:
        number = self._numbers.get(identity)
        if number is None:
            number = self._unused.pop() if self._unused else len(self._ids)
            self._ids[number : number + 1] = [identity]
            self._blocks[identity] = OrderedDict()
            self._numbers[identity] = number
        return number

    def _see_off(self) -> None:
        while self._leavers:
            self._remove(self._leavers.popleft())

    def _remove(self, identity: Hashable) -> None:
        number = self._numbers.get(identity)
        if number is None:
            return
        bit = 1 << number
        for hashed in self._blocks[identity]:
            self._drop(hashed, bit)
        del self._numbers[identity], self._blocks[identity]
        self._ids[number] = None
        self._unused.append(number)

    def _drop(self, hashed: int, bit: int) -> None:
        """Take a node from the holders of a block."""
        holders = self._holders
        having = holders.get(hashed, 0)
        if having & ~bit:
            holders[hashed] = having & ~bit
        elif having:
            del holders[hashed]
