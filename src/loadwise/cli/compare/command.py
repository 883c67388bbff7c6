"""The options of ``loadwise compare`` and their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loadwise.cli.exit_codes import exit_codes
from loadwise.cli.options import simulation_extra, whole_number

__all__ = ["HELP", "compare"]

HELP = f"""Which strategy suits this fleet? Simulate them all and see.

The real strategies, health tracking, quotas and retries run in virtual
time, on a fleet that a scenario describes: a bundled one (see loadwise
scenarios) or a TOML file of yours. Each strategy is given the same
requests, with several seeds, and a verdict says no more than the
differences support.

To install all that it needs: pip install 'loadwise\\[cli,simulation]'

{
    exit_codes(
        "All was simulated and written.",
        "Something could not be simulated or written, or a package is missing.",
    )
}

[bold]Examples[/bold]

[cyan]loadwise compare slow-node[/cyan]  (the scenario's own strategies)
[cyan]loadwise compare supermarket -s random -s p2c --seeds 10[/cyan]  (two, more seeds)
[cyan]loadwise compare black-hole -s p2c -s p2c/no-health[/cyan]  (is health tracked?)
[cyan]loadwise compare ./mine.toml --set load=0.9 --set servers.count=40[/cyan]  (what if)
[cyan]loadwise compare homogeneous --fleet fleet.toml[/cyan]  (a fleet that runs)
[cyan]loadwise compare flapping --json out.json --csv out.csv[/cyan]  (for a script)
[cyan]loadwise compare llm-fleet --html report.html --trace calls.csv \\
    --time TIMESTAMP --cost ContextTokens,GeneratedTokens[/cyan]  (recorded traffic)
[cyan]loadwise compare llm-prefix --trace conversations.jsonl[/cyan]  (recorded prompts)
"""


def _factor(text: object) -> float:
    try:
        number = float(str(text))
    except ValueError:
        number = 0.0
    if not 0 < number <= 1e6:  # noqa: PLR2004 - as the speed of a trace in a scenario
        raise typer.BadParameter(f"{text!r} is not a factor above 0, such as 2 or 0.5.")
    return number


def compare(  # noqa: PLR0913 - one argument per option
    *,
    scenario: Annotated[
        str,
        typer.Argument(
            metavar="SCENARIO",
            help="Name of a bundled scenario, or path of a TOML file.",
            show_default=False,
        ),
    ],
    fleet: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Simulate the fleet of this file, as loadwise.config reads it: its nodes, "
            "strategy, health and limits in the place of the scenario's.",
        ),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            "-s",
            metavar="NAME",
            help="A strategy, such as p2c or least-load; NAME/no-health runs it without health "
            "tracking, NAME/outliers with outlier ejection, NAME/slow-start with slow start. May "
            "be given several times. By default those of the scenario.",
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            metavar="N",
            parser=whole_number(1, 10_000, "5 are usual, and more tell smaller differences"),
            help="Runs of each strategy, with the seeds 1 to N.",
        ),
    ] = 5,
    requests: Annotated[
        int | None,
        typer.Option(
            "--requests",
            "-n",
            metavar="N",
            parser=whole_number(1, 20_000_000, "a run must end and fit into memory"),
            help="Requests per run. By default as many as the scenario or the trace has.",
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Play the requests recorded in this file: CSV, or prompts as JSONL in the format "
            "of Mooncake, which take no --time.",
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Its column of arrival times: seconds, or dates."),
    ] = None,
    cost: Annotated[
        str | None,
        typer.Option(
            metavar="COL,COL",
            help="Its columns of tokens read and written, or its column of service times in "
            "seconds.",
        ),
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(
            metavar="X", parser=_factor, help="How many times faster than recorded to play it."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a value of the scenario. May be given several times.",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            metavar="N",
            parser=whole_number(1, 1024, "each is a process"),
            help="Runs at a time. By default as many as there are CPUs.",
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the figures of all runs as JSON."),
    ] = None,
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write one row per strategy and seed."),
    ] = None,
    html_file: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a report to look at in a browser."),
    ] = None,
) -> None:
    """Read the options, and carry them out."""
    report = None
    with simulation_extra():
        from loadwise.cli.compare.checked_options import (  # noqa: PLC0415 - needs another extra
            Recorded,
            ScenarioSource,
            prepare,
        )
        from loadwise.cli.compare.output_files import Targets  # noqa: PLC0415 - as above
        from loadwise.cli.compare.run import run_compare  # noqa: PLC0415 - as above

        if html_file is not None:
            from loadwise.simulation.report import write_report  # noqa: PLC0415 - as above

            report = write_report
    request = prepare(
        ScenarioSource(scenario, fleet, settings or []),
        strategy or [],
        Recorded(trace, time, cost, speed),
        Targets(json_file, csv_file, html_file),
        requests=requests,
        seeds=seeds,
        jobs=jobs,
    )
    raise typer.Exit(run_compare(request, report))
