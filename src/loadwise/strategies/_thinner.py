"""Thinning of turns: nodes in slow start let some of theirs pass.

So their shares grow while the sequence of turns stays what it is, and whole weights stay whole.
"""

from __future__ import annotations

from threading import RLock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

__all__ = ["Credits", "Thinner"]

_FIRST = 0.5
_GOLDEN_FRACTION = 0.6180339887498949


class Credits:
    """Parts of a turn that nodes in slow start have saved up, by id.

    Attributes:
        lock: Held for moments, to change one.
        saved: From 0 to below 1.
    """

    __slots__ = ("lock", "saved")

    def __init__(self) -> None:
        # Re-entrant, because the collector may strike while it is held.
        self.lock = RLock()
        self.saved: dict[Hashable, float] = {}

    def copy(self) -> Credits:
        """Return a copy, to be changed apart from this."""
        twin = Credits()
        twin.saved = self.saved.copy()
        return twin

    def keep(self, ids: Iterable[Hashable]) -> None:
        """Forget all but these. Who is new begins apart from the others, not in step with them."""
        with self.lock:
            known = self.saved
            self.saved = {
                identity: known.get(identity, (_FIRST + number * _GOLDEN_FRACTION) % 1.0)
                for number, identity in enumerate(ids)
            }


class Thinner:
    """Has each node in slow start take as large a part of its turns as its factor says.

    Args:
        ids: The nodes' ids, by index.
        parts: What part of their turns those in slow start take, by index.
        saved: What they have saved up.

    Attributes:
        sums: Sums of the thinned weights, for whoever works them out.

    Thread-safety: a lock for a turn of a node in slow start, none for others.
    """

    __slots__ = ("_credits", "_ids", "_parts", "sums")

    def __init__(self, ids: Sequence[Hashable], parts: Mapping[int, float], saved: Credits) -> None:
        self._ids = ids
        self._parts = parts
        self._credits = saved
        self.sums: list[float] | None = None

    def lets(self, index: int) -> bool:
        """Tell whether a node takes its turn; else it saves a part of it up."""
        part = self._parts.get(index)
        if part is None:
            return True
        identity, mine = self._ids[index], self._credits
        with mine.lock:
            saved = mine.saved.get(identity, 0.0) + part
            takes = saved >= 1.0
            mine.saved[identity] = saved - takes
        return takes

    def parts_of(self, indices: Iterable[int]) -> list[float]:
        """Return what part of their turns nodes take."""
        parts = self._parts
        return [parts.get(index, 1.0) for index in indices]
