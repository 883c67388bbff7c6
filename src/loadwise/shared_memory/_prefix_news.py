"""News between the indexes of a host's processes: each hears what the others send where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from threading import RLock
from typing import Final, Protocol
from weakref import WeakValueDictionary

from loadwise._fork import ForkAware, reset_in_child
from loadwise._prefix_index import PrefixIndex
from loadwise.shared_memory._prompt_log import PromptLog, Sent
from loadwise.shared_memory._token_cells import HostTokenCell

__all__ = ["HostNews", "LogSource"]

_AT_ONCE: Final = 4096
"""Words that one pick takes in; the rest is left to those after it."""


class LogSource(Protocol):
    """Has the logs of the host's processes."""

    @property
    def log(self) -> PromptLog | None:
        """The logs of the present memory; ``None`` where there are none."""
        ...

    @property
    def reach(self) -> int:
        """Number of rows to look at."""
        ...

    @property
    def turn(self) -> int:
        """Number of the last prompt that this process has sent."""
        ...


class HostNews(ForkAware):
    """News for an index of what the other processes of its host send, and for them of its own.

    Where there are no logs, nothing is told or heard.

    Args:
        source: Has the logs, and counts the prompts.
        index: The index.

    Attributes:
        index: The index.

    Thread-safety: a lock, held for the time of a few prompts. In a forked child all is heard anew.

    Cost: O(processes) to look whether there is news, and O(blocks) for each prompt that was sent,
    but a bounded number at once.
    """

    def __init__(self, source: LogSource, index: PrefixIndex) -> None:
        self._source = source
        self.index = index
        self._after_fork()
        reset_in_child(self)

    def _after_fork(self) -> None:
        # Re-entrant: the collector may strike while it is held, and have a node chosen.
        self._lock = RLock()
        self._reads = False
        self._log: PromptLog | None = None
        # Where to go on reading, by row.
        self._places: list[int] = []
        self._cells: WeakValueDictionary[int, HostTokenCell] = WeakValueDictionary()

    def know(self, cells: Iterable[HostTokenCell]) -> None:
        """Hear of these nodes, too, by their entries, for as long as they live. O(nodes)."""
        with self._lock:
            self._cells.update({cell.key: cell for cell in cells if cell.key is not None})

    def catch_up(self) -> None:
        """Take in what others have sent, if anything; a bounded part of it if that is much."""
        log, reach = self._source.log, self._source.reach
        if log is None or (log is self._log and log.heads[:reach].tolist() == self._places[:reach]):
            return
        with self._lock:
            if self._reads:
                return
            self._reads = True
            try:
                self._use(log)
                self._take_in(log, reach)
            finally:
                self._reads = False

    def _use(self, log: PromptLog) -> None:
        if log is not self._log:
            self._log, self._places = log, [0] * len(log.heads)

    def _take_in(self, log: PromptLog, reach: int) -> None:
        places, left = self._places, _AT_ONCE
        heads = log.heads[:reach].tolist()
        # Who is furthest behind comes first, so that each has its turn.
        behind = sorted(
            (places[row] - head, row) for row, head in enumerate(heads) if head != places[row]
        )
        for _, row in behind:
            if left <= 0:
                return
            found, places[row] = log.read(row, places[row], left)
            for sent in found:
                left -= len(sent.hashes) + 1
                self._hear(log, row, sent)

    def _hear(self, log: PromptLog, row: int, sent: Sent) -> None:
        cell = self._cells.get(sent.node)
        if cell is None or sent.block_chars != self.index.block_chars:
            return
        whose, ends = cell.cold
        if whose is log and sent.place < ends[row]:
            return
        # No turn of its own: how fast nodes are goes by the prompts of this process.
        cell.own.turn = cell.prefills.turn = self._source.turn
        self.index.insert_hashes(sent.hashes.tolist(), cell.entry.id)

    def tell(self, cell: HostTokenCell, hashes: Sequence[int]) -> None:
        """Tell others that the prompt with these hashes was sent to a node."""
        log = self._source.log
        if log is None or cell.key is None:
            return
        with self._lock:
            self._use(log)
            begin, end = log.append(cell.key, self.index.block_chars, hashes)
            if self._places[log.row] == begin:
                self._places[log.row] = end  # it need not be read
