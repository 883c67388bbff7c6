"""The progress of a comparison: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from loadwise.simulation.runs.batch import Progress

__all__ = ["watching"]

_LINES = 10


@contextmanager
def watching(console: Console, total: int) -> Generator[Callable[[Progress], None], None, None]:
    """Show the progress as long as the block lasts; gives what to call after each run.

    Args:
        console: Where to show it: standard error, so that results can be piped.
        total: Runs that there are.
    """
    if not console.is_terminal or console.is_dumb_terminal:
        yield _Lines(console, total).show
        return
    columns = (
        SpinnerColumn(),
        BarColumn(24),
        MofNCompleteColumn(),
        TextColumn("runs, {task.description}"),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=total)

        def show(progress: Progress) -> None:
            last = f"last {progress.strategy}"
            bars.update(task, completed=progress.done, description=last)

        yield show


class _Lines:
    """A line for each tenth of the runs."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._step = -(-total // _LINES)
        self._began = time.monotonic()

    def show(self, progress: Progress) -> None:
        done, total = progress.done, progress.total
        if done % self._step and done < total:
            return
        left = (time.monotonic() - self._began) / done * (total - done)
        rest = f", about {left:.0f} s left" if done < total else ""
        self._console.print(f"{done} of {total} runs done{rest}", highlight=False)
