"""A host on the screen: a line for each process, and one for each node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group
from rich.text import Text

from loadwise._amounts import in_words, latency, plural
from loadwise._text import visible
from loadwise.health import HealthStatus
from loadwise.shared_memory import HostNode, HostProcess, HostStatus

__all__ = ["HostView"]

_STATES: Final = {
    HealthStatus.UNHEALTHY: ("down", "bold red"),
    HealthStatus.RECOVERING: ("recovering", "yellow"),
    HealthStatus.DEGRADED: ("degraded", "yellow"),
    HealthStatus.HEALTHY: ("up", "green"),
}
"""Word and look of each state, the worst first."""
_WORST_FIRST: Final = list(_STATES)
_STATE: Final = 11
_FOR: Final = 6
_NODE: Final = (12, 40)
"""Columns of the screen for a node's id, at least and at most."""
_NUMBERS: Final = (("in flight", 11), ("cost", 9), ("oldest", 9))
_GAP: Final = 2
_AROUND: Final = 3
"""Lines of a table beside its rows: an empty one, the heads, and how many are left out."""
_FOR_PROCESSES: Final = 3
"""Processes have a third of the screen at most."""


class HostView:
    """Draws what the processes of a host share.

    Args:
        console: Where it will be printed.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def draw(self, status: HostStatus, *, height: int | None = None, trouble: str = "") -> Group:
        """Return a host's picture, as something to print.

        Args:
            status: The picture.
            height: Lines that there are; ``None`` for as many as it takes.
            trouble: Why there is nothing newer.
        """
        lines = [_title(status), _verdict(status)]
        if trouble:
            lines.append(_line((visible(trouble), "bold red")))
        left = None if height is None else height - len(lines)
        lines += self._processes(status, None if left is None else left // _FOR_PROCESSES)
        left = None if height is None else height - len(lines)
        lines += self._nodes(status, left)
        return Group(*lines)

    @staticmethod
    def _processes(status: HostStatus, most: int | None) -> Iterator[Text]:
        """Yield the lines of the processes, those that have died first."""
        if not status.processes:
            return
        ordered = sorted(status.processes, key=_order_of_process)
        shown = ordered if most is None else ordered[: max(1, most - _AROUND)]
        yield from (
            Text(),
            _line((f"{'process':{_STATE}}{'for':>{_FOR}}{'in flight':>11}{'nodes':>8}", "dim")),
        )
        for each in shown:
            state = "" if each.is_alive else "  has died"
            numbers = f"{each.in_flight:>11,}{each.nodes:>8,}"
            yield _line(
                (f"{each.pid:<{_STATE}}", "bold"),
                (f"{in_words(each.seconds):>{_FOR}}", "dim"),
                (numbers, ""),
                (state, "red"),
            )
        hidden = len(ordered) - len(shown)
        if hidden:
            yield _line((f"and {hidden:,} more", "dim"))

    def _nodes(self, status: HostStatus, most: int | None) -> Iterator[Text]:
        """Yield the lines of the nodes, those with problems first."""
        if not status.nodes:
            return
        ordered = sorted(status.nodes, key=_order_of_node)
        shown = ordered if most is None else ordered[: max(1, most - _AROUND)]
        texts = [visible(str(node.id)) for node in shown]
        node_width, pids = self._columns(status, max(map(cell_len, texts)))
        heads = f"{'state':{_STATE}}{'for':>{_FOR}}{'':{_GAP}}{set_cell_size('node', node_width)}"
        heads += "".join(f"{head:>{width}}" for head, width in _NUMBERS)
        heads += "".join(f"{status.processes[place].pid:>{width}}" for place, width in pids)
        yield from (Text(), _line((heads, "dim")))
        for node, text in zip(shown, texts, strict=True):
            yield _node_line(node, set_cell_size(text, node_width), pids)
        hidden = ordered[len(shown) :]
        if hidden:
            worse = sum(node.health is not HealthStatus.HEALTHY for node in hidden)
            rest = f"{worse:,} of them not up" if worse else "all up"
            yield _line((f"and {plural(len(hidden), 'node')} more, {rest}", "dim"))

    def _columns(self, status: HostStatus, longest: int) -> tuple[int, list[tuple[int, int]]]:
        """Return the width of ids, and the living processes that have room, with their widths."""
        least, most = _NODE
        room = self._console.width - _STATE - _FOR - _GAP - sum(width for _, width in _NUMBERS)
        node_width = min(max(least, longest), max(least, min(most, room)))
        room -= node_width
        pids: list[tuple[int, int]] = []
        for place, each in enumerate(status.processes):
            if each.is_alive:
                width = _GAP + max(4, len(str(each.pid)))
                room -= width
                pids.append((place, width))
        # Some of them would look like all.
        return node_width, pids if room >= 0 else []


def _order_of_process(each: HostProcess) -> tuple[bool, float]:
    return each.is_alive, -each.seconds


def _order_of_node(node: HostNode) -> int:
    return _WORST_FIRST.index(node.health)


def _node_line(node: HostNode, text: str, pids: Sequence[tuple[int, int]]) -> Text:
    word, look = _STATES[node.health]
    seconds = "" if node.state_seconds is None else in_words(node.state_seconds)
    numbers = (
        f"{node.in_flight:,}",
        "" if node.cost is None else latency(node.cost),
        "" if node.oldest is None else latency(node.oldest),
    )
    cells = "".join(f"{cell:>{width}}" for cell, (_, width) in zip(numbers, _NUMBERS, strict=True))
    return _line(
        (set_cell_size(word, _STATE), look),
        (f"{seconds:>{_FOR}}{'':{_GAP}}", "dim"),
        (text, "bold"),
        (cells, ""),
        ("".join(f"{node.by_process[place]:>{width},}" for place, width in pids), "dim"),
    )


def _title(status: HostStatus) -> Text:
    path = "" if status.name == status.path else f"  {visible(status.path)}"
    return _line((visible(status.name), "bold"), (path, "dim"))


def _verdict(status: HostStatus) -> Text:
    living = sum(each.is_alive for each in status.processes)
    if not living:
        return _line(("No process takes part.", "bold yellow"))
    parts = [
        f"{living:,} of at most {status.max_processes:,} processes",
        plural(len(status.nodes), "node"),
        f"{status.in_flight:,} in flight",
    ]
    down = sum(node.health is HealthStatus.UNHEALTHY for node in status.nodes)
    look = "bold red" if down else "bold green"
    return _line((", ".join(parts), look), (f", {down:,} down" if down else "", look))


def _line(*parts: tuple[str, str]) -> Text:
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")
