"""Page of the report, made of its parts: one file with all that it needs, and nothing fetched."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs  # type: ignore[import-untyped] # it has no types

import loadwise
from loadwise.simulation.analysis.comparison import Comparison
from loadwise.simulation.report.chart_style import legend
from loadwise.simulation.report.faults import key
from loadwise.simulation.report.footnotes import notes
from loadwise.simulation.report.health import health, legend_of_states
from loadwise.simulation.report.overview import failures, latency_over_time, quantiles
from loadwise.simulation.report.prompts import cached, first_tokens
from loadwise.simulation.report.servers import FEW, load, queue
from loadwise.simulation.report.table import table
from loadwise.simulation.report.text import markup
from loadwise.simulation.report.toml_text import toml_of
from loadwise.simulation.report.views import views_of

__all__ = ["render"]


def render(comparison: Comparison) -> str:
    """Return the report as one HTML page; the same comparison gives the same page."""
    views = views_of(comparison)
    charts = {
        "quantiles": quantiles(comparison),
        "latency": latency_over_time(views),
        "failures": failures(views),
    }
    of_prompts = {"first-tokens": first_tokens(comparison), "cached": cached(comparison)}
    charts |= {name: chart for name, chart in of_prompts.items() if chart is not None}
    per_strategy = [
        {"load": load(view), "queue": queue(view), "health": health(view)} for view in views
    ]
    scenario, seeds = comparison.scenario, len(comparison.summaries[0].runs)
    names = [summary.strategy for summary in comparison.summaries]
    servers = list(views[0].timeline.queues)
    library, script = get_plotlyjs(), _asset("page.js")
    return Template(_asset("page.html")).substitute(
        title=markup(scenario.name),
        about=markup(scenario.about.strip()),
        verdict="".join(f"<p>{markup(sentence)}</p>" for sentence in comparison.verdict),
        run=markup(_run(comparison)),
        policy=f"script-src {_hash(library)} {_hash(script)}",
        style=_asset("page.css"),
        table=table(comparison),
        intervals=_intervals(seeds),
        strategies=legend(names, "strategies", dashed=True),
        prompts=_asset("prompts.html") if "first-tokens" in charts else "",
        faults=key(views[0].faults),
        seed=views[0].seed,
        options="".join(
            f'<option value="{index}">{markup(name)}</option>' for index, name in enumerate(names)
        ),
        servers=legend(servers, "servers", dashed=False) if len(servers) <= FEW else "",
        states=legend_of_states(),
        scenario=markup(toml_of(scenario)),
        notes="".join(f"<li>{markup(note)}</li>" for note in notes(comparison)),
        data=_json({"charts": charts, "strategies": per_strategy}),
        library=library,
        script=script,
    )


def _asset(name: str) -> str:
    return (files(__package__ or "") / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """Return what names a script in a content security policy: no other one may run."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _json(data: dict[str, Any]) -> str:
    """Return data as JSON that cannot end the script element that it stands in."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _run(comparison: Comparison) -> str:
    runs = comparison.summaries[0].runs
    strategies = len(comparison.summaries)
    return (
        f"{strategies} {'strategy' if strategies == 1 else 'strategies'}, "
        f"{len(runs)} {'seed' if len(runs) == 1 else 'seeds'}, "
        f"{runs[0].arrived:,} requests per run, loadwise {loadwise.__version__}"
    )


def _intervals(seeds: int) -> str:
    if seeds == 1:
        return "Of one seed, so without intervals."
    return (
        f"Means over {seeds} seeds, ± half of their 95 % confidence interval. ★ marks the best "
        "value, and those that cannot be told apart from it seed by seed."
    )
