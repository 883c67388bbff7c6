"""The page as text: complete, self-contained, and safe whatever things are called."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped] # it has no types
from tests.simulation.report.made import STRATEGIES, few_servers, hostile, many_servers

from loadwise.simulation.analysis.comparison import Comparison
from loadwise.simulation.report import render
from loadwise.simulation.report.toml_text import toml_of

ATTACK = "</script><script>alert(1)</script>"


class _Page(HTMLParser):
    """Notes the elements of a page and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    @property
    def data(self) -> Any:
        """What the charts are made of."""
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def page() -> str:
    """The report on few servers."""
    return render(few_servers())


def test_all_sections_are_there(page: str) -> None:
    """Title, verdict, table, charts, scenario and notes, and the strategies by name."""
    comparison = few_servers()
    elements = _Page(page).elements
    charts = [attributes["data-chart"] for tag, attributes in elements if tag == "figure"]
    assert charts == ["quantiles", "latency", "failures", "load", "queue", "health"]
    identities = {attributes.get("id") for _, attributes in elements}
    assert {"verdict", "figures", "caption", "strategy", "toml", "notes"} <= identities
    assert f"<h1>{comparison.scenario.name}</h1>" in page
    assert html.escape(toml_of(comparison.scenario)) in page
    assert all(html.escape(sentence) in page for sentence in comparison.verdict)
    for name in STRATEGIES:
        assert f'<th scope="row">{name}</th>' in page
        assert f">{name}</option>" in page


def test_every_chart_has_words(page: str) -> None:
    """Each chart has a label, and each says in a sentence what it shows, per strategy, too."""
    found = _Page(page)
    plots = [attributes for _, attributes in found.elements if attributes.get("class") == "plot"]
    assert len(plots) == 6
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in plots)
    of_strategies = [chart for each in found.data["strategies"] for chart in each.values()]
    charts = [*found.data["charts"].values(), *of_strategies]
    assert len(charts) == 3 + 3 * len(STRATEGIES)
    assert all(words.endswith(".") for _, words in charts)


def test_nothing_is_fetched(page: str) -> None:
    """No element has an address but the empty icon, and the policy allows no request."""
    elements = _Page(page).elements
    addresses = [
        value
        for _, attributes in elements
        for name, value in attributes.items()
        if name in {"src", "href", "srcset", "action", "poster"}
    ]
    assert addresses == ["data:,"]
    [policy] = [each["content"] for _, each in elements if "http-equiv" in each]
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert "http" not in policy


def test_the_policy_names_the_scripts(page: str) -> None:
    """The two scripts that run, and no others, are those that the policy names by their hash."""
    _, *scripts = _Page(page).scripts
    named = re.findall(r"'sha256-([^']+)'", page)
    assert named == [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    ]
    assert scripts[0] == get_plotlyjs()


@pytest.mark.parametrize(
    "attack", [ATTACK, '"><img src=x onerror=alert(1)>', "<!--<script>", "$title ${data} &lt;b>"]
)
def test_names_are_only_text(attack: str) -> None:
    """Whatever scenario, strategies and verdict are called, the page has the same elements."""
    attacked, plain = _Page(render(hostile(attack))), _Page(render(hostile("plain")))
    assert [tag for tag, _ in attacked.elements] == [tag for tag, _ in plain.elements]
    assert not any("onerror" in attributes for _, attributes in attacked.elements)
    assert len(attacked.scripts) == 3
    escaped = html.escape(attack, quote=False)
    assert {trace.get("name") for trace in attacked.data["charts"]["quantiles"][0]["data"]} == {
        None,  # a band
        escaped,
    }


@pytest.mark.parametrize("made", [few_servers, many_servers])
def test_the_same_comparison_gives_the_same_page(made: Any) -> None:
    """There is no date, no chance and no order of sets in it."""
    comparison: Comparison = made()
    assert render(comparison) == render(comparison)


def test_the_size(page: str) -> None:
    """Most of the page is the library; what the runs add is small."""
    assert len(page) - len(get_plotlyjs()) < 400_000


def test_one_seed_claims_nothing() -> None:
    """Without intervals there is neither a spread, nor a star, nor a band."""
    page = render(many_servers())
    assert "Of one seed, so without intervals." in page
    assert "±" not in page.split("<table", 1)[1].split("</table>")[0]
    assert 'class="best"' not in page
    traces = _Page(page).data["charts"]["quantiles"][0]["data"]
    assert [trace["name"] for trace in traces] == ["p2c"]
