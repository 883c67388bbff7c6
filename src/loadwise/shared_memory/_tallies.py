"""Tallies: what a slot is told of the begin and the end of requests, written where all can read.

Each is made for one slot, and does no more than its measures need. Ctrl-C strikes after calls:
what it leaves undone is done by the end of the request, which may be told again.
"""

from __future__ import annotations

from math import inf
from typing import Any

from loadwise.balancer.slot import Ageing, Further
from loadwise.load import Cell, oldest_waiting
from loadwise.shared_memory._cells import HostCell
from loadwise.shared_memory._layout import AGE_ORIGIN

__all__ = ["AgeTally", "CountTally", "MixedTally"]


class CountTally(Further):
    """Tells how many requests are in flight, and nothing else."""

    __slots__ = ("_cell",)

    def __init__(self, cell: HostCell) -> None:
        super().__init__((), ())
        self._cell = cell

    def begin(self, first: Cell, token: int, started: float) -> None:  # noqa: ARG002 - all tallies' arguments
        """Tell that a request has begun."""
        # As HostCell.publish does it, with a call less. If the cell is moved meanwhile, that is
        # found out at the next look.
        cell: HostCell = first  # type: ignore[assignment]  # as it was made for
        number = len(cell)
        cell.mine[0] = number
        if len(cell) != number:
            cell.publish()

    def first_byte(self, token: int, now: float) -> None:
        """Nothing to tell: ages do not count."""

    def pop(self, token: int, _: None) -> None:  # noqa: ARG002 - as above
        """Tell that a request has ended. It may be called again."""
        cell = self._cell
        number = len(cell)
        cell.mine[0] = number
        if len(cell) != number:
            cell.publish()


class AgeTally(CountTally):
    """Tells how many requests are in flight, and when the oldest without a first byte began.

    Args:
        cell: The node's entry.
        measure: Has a time of its own.
    """

    __slots__ = ("_measure",)

    def __init__(self, cell: HostCell, measure: Any) -> None:  # noqa: ANN401 - a HostPeakEwma, made later
        super().__init__(cell)
        self._measure = measure

    def begin(self, first: Cell, token: int, started: float) -> None:
        """Tell that a request has begun."""
        cell: HostCell = first  # type: ignore[assignment]  # as it was made for
        measure = self._measure
        if started >= measure._bound:  # noqa: SLF001 - as PeakEwma.begin does it, with a call less
            measure._bound = started  # noqa: SLF001 - as above
        else:
            started = measure.own_time(started)
        waiting = cell.waiting
        waiting[token] = started
        number = len(cell)
        cell.mine[0] = number
        if len(cell) != number:
            cell.publish()
        if len(waiting) == 1:
            cell.my_age[0] = AGE_ORIGIN - started

    def first_byte(self, token: int, now: float) -> None:  # noqa: ARG002 - all tallies' argument
        """Let a request age no more. It may be said again."""
        cell = self._cell
        waiting = cell.waiting
        if waiting.pop(token, None) is None:
            return
        if not waiting:
            cell.my_age[0] = 0.0
            if waiting:  # another thread came in between
                cell.publish_age()
        else:
            oldest = oldest_waiting(cell)
            cell.my_age[0] = 0.0 if oldest == inf else AGE_ORIGIN - oldest

    def pop(self, token: int, _: None) -> None:
        """Tell that a request has ended. It may be called again."""
        cell = self._cell
        number = len(cell)
        cell.mine[0] = number
        if len(cell) != number:
            cell.publish()
        waiting = cell.waiting
        if waiting.pop(token, None) is None:
            return
        if waiting:
            oldest = oldest_waiting(cell)
            cell.my_age[0] = 0.0 if oldest == inf else AGE_ORIGIN - oldest
        else:
            cell.my_age[0] = 0.0
            if waiting:  # another thread came in between
                cell.publish_age()


class MixedTally(Further):
    """Tells what another tally does, and counts with further measures."""

    __slots__ = ("_tally",)

    def __init__(self, tally: CountTally, others: tuple[list[None], ...], ageing: Ageing) -> None:
        super().__init__(others, ageing)
        self._tally = tally

    def begin(self, first: Cell, token: int, started: float) -> None:
        """Tell that a request has begun."""
        super().begin(first, token, started)
        self._tally.begin(first, token, started)

    def first_byte(self, token: int, now: float) -> None:
        """Let a request age no more. It may be said again."""
        super().first_byte(token, now)
        self._tally.first_byte(token, now)

    def pop(self, token: int, _: None) -> None:
        """Tell that a request has ended. It may be called again."""
        super().pop(token, None)
        self._tally.pop(token, None)
