"""The tables: legible in 80 columns, with units that suit and nothing cut."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console
from tests.simulation.results import summary

from loadwise._tables.contenders import STRATEGIES
from loadwise.cli.compare.table import show_tables, show_verdict
from loadwise.simulation.analysis.comparison import Comparison
from loadwise.simulation.analysis.summary import Summary
from loadwise.simulation.figures import LATENCIES
from loadwise.simulation.scenario import Scenario, Servers

SCENARIO = Scenario(name="test", about="", servers=Servers(count=2))


def printed(*summaries: Summary, encoding: str = "utf-8", width: int = 80) -> str:
    """Return the tables as a terminal of 80 columns shows them, or of another width."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=width)
    with console.capture() as capture:
        show_tables(console, Comparison(SCENARIO, summaries, ()))
    return capture.get()


def test_every_name_fits() -> None:
    """The longest names and the widest values leave every figure whole."""
    wide = [
        summary(
            f"{name}/no-health",
            [1234.5, 987.6],
            throughput=[1_234_567.8, 2_345_678.9],
            failed=[3, 400],
            retries=[2000, 1],
            keys_moved=[0.5, 0.6],
            cache_hits=[0.00001, 0.00002],
            unhealthy_picks=[1, 300],
            panic=[0.00001, 0.00002],
            imbalance=[100.0, 50.0],
        )
        for name in STRATEGIES
    ]
    text = printed(*wide)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for name in STRATEGIES:
        assert text.count(f"\n {name} ") == 3
    assert text.count("/no-health") == 3 * len(STRATEGIES)
    assert "1,790,123" in text


@pytest.mark.parametrize("width", [20, 40, 60])
def test_narrow_terminal_hides_nothing(width: int) -> None:
    """It breaks the lines itself; names and figures are all there."""
    wide = [
        summary(name, [1234.5, 987.6], throughput=12345.6, failed=[3, 400])
        for name in ("p2c", "round-robin-random-start/no-health")
    ]
    narrow = printed(*wide, width=width)
    assert "…" not in narrow
    assert narrow.split("±")[:-1] == printed(*wide).split("±")[:-1]


def test_units_adapt() -> None:
    """Each time has the unit that suits it, and its spread has the same."""
    text = printed(summary("quick", [0.000_51, 0.000_52]), summary("slow", [71.0, 71.2]))
    lines = text.splitlines()
    quick = next(line for line in lines if "quick" in line).split()
    assert quick[1:3] == ["515", "us"]
    slow = next(i for i, line in enumerate(lines) if "slow" in line)
    assert lines[slow].split()[1:3] == ["71.1", "s"]
    assert lines[slow + 1].split()[:2] == ["±1.3", "s"]


def test_affinity_and_health_only_where_they_matter() -> None:
    """Columns of nothing but zeros and blanks are left out."""
    assert "Affinity" not in printed(summary("p2c", [1.0, 1.1]))
    text = printed(summary("p2c", [1.0, 1.1], unhealthy_picks=[3, 4]))
    assert "unhealthy" in text
    assert "cache" not in text
    assert "panic" not in text
    assert "panic" in printed(summary("p2c", [1.0, 1.1], panic=[0.0, 0.5]))
    assert "cache" in printed(summary("p2c", [1.0, 1.1], keys_moved=0.1, cache_hits=0.3))


def test_one_seed_has_no_spread() -> None:
    """And no word about intervals."""
    assert "±" not in printed(summary("p2c", [1.0]))


def test_unknown_is_a_dash() -> None:
    """No latency, no number."""
    text = printed(summary("p2c", [math.nan, math.nan], completed=0, failed=1000))
    row = next(line for line in text.splitlines() if "p2c" in line)
    assert row.split()[1:] == ["-"] * len(LATENCIES)


def test_terminal_without_the_sign() -> None:
    """Plus and minus are two characters where there is no one for both."""
    text = printed(summary("p2c", [1.0, 1.1]), encoding="ascii")
    assert "+-0.64 s" in text
    assert text.isascii()


@pytest.mark.parametrize("width", [40, 80])
def test_verdict_is_wrapped_between_words(width: int) -> None:
    """No sentence is cut."""
    console = Console(file=io.StringIO(), width=width)
    sentences = ("one two three four five " * 10, "the end")
    with console.capture() as capture:
        show_verdict(console, sentences)
    text = " ".join(capture.get().split())
    assert text.startswith("Verdict - one two")
    assert text.count("one two three four five") == 10
    assert text.endswith("- the end")
