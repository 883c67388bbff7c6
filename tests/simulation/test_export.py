"""Comparisons for other programs: documented keys, valid JSON, the same bytes."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.simulation.results import result, summary

from loadwise.simulation.analysis.comparison import Comparison, compare
from loadwise.simulation.export import SCHEMA, json_text, to_csv, to_json
from loadwise.simulation.figures import LATENCIES
from loadwise.simulation.scenario import Clients, Scenario, Servers

PAGE = Path(__file__).resolve().parents[2] / "docs" / "simulation.md"
KEYED = Scenario(
    name="keyed",
    about="",
    servers=Servers(count=3, cache=20),
    clients=Clients(keys=50),
    requests=300,
)


def unknown() -> Comparison:
    """Return a comparison in which nothing was completed."""
    empty = summary("p2c", [math.nan] * 2, completed=0, failed=1000, throughput=0.0)
    return Comparison(KEYED, (empty,), ("It is over.",))


def paths(value: Any, path: str) -> Iterator[str]:
    """Yield every key of nested dicts and lists, as the documentation writes it."""
    if isinstance(value, list):
        for each in value:
            yield from paths(each, f"{path}[]")
    elif isinstance(value, dict):
        # Some are described as a whole: the scenario's, those with ids as keys, and estimates.
        if path in {"definition", "results[].share"} or set(value) == {"mean", "low", "high"}:
            yield path
            return
        for key, inner in value.items():
            yield from paths(inner, f"{path}.{key}" if path else key)
    else:
        yield path


def documented(heading: str) -> set[str]:
    """Return the first column of the table under a heading of the page."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n### {heading}\n")[1].split("\n## ")[0]
    rows = section.split("\n### ", maxsplit=1)[0]
    return {
        name
        for row in re.findall(r"^\| (`[^|]*) \|", rows, re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", row)
    }


def test_documentation_lists_exactly_the_keys() -> None:
    """Every key of the JSON has its row, and no row is about a key that is not there."""
    data = to_json(compare(KEYED, ["p2c", "consistent-hash"], seeds=2))
    assert set(paths(data, "")) == documented("JSON")


def test_documentation_lists_exactly_the_columns() -> None:
    """As for the keys, so for the columns of the CSV."""
    header = to_csv(unknown()).splitlines()[0].split(",")
    assert set(header) == documented("CSV")
    assert len(header) == len(set(header))


def test_what_the_schema_promises() -> None:
    """One entry per strategy and seed, in order, with the figures of the run."""
    comparison = compare(KEYED, ["p2c", "random"], seeds=2)
    data = to_json(comparison)
    assert (data["schema"], data["scenario"]) == (SCHEMA, "keyed")
    assert [(each["strategy"], each["seed"]) for each in data["results"]] == [
        ("p2c", 1),
        ("p2c", 2),
        ("random", 1),
        ("random", 2),
    ]
    first, run = data["results"][0], comparison.summaries[0].runs[0]
    assert first["arrived"] == 300
    assert first["completed"] + first["failed"] + first["dropped"] + first["in_flight"] == 300
    assert first["latency"]["p99"] == run.latency.p99
    assert first["share"] == run.share
    assert sum(first["share"].values()) == 1
    assert data["verdict"] == [*comparison.verdict]


def test_definition_makes_the_same_scenario_again() -> None:
    """Who has the file can repeat the runs."""
    import msgspec  # noqa: PLC0415 - used here only

    data = json.loads(json_text(compare(KEYED, ["p2c"], seeds=1)))
    assert msgspec.convert(data["definition"], Scenario) == KEYED


def test_unknown_is_null() -> None:
    """NaN is no JSON."""
    text = json_text(unknown())
    assert "NaN" not in text
    data = json.loads(text, parse_constant=lambda name: f"{name} is no JSON")
    assert data["results"][0]["latency"] == dict.fromkeys(
        (figure.name for figure in LATENCIES), None
    )
    assert data["summaries"][0]["latency"]["mean"] == {"mean": None, "low": None, "high": None}
    assert data["summaries"][0]["keys_moved"] is None


def test_one_seed_has_no_interval() -> None:
    """Its bounds are null, and its mean is there."""
    data = to_json(Comparison(KEYED, (summary("p2c", [2.0]),), ()))
    assert data["summaries"][0]["latency"]["mean"] == {"mean": 2.0, "low": None, "high": None}


def test_same_seeds_same_bytes() -> None:
    """Nothing of the machine or the time is in it."""
    texts = {json_text(compare(KEYED, ["p2c", "random"], seeds=2, jobs=jobs)) for jobs in (1, 1, 2)}
    assert len(texts) == 1
    assert "wall" not in texts.pop()


def test_csv_has_a_row_per_strategy_and_seed() -> None:
    """Numbers come back as they were, and what is unknown is empty."""
    comparison = compare(KEYED, ["p2c", "random"], seeds=2)
    rows = [*csv.DictReader(to_csv(comparison).splitlines())]
    assert [(row["strategy"], row["seed"]) for row in rows] == [
        ("p2c", "1"),
        ("p2c", "2"),
        ("random", "1"),
        ("random", "2"),
    ]
    run = comparison.summaries[1].runs[1]
    assert float(rows[3]["latency_p999"]) == run.latency.p999
    assert int(rows[3]["arrived"]) == run.arrived
    (empty, _) = csv.DictReader(to_csv(unknown()).splitlines())
    assert (empty["latency_mean"], empty["keys_moved"]) == ("", "")


def test_names_with_commas_are_quoted() -> None:
    """A function may be called anything."""
    odd = result('a, "b"')
    text = to_csv(Comparison(KEYED, (summary(odd.strategy, [1.0]),), ()))
    assert next(csv.DictReader(text.splitlines()))["strategy"] == 'a, "b"'
