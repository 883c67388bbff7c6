"""The fleet on the screen: a line for each node and one for what is the matter with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group
from rich.text import Text

from loadwise._amounts import count, figure, in_words, latency, percent, plural
from loadwise.cli.top.told import BalancerTold, NodeTold, PageTold

__all__ = ["FleetView"]

_LOOKS: Final = {"down": "bold red", "warning": "yellow", "notice": "cyan", "well": "green"}
_BARS: Final = " ▁▂▃▄▅▆▇█"
_POINTS: Final = 24
"""Picks per second that are remembered of each node."""
_HEADS: Final = ("state", "for", "picks/s", "in flight", "latency", "failed, 1 min")
_WIDTHS: Final = (11, 6, 8, 11, 9, 14)
"""Columns of the screen for each of these; the node has the rest."""
_INDENT: Final = " " * 19
"""Space before a reason, so that it stands below the node's id."""
_NODE: Final = (12, 40)
"""Columns of the screen for a node's id, at least and at most."""
_AROUND: Final = 4
"""Lines of a balancer beside its nodes: an empty one, its name, the heads, and who is left out."""


class _Layout(NamedTuple):
    """Columns that depend on the screen.

    Attributes:
        node: Columns of the screen for a node's id.
        bars: Whether there is room for bars, and the terminal has the characters.
    """

    node: int
    bars: bool


class FleetView:
    """Draws what a page told, and remembers the rates for bars.

    Args:
        console: Where it will be printed.
        shown: The address, for the first line.
    """

    def __init__(self, console: Console, shown: str) -> None:
        self._console = console
        self._shown = shown
        self._rates: dict[tuple[int, str], deque[float]] = {}

    def remember(self, told: PageTold) -> None:
        """Record the rates; those of nodes that are gone are forgotten."""
        rates: dict[tuple[int, str], deque[float]] = {}
        for place, balancer in enumerate(told.balancers):
            for node in balancer.nodes:
                key = place, node.text
                rates[key] = self._rates.get(key) or deque(maxlen=_POINTS)
                rates[key].append(node.rate or 0.0)
        self._rates = rates

    def draw(self, told: PageTold, *, height: int | None = None, trouble: str = "") -> Group:
        """Return what a page told, as something to print.

        Args:
            told: What it told last.
            height: Lines that there are; ``None`` for as many as it takes.
            trouble: Why there is nothing newer.
        """
        head = _line((f"{self._shown}  ", "bold"), (told.process, "dim"))
        lines = [head, _verdict(told)]
        if trouble:
            # Not cut off: its end says why, and what to do.
            whole = Text(trouble, style="bold red")
            lines += whole.wrap(self._console, self._console.width)
        left = None if height is None else height - len(lines)
        for place, balancer in enumerate(told.balancers):
            fair = None if left is None else left // (len(told.balancers) - place)
            drawn = list(self._balancer(place, balancer, fair))
            lines += drawn
            left = None if left is None else left - len(drawn)
        return Group(*lines)

    def _balancer(self, place: int, told: BalancerTold, most: int | None) -> Iterator[Text]:
        """Yield a balancer's lines, at most so many as are given, but for those around nodes."""
        look = "red" if told.available < told.members else ""
        parts = [
            (told.name, "bold"),
            (f"  {told.strategy}", "dim"),
            (f"   {told.available:,.0f} of {told.members:,.0f} available", look),
        ]
        if told.rate is not None:
            parts.append((f"   {figure(told.rate)} picks/s", ""))
        if told.waiting:
            parts.append((f"   {plural(int(told.waiting), 'request')} waiting", "yellow"))
        alarms = [_line((each, "bold red")) for each in (told.panic, told.error) if each]
        yield from (Text(), _line(*parts), *alarms)
        if not told.nodes:
            return
        shown = list(told.nodes)
        if most is not None:
            shown = _that_fit(shown, most - _AROUND - len(alarms))
        yield from self._nodes(place, shown)
        hidden = told.nodes[len(shown) :]
        if hidden:
            worse = sum(node.severity != "well" for node in hidden)
            rest = f"{worse:,} of them not up" if worse else "all up"
            yield _line((f"and {plural(len(hidden), 'node')} more, {rest}", "dim"))

    def _nodes(self, place: int, nodes: Sequence[NodeTold]) -> Iterator[Text]:
        longest = max((cell_len(node.text) for node in nodes), default=0)
        rest = self._console.width - sum(_WIDTHS) - 2
        least, most = _NODE
        layout = _Layout(
            min(max(least, longest), max(least, min(most, rest))),
            bars=not self._console.options.ascii_only and rest - longest > _POINTS,
        )
        state, for_, *others = zip(_HEADS, _WIDTHS, strict=True)
        cells = [f"{state[0]:{state[1]}}", f"{for_[0]:>{for_[1]}}", "  "]
        cells += [set_cell_size("node", layout.node)]
        cells += [f"{head:>{width}}" for head, width in others]
        yield _line(("".join(cells), "dim"))
        rates = [self._rates.get((place, node.text), ()) for node in nodes]
        highest = max((rate for each in rates for rate in each), default=0.0)
        for node, each in zip(nodes, rates, strict=True):
            yield _node_line(node, layout, each, highest)
            if node.why:
                yield _line((f"{_INDENT}{node.why}", _LOOKS[node.severity]))


