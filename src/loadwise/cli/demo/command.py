"""``loadwise demo``: real requests over real sockets to real processes, some of which fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.text import Text

from loadwise.cli.demo.choices import CHOICES
from loadwise.cli.demo.figures import Figures, figures_of
from loadwise.cli.demo.fleet import Fleet
from loadwise.cli.demo.plan import Plan
from loadwise.cli.demo.report import compare, summarise, verdict
from loadwise.cli.demo.run import Run
from loadwise.cli.demo.stage import Record, staged
from loadwise.cli.demo.view import introduce, watching

__all__ = ["run_demo"]

_TICK = 0.1
_NARROWEST = 76


def run_demo(
    choices: Sequence[str],
    plan: Plan,
    *,
    plain: bool = False,
    json_file: Path | None = None,
) -> int:
    """Run the demo with each of the strategies, and return the exit code.

    Args:
        choices: Names of strategies, as `choose` returns them.
        plan: What to run.
        plain: Whether to show lines only, as when standard output is no terminal.
        json_file: Where to write the figures.

    Returns:
        0 when every request of every run was answered, 1 otherwise, 130 when interrupted.
    """
    console = Console()
    drawable = console.is_terminal and not console.is_dumb_terminal and console.width >= _NARROWEST
    live = drawable and not plain

    def perform() -> tuple[bool, Record]:
        results: list[Figures] = []
        for place, choice in enumerate(choices, start=1):
            of = f" (run {place} of {len(choices)})" if len(choices) > 1 else ""
            results.append(_run_one(console, choice, plan, title=of, live=live))
        if len(results) == 1:
            summarise(console, results[0], plan)
        else:
            compare(console, results)
        good = not any(figures.lost or figures.unaccounted for figures in results)
        return good, {"runs": [asdict(figures) for figures in results]}

    return staged(perform, plan, json_file)


def _run_one(console: Console, choice: str, plan: Plan, *, title: str, live: bool) -> Figures:
    console.print()
    console.print(Text.assemble((f"{choice}{title}: ", "bold cyan"), CHOICES[choice]))
    with Fleet(plan.seed) as fleet:
        console.print(
            f"{plan.requests:,} requests by {plan.concurrency} clients to {len(fleet)} servers, "
            f"seed {plan.seed}",
            highlight=False,
        )
        introduce(console, fleet)
        run = Run(fleet, choice, plan)
        with watching(console, run, live=live) as show:
            run.play(show, _TICK)
    figures = figures_of(run)
    console.print(verdict(figures))
    return figures
