"""News of nodes that processes tell each other: health, ejections, slow starts."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from loadwise.shared_memory._cells import HostCell
from loadwise.shared_memory._ejections import HostEjections
from loadwise.shared_memory._events import EJECTED, HEALTH, STARTED, HostEvent
from loadwise.shared_memory._health import HostHealth
from loadwise.shared_memory._starts import HostStarts

__all__ = ["NodeNews"]


class NodeNews:
    """Exchange of news of nodes between this process and the others of its host.

    Args:
        find: Returns the entry of a node, if others can see it.
        post: Tells others that something of a node has changed.

    Attributes:
        health: States of health.
        ejections: Ejections of outliers, and the results that they go by.
        starts: Slow starts.

    Thread-safety: news are heard by one thread at a time.
    """

    def __init__(
        self,
        find: Callable[[Hashable], HostCell | None],
        post: Callable[[HostCell, int, str], None],
    ) -> None:
        self._find = find
        self.health = HostHealth(find, post)
        self.ejections = HostEjections(find, post)
        self.ejections.share(self.health.eject)
        self.starts = HostStarts(find, post)

    def after_fork(self) -> None:
        """Leave to the parent what is under way."""
        self.health.after_fork()
        self.ejections.after_fork()

    def hear(self, cell: HostCell, event: HostEvent) -> None:
        """Take in one change of a node."""
        if event.kind == HEALTH:
            self.health.hear(cell, event.row, event.words)
        elif event.kind == EJECTED:
            self.ejections.hear(cell, event.row, event.words)
        elif event.kind == STARTED:
            self.starts.hear(cell, event.row)

    def missed(self, cell: HostCell, row: int) -> None:
        """Take in how a node is, as a process has it of whose changes some were missed."""
        self.health.hear(cell, row, "")
        self.ejections.hear(cell, row, "")
        self.starts.hear(cell, row)

    def catch_up_on(self, cell: HostCell) -> None:
        """Take in how a node is that is new here."""
        self.health.catch_up_on(cell)
        if self._find(cell.id) is cell:
            self.ejections.catch_up_on(cell)