def _that_fit(nodes: Sequence[NodeTold], lines: int) -> list[NodeTold]:
    """Return the first nodes that fit into so many lines; one in any case."""
    found: list[NodeTold] = []
    for node in nodes:
        lines -= 2 if node.why else 1
        if lines < 0 and found:
            break
        found.append(node)
    return found


def _node_line(node: NodeTold, layout: _Layout, rates: Sequence[float], highest: float) -> Text:
    limit = "" if node.limit is None else f" / {node.limit:,.0f}"
    total = node.successes + node.failures
    failed = "" if not total else "0"
    if node.failures:
        failed = f"{percent(node.failures / total)} of {count(total)}"
    numbers = (
        "" if node.rate is None else figure(node.rate),
        f"{node.in_flight:,.0f}{limit}",
        "" if node.latency is None else latency(node.latency),
    )
    cells = "".join(f"{text:>{width}}" for text, width in zip(numbers, _WIDTHS[2:5], strict=True))
    parts = [
        (set_cell_size(node.state, _WIDTHS[0]), _LOOKS[node.severity]),
        (f"{'' if node.seconds is None else in_words(node.seconds):>{_WIDTHS[1]}}  ", "dim"),
        (set_cell_size(node.text, layout.node), "bold"),
        (cells, ""),
        (f"{failed:>{_WIDTHS[5]}}", "red" if node.failures else "dim"),
    ]
    if layout.bars:
        parts.append((f"  {_bars(rates, highest)}", "blue"))
    return _line(*parts)


def _line(*parts: tuple[str, str]) -> Text:
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def _verdict(told: PageTold) -> Text:
    nodes = [node for balancer in told.balancers for node in balancer.nodes]
    down = sum(node.severity == "down" for node in nodes)
    warned = sum(node.severity == "warning" for node in nodes)
    if not down and not warned:
        return _line((f"No problems among {plural(len(nodes), 'node')}.", "bold green"))
    parts = [f"{down:,} down"] * bool(down) + [f"{warned:,} in trouble"] * bool(warned)
    look = "bold red" if down else "bold yellow"
    return _line((f"{' and '.join(parts)} of {plural(len(nodes), 'node')}.", look))


def _bars(rates: Sequence[float], highest: float) -> str:
    top = len(_BARS) - 1
    bars = "".join(_BARS[round(top * rate / highest) if highest else 0] for rate in rates)
    return f"{bars:>{_POINTS}}"
