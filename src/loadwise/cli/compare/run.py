"""Carries out ``loadwise compare``: simulate, show, write."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.text import Text

from loadwise._text import visible, visible_lines
from loadwise.cli.compare.checked_options import ComparisonRequest
from loadwise.cli.compare.output_files import Write, write_all
from loadwise.cli.compare.progress import watching
from loadwise.cli.compare.table import show_tables, show_verdict
from loadwise.cli.exit_codes import FAILED, INTERRUPTED, interruptible
from loadwise.errors import LoadwiseError
from loadwise.simulation.analysis.comparison import compare
from loadwise.simulation.scenario.fleet import server_groups

__all__ = ["run_compare"]


def run_compare(request: ComparisonRequest, write_report: Write | None = None) -> int:
    """Compare, print the results, and write the files that are asked for.

    Args:
        request: Strategies to compare, and how.
        write_report: Writes the report, where one is asked for.

    Returns:
        0 when all went well, 1 when it could not be simulated or written, 130 when interrupted.
    """
    console = Console()
    written: list[str] = []
    try:
        with interruptible():
            _introduce(console, request)
            total = len(request.strategies) * request.seeds
            with watching(Console(stderr=True), total) as show:
                comparison = compare(
                    request.scenario,
                    request.strategies,
                    seeds=request.seeds,
                    jobs=request.jobs,
                    progress=show,
                )
            # Ahead of the tables, because a pipe to another command may take only a part of those.
            code = write_all(request.targets, comparison, write_report, written)
            show_tables(console, comparison)
            show_verdict(console, comparison.verdict)
            for line in written:
                console.print(line, markup=False, highlight=False, soft_wrap=True)
            return code
    except KeyboardInterrupt:
        sys.stderr.write(f"\nstopped; {', '.join(written) or 'nothing was written'}\n")
        return INTERRUPTED
    except (LoadwiseError, OSError, ValueError) as error:
        # A ValueError is what a strategy has for a fleet with which it cannot work.
        sys.stderr.write(visible_lines(f"the comparison cannot be made: {error}\n"))
        return FAILED


def _introduce(console: Console, request: ComparisonRequest) -> None:
    scenario = request.scenario
    name, about = visible(scenario.name), visible(" ".join(scenario.about.split()))
    console.print(Text.assemble((name, "bold cyan"), ": ", about))
    servers = sum(group.count for group in server_groups(scenario))
    runs = len(request.strategies) * request.seeds
    console.print(
        f"{_count(servers, 'server')}, {_count(scenario.requests, 'request')} per run, "
        f"{_count(len(request.strategies), 'strategy', 'strategies')}, "
        f"{_count(request.seeds, 'seed')}, {_count(runs, 'run')}, "
        f"{min(request.jobs, runs)} at a time\n",
        highlight=False,
    )


def _count(number: int, thing: str, things: str | None = None) -> str:
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"
