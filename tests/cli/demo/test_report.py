"""The demo's figures and what it says of them."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from loadwise.cli.demo.figures import Figures, LatencyFigures, ServerFigures
from loadwise.cli.demo.plan import DemoPlan
from loadwise.cli.demo.report import compare, summarise, verdict

LATENCY = LatencyFigures(0.01, 0.008, 0.02, 0.06)


def server(name: str, share: float, **changes: object) -> ServerFigures:
    """A server's part in a run of 1,000 requests."""
    figures = ServerFigures(
        name=name,
        answered=int(1000 * share),
        own_count=int(1000 * share),
        share=share,
        latency=LATENCY,
        failed_attempts=0,
        health="HEALTHY",
        out_at=None,
        back_at=None,
        probes_answered=0,
        answered_since_back=0,
    )
    return replace(figures, **changes)  # type: ignore[arg-type]  # the caller names the fields


def run_of(strategy: str = "random", *, slow: float = 0.2, mean: float = 0.01) -> Figures:
    """A run in which flaky came back and doomed did not."""
    return Figures(
        strategy=strategy,
        seconds=4.0,
        sent=1000,
        answered=1000,
        retried=3,
        retries=4,
        lost=0,
        why_lost=None,
        caught=1,
        unaccounted=0,
        died_on_the_way=0,
        latency=replace(LATENCY, mean=mean),
        servers=(
            server("slow", slow),
            server("flaky", 0.1, out_at=1.0, back_at=3.0, probes_answered=1, failed_attempts=2),
            server("doomed", 0.1, out_at=2.0, health="RECOVERING", failed_attempts=1),
        ),
        health_changes=(),
    )


def printed(figures: Figures) -> str:
    """Return a run's summary as one line."""
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        console.print(verdict(figures))
        summarise(console, figures, DemoPlan(1000, 16, 1))
    text = capture.get()
    assert max(map(len, text.splitlines())) <= 80
    return " ".join(text.split())


def test_percentiles_are_by_the_nearest_rank() -> None:
    """Of 1..100 ms the median is the 50th, p90 the 90th, p99 the 99th; the mean 50.5."""
    latency = LatencyFigures.of(n / 1000 for n in range(100, 0, -1))
    assert latency.mean == pytest.approx(0.0505)
    assert (latency.p50, latency.p90, latency.p99) == (0.05, 0.09, 0.099)
    assert LatencyFigures.of([0.007]) == LatencyFigures(0.007, 0.007, 0.007, 0.007)
    assert LatencyFigures.of([]) == LatencyFigures(None, None, None, None)


def test_summary_says_what_happened() -> None:
    """Shares, retries and returns are told in sentences, and a node still out is not hidden."""
    text = printed(run_of())
    assert "slow got 20.0% of the traffic; an equal share would have been 33%" in text
    assert "1 request in flight" in text
    assert "flaky failed 2 times, doomed 1 time" in text
    assert "flaky got one probe every 0.2 s while it was out. 1 answered probe brought" in text
    assert "doomed was still RECOVERING when the run ended" in text
    assert "1.0 s - 3.0 s" in text
    assert "2.0 s - end" in text
    assert "No request was lost, and the servers' own logs agree." in text


def test_bad_news_is_told() -> None:
    """Lost requests, answers without a record and answers that never arrived are all reported."""
    lost = printed(replace(run_of(), lost=2, answered=998, why_lost="TimeoutError: timed out"))
    assert "2 lost. The first to be lost: TimeoutError: timed out" in lost
    assert "No request was lost" not in lost
    unaccounted = printed(replace(run_of(), unaccounted=4))
    assert "the servers know nothing of 4 answers" in unaccounted
    assert "own logs agree" not in unaccounted
    assert "1 answer never arrived" in printed(replace(run_of(), died_on_the_way=1))


def test_comparison_ranks_by_lost_requests_then_mean_latency() -> None:
    """The best is the one that lost least and, among those, was quickest on average."""
    quick_but_lossy = replace(run_of("random", mean=0.001), lost=1)
    runs = [
        quick_but_lossy,
        run_of("round-robin", mean=0.02),
        run_of("least-load-peak-ewma", slow=0.01, mean=0.009),
    ]
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        compare(console, runs)
    text = capture.get()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    names = [
        line.split()[0] for line in text.splitlines() if "%" in line and "did best" not in line
    ]
    names = names[: len(runs)]
    assert names == ["least-load-peak-ewma", "round-robin", "random"]
    sentence = " ".join(text.split())
    assert "least-load-peak-ewma did best: 9.0 ms per request on average" in sentence
    assert "it got 1.0% of the traffic from the one, 20.0% from the other" in sentence
