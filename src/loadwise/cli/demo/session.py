"""The runs of a demo, one strategy after the other, on the screen."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from loadwise.cli.demo.choices import CHOICES
from loadwise.cli.demo.figures import Figures, figures_of
from loadwise.cli.demo.fleet import DemoFleet
from loadwise.cli.demo.plan import DemoPlan
from loadwise.cli.demo.report import compare, summarise, verdict
from loadwise.cli.demo.run import DemoRun
from loadwise.cli.demo.server import ServerError
from loadwise.cli.demo.view import introduce, watching

__all__ = ["ServerError", "run_all"]

_TICK = 0.1
_NARROWEST = 76


def run_all(choices: Sequence[str], plan: DemoPlan, *, plain: bool) -> list[Figures]:
    """Run each strategy, show what happens and what came of it, and return the figures."""
    console = Console()
    drawable = console.is_terminal and not console.is_dumb_terminal and console.width >= _NARROWEST
    results: list[Figures] = []
    for place, choice in enumerate(choices, start=1):
        of = f" (run {place} of {len(choices)})" if len(choices) > 1 else ""
        results.append(_run_one(console, choice, plan, title=of, live=drawable and not plain))
    if len(results) == 1:
        summarise(console, results[0], plan)
    else:
        compare(console, results)
    return results


def _run_one(console: Console, choice: str, plan: DemoPlan, *, title: str, live: bool) -> Figures:
    console.print()
    console.print(Text.assemble((f"{choice}{title}: ", "bold cyan"), CHOICES[choice]))
    with DemoFleet(plan.seed) as fleet:
        console.print(
            f"{plan.requests:,} requests by {plan.concurrency} clients to {len(fleet)} servers, "
            f"seed {plan.seed}",
            highlight=False,
        )
        introduce(console, fleet)
        run = DemoRun(fleet, choice, plan)
        with watching(console, run, live=live) as show:
            run.play(show, _TICK)
    figures = figures_of(run)
    console.print(verdict(figures))
    return figures
