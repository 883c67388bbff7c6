"""Prints the tables of bad days and writes them into the documentation.

``python -m tests.bad_days``. The tables of docs/health.md come first, then those of
docs/bad-days.md, which are simulated in as many processes as there are processors.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.bad_days import side_by_side, simulated, table

from loadwise.simulation.runs.batch import Progress


def write(page: Path, lines: Iterable[str]) -> None:
    """Print a table line by line, as it comes about, and put it into its page."""
    made = ""
    for line in lines:
        sys.stdout.write(line)
        sys.stdout.flush()
        made += line
    page.write_text(table.put_into(page.read_text(encoding="utf-8"), made), encoding="utf-8")


def tell(progress: Progress) -> None:
    """Show how many runs are done."""
    sys.stderr.write(f"\r{progress.done} of {progress.total} runs")
    sys.stderr.flush()


# Processes are spawned, and import this module again.
if __name__ == "__main__":
    # Each of these days is one long panic, and says so.
    logging.getLogger("loadwise").setLevel(logging.ERROR)
    write(table.PAGE, table.lines())
    sys.stdout.write("\n")
    cells = simulated.measure(jobs=os.cpu_count() or 1, progress=tell)
    sys.stderr.write("\n")
    write(side_by_side.PAGE, side_by_side.lines(cells))
