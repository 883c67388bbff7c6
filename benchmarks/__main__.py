"""Measures what loadwise costs: ``python -m benchmarks``, from the repository's root.

Prints Markdown tables, and in the end writes each of them and all figures into a folder:
``NAME.md`` for the documentation, and a file in pyperf's format with every turn. A run with fewer
turns or subjects has a folder of its own, and one that is interrupted writes nothing, so that what
the documentation takes is from a whole run.

    python -m benchmarks --quick
    python -m benchmarks --only select,floors
    python -m benchmarks --peers
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.model import FULL, QUICK, Figure, Scale, Subject, Table, Target

import loadwise

FOLDER = Path(".benchmarks")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure what loadwise costs."
    )
    parser.add_argument("--quick", action="store_true", help="fewer sizes and turns: a minute")
    parser.add_argument("--peers", action="store_true", help="the peers that are installed")
    parser.add_argument("--only", help="some of the subjects, by name, with commas in between")
    parser.add_argument(
        "--out",
        type=Path,
        help=f"where to write (default: {FOLDER}, with --quick or --only a folder in there)",
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    options = parser.parse_args(arguments)
    # The peers' environment has not what the others need, nor the other way round.
    registry = import_module("benchmarks.peers" if options.peers else "benchmarks.registry")
    subjects: dict[str, Subject] = registry.SUBJECTS
    chosen = list(subjects)
    if options.only is not None:
        chosen = list(dict.fromkeys(name.strip() for name in options.only.split(",")))
    unknown = [repr(name) for name in chosen if name not in subjects]
    if unknown:
        parser.error(f"no such subject: {', '.join(unknown)}; there are {', '.join(subjects)}")
    part = "quick" if options.quick else "" if options.only is None else "only"
    out: Path = options.out or FOLDER / part
    out.mkdir(parents=True, exist_ok=True)
    scale = QUICK if options.quick else FULL
    began = monotonic()
    kind = "peers" if options.peers else "own"
    print(heading(scale), flush=True)
    tables: list[Table] = []
    figures: list[Figure] = []
    targets: list[Target] = []
    for name in chosen:
        result = subjects[name](scale)
        for table in result.tables:
            show(table)
        tables += result.tables
        figures += result.figures
        targets += result.targets
    if targets:
        tables.append(scorecard(f"targets-{kind}", targets))
        show(tables[-1])
    (out / f"run-{kind}.md").write_text(f"{heading(scale)}\n", encoding="utf-8")
    for table in tables:
        (out / f"{table.name}.md").write_text(table.markdown(), encoding="utf-8")
    write(figures, out / f"{kind}.json")
    print(f"\n{monotonic() - began:.0f} s; written to {out}/")
    return 1 if options.check and not all(target.met for target in targets) else 0


def heading(scale: Scale) -> str:
    """Return what is run, in one sentence."""
    return (
        f"Measured with loadwise {loadwise.__version__} on {platform.python_implementation()} "
        f"{platform.python_version()}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} processors; up to {scale.turns} turns a figure."
    )


def show(table: Table) -> None:
    """Print a table."""
    print(f"\n### {table.title}\n\n{table.markdown()}", end="", flush=True)


def scorecard(name: str, targets: Sequence[Target]) -> Table:
    """Return the table of targets, those missed first."""
    ordered = sorted(targets, key=lambda target: target.met)
    rows = tuple(
        (target.what, target.hoped, target.found, "yes" if target.met else "no")
        for target in ordered
    )
    met = sum(target.met for target in targets)
    note = f"{met} of {len(targets)} are met."
    return Table(name, "Targets", ("what", "target", "found", "met"), rows, note)


def write(figures: Sequence[Figure], path: Path) -> None:
    """Write every turn of every figure in pyperf's format."""
    pyperf: Any = import_module("pyperf")  # comes without types
    common = {
        "loadwise_version": loadwise.__version__,
        "python_implementation": platform.python_implementation().lower(),
        "python_version": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}",
    }
    benchmarks = [
        pyperf.Benchmark(
            [
                pyperf.Run(
                    figure.values,
                    metadata=common | {"name": figure.name, "unit": figure.unit},
                    collect_metadata=False,
                )
            ]
        )
        for figure in figures
    ]
    pyperf.BenchmarkSuite(benchmarks).dump(str(path), replace=True)


if __name__ == "__main__":
    sys.exit(main())
