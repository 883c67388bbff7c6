"""Quota set aside for one request, where processes share the quota."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress

from loadwise.errors import LoadwiseError
from loadwise.integrations.redis._slices import Parts
from loadwise.quota.protocol import Amounts

__all__ = ["SharedReservation"]


class SharedReservation:
    """Quota set aside for one request, as `loadwise.Reservation` is.

    Neither `settle` nor `cancel` waits for the server: here they show at once, and they count as
    soon as the background has told the server.

    Attributes:
        node_id: The node it was made for.
        amounts: What was reserved, by dimension, default costs included.

    Thread-safety: each ends once, whoever is first. In the child of a fork, ending the parent's
    is left to the parent.
    """

    __slots__ = ("_open", "_settle", "amounts", "forks", "node_id", "parts")

    def __init__(
        self,
        settle: Callable[[SharedReservation, Amounts], None],
        forks: int,
        node_id: Hashable,
        amounts: Amounts,
        parts: Parts,
    ) -> None:
        self._settle = settle
        self._open = [True]
        self.forks = forks
        self.node_id = node_id
        self.amounts = amounts
        self.parts = parts

    def settle(self, amounts: Amounts) -> None:
        """Replace the reserved amounts by the true ones, for the dimensions named.

        What was reserved too much is free again; what was used beyond the reservation is charged,
        even above the limit, because it has been used.

        Args:
            amounts: The true amounts, by dimension.

        Raises:
            LoadwiseError: The reservation has already been settled or cancelled.
            ValueError: A dimension is unknown, or an amount negative, NaN or infinite.
        """
        self._settle(self, amounts)

    def cancel(self) -> None:
        """Give everything back: the request was never sent. Does nothing once it has ended."""
        with suppress(LoadwiseError):
            self.settle(dict.fromkeys(self.amounts, 0))

    def end(self) -> None:
        """Record that it has been settled."""
        try:
            self._open.pop()
        except IndexError:
            raise LoadwiseError(
                f"the reservation on node {self.node_id!r} has already been settled or cancelled"
            ) from None
