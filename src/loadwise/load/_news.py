"""Protocol of news between indexes, of what was sent where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["PrefixNews"]


class PrefixNews(Protocol):
    """News for an index of what others send where, and for them of its own."""

    def know(self, cells: Sequence[Any]) -> None:
        """Hear of these nodes, too, by their entries in the measure, for as long as they live."""
        ...

    def catch_up(self) -> None:
        """Take in what others have sent, if anything; a bounded part of it if that is much."""
        ...

    def tell(self, cell: Any, hashes: Sequence[int]) -> None:  # noqa: ANN401 - a measure's own
        """Tell others that the prompt with these hashes was sent to a node."""
        ...
