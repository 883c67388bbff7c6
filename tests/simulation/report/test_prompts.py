"""The charts of prompts: times to first token, and what was cached."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tests.simulation.report.made import OF_PROMPTS, few_servers, prompts
from tests.simulation.results import latency, summary

from loadwise.simulation.analysis.comparison import Comparison
from loadwise.simulation.report.page import render
from loadwise.simulation.report.prompts import cached, first_tokens
from loadwise.simulation.runs.result import QUANTILES

TIMES = tuple(1.0 + rank for rank in QUANTILES)


def made(**hits: list[float]) -> Comparison:
    """Return strategies that found so much cached, by seed."""
    return replace(
        few_servers(),
        summaries=tuple(
            summary(
                name,
                [1.0] * len(found),
                quantiles=TIMES,
                ttft=latency(0.5),
                ttft_quantiles=tuple(time / 10 for time in TIMES),
                tpot=0.03,
                cache_hit=found,
            )
            for name, found in hits.items()
        ),
    )


def test_times_to_first_token_are_ranked() -> None:
    """The line is that of first tokens, not of whole answers, and the words, too."""
    found = first_tokens(made(p2c=[0.25]))
    assert found is not None
    figure, words = found
    [trace] = figure["data"]
    assert trace["name"] == "p2c"
    assert trace["y"] == pytest.approx([time / 10 for time in TIMES], rel=1e-3)
    assert words.startswith("At the median 350 ms;")


def test_what_was_cached_is_a_row_each() -> None:
    """The mark is the mean over seeds in percent, its line goes from the least to the greatest."""
    found = cached(made(blind=[0.08, 0.10], warm=[0.20, 0.30]))
    assert found is not None
    figure, words = found
    blind, warm = figure["data"]
    assert (blind["x"], blind["y"]) == ([9.0], ["blind"])
    assert (warm["x"], warm["meta"]) == ([25.0], 1)
    assert (warm["error_x"]["array"], warm["error_x"]["arrayminus"]) == ([5.0], [5.0])
    assert warm["error_x"]["visible"]
    assert words == "From 9 % (blind) to 25 % (warm)."


def test_one_strategy_and_one_seed_claim_nothing() -> None:
    """There is no range of one seed, and no comparison of one strategy."""
    found = cached(made(warm=[0.25]))
    assert found is not None
    figure, words = found
    assert not figure["data"][0]["error_x"]["visible"]
    assert words == "25 % on average."


def test_they_are_on_pages_of_prompts_only() -> None:
    """Where servers compute no prompts there is neither a chart nor a place for it."""
    assert first_tokens(few_servers()) is None
    assert cached(few_servers()) is None
    assert 'data-chart="cached"' not in render(few_servers())
    page = render(prompts())
    order = [page.index(f'data-chart="{name}"') for name in ("quantiles", "first-tokens", "cached")]
    assert sorted(order) == order
    data = page.split('id="data">', 1)[1].split("</script>", 1)[0]
    charts = json.loads(data)["charts"]
    assert [trace["name"] for trace in charts["cached"][0]["data"]] == [*OF_PROMPTS]
