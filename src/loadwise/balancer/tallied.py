"""Protocol of measures that write down by themselves what is in flight.

It stands apart from the slots, which are compiled: mypyc has no protocols that can be asked for.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

__all__ = ["Tallied"]


@runtime_checkable
class Tallied(Protocol):
    """A measure that writes its requests down by itself, where others can read."""

    def slot_tally(
        self,
        cell: Any,  # noqa: ANN401 - of the measure's own
        others: tuple[list[None], ...],
        ageing: tuple[tuple[Any, Any], ...],
    ) -> Any:  # noqa: ANN401 - a `Further`, whose module needs this one
        """Return what a slot is to tell of its requests, beside counting them in the cells."""
        ...

    def total_of(self, cell: Any) -> int:  # noqa: ANN401 - as above
        """Return how many requests a node has in flight."""
        ...

    def elsewhere_of(self, cell: Any) -> int:  # noqa: ANN401 - as above
        """Return how many of them other processes have."""
        ...
