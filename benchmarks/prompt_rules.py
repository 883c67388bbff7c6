"""Table of the rules for prompts on a recorded trace, measured by the simulator that ships.

``python -m benchmarks.prompt_rules whole TRACE --page docs/llm-simulation.md`` plays a trace in the
format of Mooncake with each strategy, at two speeds, and writes the table of that name into the
page. Without ``--page`` the table is printed. The tables differ in how servers compute prompts:
``whole``, ``chunked``, ``coupled``; or in the trace: ``azure``, from ``benchmarks.prompt_traces``.
``agents`` takes no trace: it is drawn, at two loads.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from loadwise.simulation import Summary, compare, load_scenario

__all__ = ["RULES", "TABLES", "measured", "placed"]

RULES = (
    "prefix-affinity",
    "scored-prefix",
    "lmetric",
    "dualmap",
    "cache-aware",
    "least-load/pending-tokens",
    "p2c/pending-tokens",
    "least-load",
    "round-robin",
)
"""Those that are compared."""

_SMALL_BLOCKS = ("requests=8000", "servers.llm.block_tokens=16", "servers.llm.blocks=16000")
_FAN_OUT = (
    "requests=8000",
    "service.branches=16",
    "service.systems=5",
    "service.document=12000",
    "service.message=500",
    "service.turns=2",
    "service.think=20",
)
TABLES: Mapping[str, tuple[tuple[float, float], tuple[str, ...]]] = MappingProxyType(
    {
        "whole": ((1.0, 1.5), ()),
        "chunked": ((1.0, 1.5), ("servers.llm.prefill=chunked",)),
        "coupled": ((1.0, 1.5), ("servers.llm.prefill=coupled",)),
        "azure": ((8.0, 10.0), _SMALL_BLOCKS),
        "agents": ((1.5, 3.0), _FAN_OUT),
    }
)
"""By name, the two speeds of the trace, or loads without one, and settings of ``llm-prefix``."""


def measured(
    name: str, trace: Path | None, seeds: int = 1, jobs: int = 1, rules: Sequence[str] = RULES
) -> str:
    """Return a table in Markdown, a row for each rule.

    Args:
        name: Which of `TABLES`.
        trace: JSONL file in the format of Mooncake, for those that play one.
        seeds: Runs of each rule and speed, 1 or more.
        jobs: Runs at a time.
        rules: Strategies by their names.
    """
    speeds, settings = TABLES[name]
    columns: list[Sequence[Summary]] = []
    for speed in speeds:
        if trace is None:
            played = [f"load={speed}"]
        else:
            played = ["arrivals.kind=prompts", f"arrivals.file={trace}", f"arrivals.speed={speed}"]
        scenario = load_scenario("llm-prefix", [*settings, *played])
        columns.append(compare(scenario, rules, seeds=seeds, jobs=jobs).summaries)
    usual, more = speeds
    again = f"at {more:g}, cached | first token | in all"
    lines = [
        f"| strategy | cached | first token, mean / p99 (s) | in all (s) | {again} |",
        "|---|---|---|---|---|---|---|",
    ]
    for one, other in zip(*columns, strict=True):
        lines.append(f"| `{one.strategy}` | {_cells(one, p99=True)} | {_cells(other, p99=False)} |")
    runs = "one seed" if seeds == 1 else f"the mean of {seeds} seeds"
    what = "load" if trace is None else "speed"
    return "\n".join([f"At {what} {usual:g}, and {more:g}; {runs}.", "", *lines]) + "\n"


def placed(page: str, name: str, table: str) -> str:
    """Return a page with a table in its place."""
    begin, end = f"<!-- measured: {name} -->\n", f"<!-- end of {name} -->\n"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{table}\n{end}{after}"


def _cells(summary: Summary, *, p99: bool) -> str:
    ttft, hit = summary.ttft, summary.cache_hit
    if ttft is None or hit is None:
        raise ValueError(f"{summary.strategy} was played without prompts")
    first = f"{ttft['mean'].mean:.2f}"
    if p99:
        first += f" / {ttft['p99'].mean:.1f}"
    return f"{100 * hit.mean:.1f} % | {first} | {summary.latency['mean'].mean:.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, or write it into a page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prompt_rules", description=__doc__)
    parser.add_argument("table", choices=sorted(TABLES))
    parser.add_argument("trace", type=Path, nargs="?", help="JSONL file in the format of Mooncake")
    parser.add_argument("--page", type=Path, help="page that has a place for it")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args(arguments)
    if (given.trace is None) != (given.table == "agents"):
        parser.error(f"{given.table} is {'drawn' if given.trace else 'of a trace'}")
    table = measured(given.table, given.trace, given.seeds, given.jobs)
    if given.page is None:
        sys.stdout.write(table)
        return
    # Read only now: a table takes minutes, and another may have been written meanwhile.
    page = given.page.read_text(encoding="utf-8")
    given.page.write_text(placed(page, given.table, table), encoding="utf-8")


if __name__ == "__main__":
    main()
