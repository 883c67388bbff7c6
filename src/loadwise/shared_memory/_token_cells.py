"""Entries of nodes by their prompts: what this process counts, and what all of the host's do."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from xxhash import xxh3_64_intdigest

from loadwise.load.pending_tokens import Followers, Prefills, TokenCell
from loadwise.shared_memory._cells import HostCell
from loadwise.shared_memory._node_table import key_of

__all__ = ["HostTokenCell"]

_PROMPT: Final = 2.0**32
"""A prompt without a first byte counts as this, beside its tokens: so both are of one moment."""
_MOST: Final = 2.0**53
"""More than a sum of prompts can be: a number in it was forged."""


class _HostPrompts:
    """Prompts on their way to one node, of all processes of the host.

    Args:
        entry: The node's entry, which knows where its block is.

    Attributes:
        turn: Number of the last prompt sent there, of all that this process knows of.
        pace: Learns how quick the node is, from the first bytes of this process.

    Thread-safety: lock-free to read; `write` is called under the lock of what this process counts.

    Cost: O(processes) to read.
    """

    __slots__ = ("_entry", "_held", "_marks", "_prompts", "_row", "_seen", "pace", "turn")

    def __init__(self, entry: HostCell, own: Prefills) -> None:
        self._entry = entry
        self.pace = own.pace
        self.turn = 0
        self._look()

    def _look(self) -> None:
        """See where the block is now, and which rows there are."""
        entry = self._entry
        seen, memory = entry.seen, entry.memory
        layout, reals, reach = memory.layout, memory.reals, len(seen)
        block = layout.block_of(entry.number)
        prompts, held, marks = (
            (block + place) // 8 for place in (layout.prompts, layout.held, layout.marks)
        )
        self._prompts = reals[prompts : prompts + reach]
        self._held = reals[held : held + reach]
        self._marks = reals[marks : marks + reach]
        self._row = memory.row
        self._seen = seen

    @property
    def pending(self) -> float:
        """Uncached tokens of the prompts whose first byte has not come."""
        if self._seen is not self._entry.seen:
            self._look()
        total = sum(self._prompts)
        return (total if 0.0 <= total < _MOST else _sound(self._prompts)) % _PROMPT

    @property
    def waiting(self) -> int:
        """Number of those prompts."""
        if self._seen is not self._entry.seen:
            self._look()
        total = sum(self._prompts)
        return int((total if 0.0 <= total < _MOST else _sound(self._prompts)) // _PROMPT)

    @property
    def held(self) -> float:
        """Tokens of all prompts, until their requests end."""
        if self._seen is not self._entry.seen:
            self._look()
        total = sum(self._held)
        return total if 0.0 <= total < _MOST else _sound(self._held)

    @property
    def mark(self) -> float:
        """Time when the node last had a prompt computed, or began after it was idle."""
        if self._seen is not self._entry.seen:
            self._look()
        return max(self._marks)

    def write(self, own: Prefills, mark: float | None = None) -> None:
        """Write what this process counts."""
        while True:
            seen = self._entry.seen
            if self._seen is not seen:
                self._look()
            row = self._row
            self._prompts[row] = _PROMPT * own.waiting + min(own.pending, _PROMPT - 1.0)
            self._held[row] = own.held
            if mark is not None:
                self._marks[row] = mark
            if self._entry.seen is seen:
                return


def _sound(numbers: memoryview[float]) -> float:
    """Return the sum of those that can be."""
    return sum([number for number in numbers if 0.0 <= number < _MOST]) % _MOST


class HostPrefills(Prefills):
    """Prompts of this process on their way to one node, written where all can read.

    Thread-safety: as its base. Ctrl-C between a change and its writing is mended within a second.
    """

    __slots__ = ("shown",)

    def __init__(self, entry: HostCell) -> None:
        super().__init__()
        self.shown = _HostPrompts(entry, self)

    def publish(self) -> None:
        """Write what is counted."""
        with self._lock:
            self.shown.write(self)

    def is_idle(self) -> bool:
        """Tell whether the node has no prompt to compute, of any process. Called under the lock."""
        if self._open:
            return False
        self.shown.write(self)
        return not self.shown.waiting

    def begin(self, token: int, new: float, tokens: float, now: float) -> None:
        """Count a prompt of so many tokens, of which so many are new to the node."""
        with self._lock:
            began = now if self.is_idle() else None
            super().begin(token, new, tokens, now)
            self.shown.write(self, began)

    def first_byte(self, token: int, now: float) -> None:
        """Uncount a prompt whose answer has begun. It may be said again."""
        if token not in self._open:
            return
        with self._lock:
            self.pace.heard(self.shown.mark)
            super().first_byte(token, now)
            self.shown.write(self, now)

    def pop(self, token: int, _: None) -> None:
        """Uncount a prompt whose request has ended. It may be called again."""
        if token not in self._held:
            return
        with self._lock:
            super().pop(token, None)
            self.shown.write(self)


class HostTokenCell(TokenCell):
    """Entry of one node by its prompts, for all processes of the host.

    Its elements are this process's requests in flight. Its length is the number of those of all
    processes, because that is what strategies go by.

    Attributes:
        entry: The node's entry by its requests.
        key: Hash by which logs name the node; ``None`` where others cannot know it.
        cold: Logs, and where they ended when the node was last found down: what it was sent before
            is not cached any more.
        own: What this process counts.
        prefills: What all of them count.
    """

    __slots__ = ("cold", "entry", "key")

    own: HostPrefills

    def __init__(self, node_id: Hashable, followers: Followers, entry: HostCell) -> None:
        super().__init__(node_id, followers)
        self.entry = entry
        key = key_of(node_id)
        self.key = None if key is None else xxh3_64_intdigest(key)
        self.cold: tuple[object, list[int]] = (None, [])
        self.own = HostPrefills(entry)
        self.prefills = self.own.shown

    def __len__(self) -> int:
        """Return the number of requests in flight, of all processes. O(processes)."""
        return sum(self.entry.seen)
