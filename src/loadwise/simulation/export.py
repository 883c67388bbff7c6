"""A comparison for other programs: as JSON with a versioned schema, and as CSV.

Both hold what came out and nothing of how long it took, so the same scenario, strategies and seeds
give the same bytes. Times are in seconds. The schema is described in ``docs/simulation.md``.
"""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import msgspec

from loadwise.simulation.analysis.comparison import Comparison
from loadwise.simulation.analysis.statistics import Estimate
from loadwise.simulation.analysis.summary import Summary
from loadwise.simulation.figures import FIGURES, FIRST_TOKENS, LATENCIES, TablePart
from loadwise.simulation.runs.result import COUNTS, Result

__all__ = ["SCHEMA", "json_text", "to_csv", "to_json"]

SCHEMA = 1
"""Version of the layout: a key that changes its meaning or goes makes a new one."""

_OF_RUNS = tuple(figure for figure in FIGURES if not figure.counted)
_BEFORE_LATENCY = tuple(figure for figure in _OF_RUNS if figure.part is TablePart.SERVICE)
_AFTER_LATENCY = tuple(figure for figure in _OF_RUNS if figure.part is not TablePart.SERVICE)


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON has it: dicts, lists, text, numbers and ``None``.

    A value that is unknown, such as the latency of a run without a completed request, is ``None``.

    Example:
        >>> from loadwise.simulation.analysis.comparison import compare
        >>> from loadwise.simulation.scenario import Scenario, Servers
        >>> scenario = Scenario(name="two", about="", servers=Servers(count=2), requests=500)
        >>> data = to_json(compare(scenario, ["p2c"], seeds=1))
        >>> data["schema"], data["scenario"], data["results"][0]["arrived"]
        (1, 'two', 500)
    """
    return {
        "schema": SCHEMA,
        "scenario": comparison.scenario.name,
        "definition": msgspec.to_builtins(comparison.scenario),
        "results": [_result(run) for each in comparison.summaries for run in each.runs],
        "summaries": [_summary(each) for each in comparison.summaries],
        "verdict": [*comparison.verdict],
    }


def json_text(comparison: Comparison) -> str:
    """Return `to_json` as text, which ends in a line break."""
    return json.dumps(to_json(comparison), indent=1, allow_nan=False) + "\n"


def to_csv(comparison: Comparison) -> str:
    """Return the runs as CSV: a header, then one row per strategy and seed.

    The columns are the keys of a result in `to_json`, but for the shares of the servers, and with
    ``latency_mean`` and so on for the latencies, and ``ttft_mean`` for the times to the first
    token. What is unknown is left empty.
    """
    rows = [_row(run) for summary in comparison.summaries for run in summary.runs]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows(row.values() for row in rows)
    return text.getvalue()


def _row(run: Result) -> dict[str, Any]:
    """Return a result without the shares, all of it on one level."""
    row: dict[str, Any] = {}
    for key, value in _result(run).items():
        if key in {"latency", "ttft"}:
            row |= {f"{key}_{name}": seconds for name, seconds in value.items()}
        elif key != "share":
            row[key] = value
    return row


def _result(run: Result) -> dict[str, Any]:
    return {
        "strategy": run.strategy,
        "seed": run.seed,
        **{name: getattr(run, name) for name in COUNTS},
        "seconds": _known(run.seconds),
        **{figure.name: _known(figure.of(run)) for figure in _BEFORE_LATENCY},
        "latency": {figure.name: _known(figure.of(run)) for figure in LATENCIES},
        "ttft": {figure.name: _known(figure.of(run)) for figure in FIRST_TOKENS},
        **{figure.name: _known(figure.of(run)) for figure in _AFTER_LATENCY},
        "share": {server: _known(share) for server, share in run.share.items()},
    }


def _summary(summary: Summary) -> dict[str, Any]:
    return {
        "strategy": summary.strategy,
        "seeds": [run.seed for run in summary.runs],
        "latency": {name: _estimate(each) for name, each in summary.latency.items()},
        "ttft": {figure.name: _estimate(summary.of(figure)) for figure in FIRST_TOKENS},
        **{name: _estimate(each) for name, each in summary.figures.items()},
    }


def _estimate(estimate: Estimate | None) -> dict[str, float | None] | None:
    if estimate is None:
        return None
    return {
        "mean": _known(estimate.mean),
        "low": _known(estimate.low),
        "high": _known(estimate.high),
    }


def _known(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
