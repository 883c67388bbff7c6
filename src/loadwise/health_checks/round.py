"""The verdicts of one call of ``check_now``, as they come in."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

from loadwise.errors import LoadwiseError

__all__ = ["Round"]


class Round:
    """One check of every member, on demand.

    Args:
        finished: Called once, when no more verdicts are to come.

    Attributes:
        verdicts: By id what was wrong, or ``None`` for a pass.

    Not thread-safe: who owns the plan fills it, and others read it once it is finished.
    """

    __slots__ = ("_finished", "_open", "_stopped", "verdicts")

    def __init__(self, finished: Callable[[], object]) -> None:
        self._finished = finished
        self._open: set[Hashable] = set()
        self._stopped = False
        self.verdicts: dict[Hashable, str | None] = {}

    def begin(self, node_ids: Iterable[Hashable]) -> None:
        """Expect the verdicts of these nodes."""
        self.verdicts = dict.fromkeys(node_ids)
        self._open = set(self.verdicts)
        if not self._open:
            self._finished()

    def settle(self, node_id: Hashable, fault: str | None) -> None:
        """Record a verdict."""
        self.verdicts[node_id] = fault
        self._close(node_id)

    def drop(self, node_id: Hashable) -> None:
        """Expect no verdict of a node that is a member no more."""
        del self.verdicts[node_id]
        self._close(node_id)

    def stop(self) -> None:
        """End it without the verdicts that are still to come."""
        self._stopped = True
        self._finished()

    def result(self, balancer: str) -> dict[Hashable, str | None]:
        """Return the verdicts, in the order of the members.

        Raises:
            LoadwiseError: It was stopped before all were in.
        """
        if self._stopped:
            raise LoadwiseError(
                f"the health checker of balancer {balancer!r} was stopped before check_now had "
                f"the verdict of every node; call it again"
            )
        return self.verdicts

    def _close(self, node_id: Hashable) -> None:
        self._open.remove(node_id)
        if not self._open:
            self._finished()
