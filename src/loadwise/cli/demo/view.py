"""The display of a demo that runs: its events as lines, and below them a table that lives."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadwise._text import visible
from loadwise.cli.demo.fleet import DemoFleet
from loadwise.cli.demo.run import ACTS, DemoRun, Event
from loadwise.health import HealthStatus

__all__ = ["introduce", "watching"]

_LOOKS = {
    HealthStatus.HEALTHY: "green",
    HealthStatus.DEGRADED: "yellow",
    HealthStatus.UNHEALTHY: "red",
    HealthStatus.RECOVERING: "cyan",
}
_OTHER_COLUMNS = 62
_WIDEST = 104
_MARGIN = 3  # the terminal echoes ^C behind the panel; in the last column it would wrap
_WINDOW = 1.0
_PLAIN_STEP = 0.1


def introduce(console: Console, fleet: DemoFleet) -> None:
    """List the servers: name, address, process id, answer time and role."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for server in fleet:
        low, high = (f"{1000 * seconds:g}" for seconds in server.profile.seconds)
        table.add_row(
            Text(server.name, "bold"),
            f"127.0.0.1:{server.port}",
            f"pid {server.pid}",
            f"{low}-{high} ms",
            Text(server.profile.role, "dim"),
        )
    console.print(table)
    console.print()


@contextmanager
def watching(
    console: Console, run: DemoRun, *, live: bool
) -> Generator[Callable[[], None], None, None]:
    """Show a run while the block lasts; gives a function to call whenever there may be news."""
    if not live:
        yield _LinesView(console, run).show
        return
    view = _LiveView(console, run)
    with view.live:
        yield view.show


class _LinesView:
    """Events and now and then the progress, as lines."""

    def __init__(self, console: Console, run: DemoRun) -> None:
        self._console = console
        self._run = run
        self._next = _PLAIN_STEP

    def show(self) -> None:
        """Print what is new."""
        run = self._run
        _tell_events(self._console, run)
        while run.counts.completed >= self._next * run.plan.requests and self._next < 1:
            self._console.print(Text(f"{'':10}{self._next:>5.0%}  {_counts(run)}"), soft_wrap=True)
            self._next += _PLAIN_STEP


class _LiveView:
    """Events as lines, and below them a table that is drawn again and again."""

    def __init__(self, console: Console, run: DemoRun) -> None:
        self._console = console
        self._run = run
        self._history: deque[tuple[float, dict[str, int]]] = deque()
        self._block = "#" if console.options.ascii_only else "\N{FULL BLOCK}"
        self._dot = "*" if console.options.ascii_only else "\N{BLACK CIRCLE}"
        self.live = Live(console=console, transient=True, auto_refresh=False)

    def show(self) -> None:
        _tell_events(self._console, self._run)
        self.live.update(self._frame(), refresh=True)

    def _frame(self) -> Panel:
        run = self._run
        table = Table(box=None, expand=True, padding=(0, 1), header_style="dim")
        table.add_column("server")
        table.add_column("health", width=12)
        table.add_column("in flight", justify="right")
        table.add_column("picks", justify="right", width=6)
        table.add_column("latency", justify="right", width=8)
        table.add_column("share, last second", no_wrap=True)
        shares = self._shares()
        width = min(_WIDEST, self._console.width - _MARGIN)
        bar_width = max(10, width - _OTHER_COLUMNS)
        for name, status in run.status().items():
            look = _LOOKS[status.health]
            latency = "" if status.latency is None else f"{1000 * status.latency:.1f} ms"
            filled = round(shares[name] * bar_width)
            table.add_row(
                Text(name, "bold"),
                Text(f"{self._dot} {status.health.name}", look),
                str(status.in_flight),
                f"{status.picks:,}",
                latency,
                Text(f"{self._block * filled:{bar_width}}{shares[name]:>5.0%}", look),
            )
        total = run.plan.requests
        foot = Table.grid(padding=(0, 2), expand=True)
        foot.add_column(ratio=1)
        foot.add_column(justify="right")
        foot.add_row(ProgressBar(total=total, completed=run.counts.completed), _counts(run))
        title = f"act {run.act} of {ACTS}  {run.choice}  {run.elapsed:.1f} s"
        return Panel(Group(table, Text(), foot), title=Text(title), border_style="dim", width=width)

    def _shares(self) -> dict[str, float]:
        """Return each server's share of the picks of the last second."""
        now = self._run.elapsed
        picks = {name: status.picks for name, status in self._run.status().items()}
        self._history.append((now, picks))
        while self._history[0][0] < now - _WINDOW:
            self._history.popleft()
        before = self._history[0][1]
        total = sum(picks.values()) - sum(before.values())
        return {name: (picks[name] - before[name]) / max(1, total) for name in picks}


def _tell_events(console: Console, run: DemoRun) -> None:
    while run.events:
        console.print(_line(run.events.popleft()), soft_wrap=True)


def _line(event: Event) -> Text:
    line = Text(f"{event.seconds:6.2f} s  ", "dim")
    if event.act is None:
        line.append(f"       {visible(event.text)}", "not dim")
        for status, look in _LOOKS.items():
            line.highlight_words([f" {status.name}"], f"not dim {look}")
    else:
        line.append(f"act {event.act}  {event.text}", "not dim bold")
    return line


def _counts(run: DemoRun) -> str:
    counts = run.counts
    return (
        f"{counts.completed:,} of {run.plan.requests:,} requests: {counts.answered:,} "
        f"answered, {counts.retried:,} retried, {counts.lost:,} lost"
    )
