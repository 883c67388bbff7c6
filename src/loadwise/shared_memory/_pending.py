"""Pending tokens of all processes of a host."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Protocol
from weakref import WeakSet, WeakValueDictionary

from loadwise._prefix_index import PrefixIndex
from loadwise.load import Cell, PendingTokens
from loadwise.shared_memory._cells import HostCell
from loadwise.shared_memory._memory import HostMemory
from loadwise.shared_memory._prefix_news import HostNews
from loadwise.shared_memory._prompt_log import PromptLog
from loadwise.shared_memory._token_cells import HostTokenCell

__all__ = ["HostPendingTokens", "PromptSource"]


class PromptSource(Protocol):
    """Has a host's memory, and gives the entries of nodes there."""

    @property
    def memory(self) -> HostMemory:
        """The memory, which may be another later."""
        ...

    @property
    def reach(self) -> int:
        """Number of rows to look at."""
        ...

    def cell(self, node_id: Hashable) -> HostCell:
        """Return the entry of one node, the same for as long as anyone holds it."""
        ...

    def forget(self, cell: HostCell) -> None:
        """Have all processes take a node for one never measured, with nothing cached."""
        ...


class HostPendingTokens(PendingTokens):
    """Load as the uncached prompt tokens that all processes of the host have sent to a node.

    Args:
        source: Where the entries are, and the logs.

    Attributes:
        log: The logs of prompts; ``None`` where there are none.
        reach: How many rows there are, or were.

    Thread-safety: as `PendingTokens`.

    Cost: O(processes) to read.
    """

    def __init__(self, source: PromptSource) -> None:
        self._source = source
        self._news: WeakSet[HostNews] = WeakSet()
        self.log: PromptLog | None = None
        self.reach = 1
        super().__init__()

    def _after_fork(self) -> None:
        super()._after_fork()
        self._entries: WeakValueDictionary[Hashable, HostTokenCell] = WeakValueDictionary()

    def open_log(self, warn: Callable[[str], None]) -> None:
        """Have a log in the present memory; say so where there is no room. O(rows)."""
        memory = self._source.memory
        log = PromptLog(memory) if memory.open_log() else None
        if log is not None:
            self.reach = 1 + max([row for row, head in enumerate(log.heads) if head], default=0)
        elif memory.locks is not None:
            warn("its disk has no room for the prompts of this process, which are not told")
        self.look_at(self._source.reach)
        self.log = log

    def look_at(self, reach: int) -> None:
        """Look at so many rows at least: the logs of the dead are read, too."""
        self.reach = max(self.reach, reach)

    def cell(self, node_id: Hashable) -> HostTokenCell:
        """Return the entry of one node."""
        with self._lock:
            known = self._entries.get(node_id)
        if known is None:
            # Not under the lock: the source has one of its own, under which `publish` is called.
            entry = self._source.cell(node_id)
            with self._lock:
                known = self._entries.get(node_id)
                if known is None:  # else one made in vain would tell that its node has left
                    known = HostTokenCell(node_id, self._followers, entry)
                    self._entries[node_id] = known
        return known

    def forget(self, cell: Cell) -> None:
        """Have the indexes of all processes forget what a node has cached: it is UNHEALTHY."""
        dead: HostTokenCell = cell  # type: ignore[assignment]  # as made by cell()
        self.forget_here(dead.entry.id)
        self._source.forget(dead.entry)

    def forget_here(self, node_id: Hashable) -> None:
        """Have the indexes of this process forget what a node has cached. It takes no lock."""
        cell, log = self._entries.get(node_id), self.log
        if cell is not None:
            if log is not None:
                cell.cold = log, log.heads.tolist()
            cell.forget()

    def follow(self, index: PrefixIndex) -> HostNews:
        """Tell an index which nodes have left or died, and have it hear of other processes."""
        super().follow(index)
        with self._lock:
            for news in self._news:
                if news.index is index:
                    return news
            news = HostNews(self, index)
            self._news.add(news)
            return news

    def publish(self) -> None:
        """Write again what this process counts. O(nodes)."""
        with self._lock:
            cells = list(self._entries.values())
        for cell in cells:
            cell.own.publish()
