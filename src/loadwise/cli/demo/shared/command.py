"""``loadwise demo --shared``: one run, from the first process to the verdict."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.text import Text

from loadwise.cli.demo.choices import CHOICES
from loadwise.cli.demo.fleet import Fleet
from loadwise.cli.demo.plan import Plan
from loadwise.cli.demo.shared.figures import SharedFigures, figures_of
from loadwise.cli.demo.shared.quota import SCARCE, WINDOW, limits_of
from loadwise.cli.demo.shared.report import summarise, verdict
from loadwise.cli.demo.shared.run import CLIENTS, SharedRun
from loadwise.cli.demo.stage import Record, staged
from loadwise.cli.demo.view import LinesView, introduce

__all__ = ["run_shared"]

_TICK = 0.05


def run_shared(choice: str, plan: Plan, *, json_file: Path | None = None) -> int:
    """Run the demo with two client processes, and return the exit code.

    Args:
        choice: Name of a strategy, as `choose` returns it.
        plan: What to run.
        json_file: Where to write the figures.

    Returns:
        0 when every request was answered and every quota kept, and both processes were told of
        the server that was killed; 1 otherwise, 130 when interrupted.
    """
    console = Console()

    def perform() -> tuple[bool, Record]:
        figures = _run(console, choice, plan)
        summarise(console, figures)
        return figures.is_good, {"shared": asdict(figures)}

    return staged(perform, plan, json_file)


def _run(console: Console, choice: str, plan: Plan) -> SharedFigures:
    console.print()
    console.print(Text.assemble((f"{choice}, shared: ", "bold cyan"), CHOICES[choice]))
    with Fleet(plan.seed) as fleet, SharedRun(fleet, choice, plan) as run:
        console.print(
            f"{plan.requests:,} requests by {len(CLIENTS)} processes to {len(fleet)} servers, "
            f"seed {plan.seed}; {SCARCE} allows {limits_of(plan)[SCARCE]} in any {WINDOW:g} s",
            highlight=False,
        )
        introduce(console, fleet, *run.others())
        view = LinesView(console, run)
        run.play(view.show, _TICK)
    figures = figures_of(run)
    console.print(verdict(figures))
    return figures
