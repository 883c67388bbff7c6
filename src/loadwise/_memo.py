"""Memory of a few results by key, which needs no lock."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["MOST_KNOWN", "Memo"]

V = TypeVar("V")

MOST_KNOWN: Final = 32


class Memo(Generic[V]):
    """The last results by key, `MOST_KNOWN` at most; the one kept first goes first.

    Thread-safety: what is known is swapped by one assignment. Of two threads that keep a result at
    the same time one may lose it; it is then found out again.

    Cost: O(1).
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[Hashable, V] = {}

    def get(self, key: Hashable) -> V | None:
        """Return the result kept for a key, or ``None``."""
        return self._known.get(key)

    def keep(self, key: Hashable, value: V) -> None:
        """Keep a result."""
        known = self._known
        surplus = max(0, len(known) + 1 - MOST_KNOWN)
        self._known = {**dict(islice(known.items(), surplus, None)), key: value}

    def __reduce__(self) -> tuple[type[Memo[V]], tuple[()]]:
        # What can be found out again need not travel.
        return type(self), ()
