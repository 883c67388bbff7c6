"""What the shared demo says of its figures."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from loadwise.cli.demo.figures import Latency
from loadwise.cli.demo.shared.figures import ClientFigures, QuotaFigures, SharedFigures
from loadwise.cli.demo.shared.news import Message, Outage
from loadwise.cli.demo.shared.report import summarise, verdict

LATENCY = Latency(0.01, 0.008, 0.02, 0.06)
DOWN = Message("doomed", "UNHEALTHY", "A", 2.0, "B", 0.0015)
BACK = Message("doomed", "RECOVERING", "B", 4.0, "A", 0.002)
OUTAGE = Outage("doomed", "A", 0.03, {"A": 2, "B": 1}, (DOWN,), (BACK,), ())
SCARCE = QuotaFigures("fast-1", 40, 184, 40, {"A": 21, "B": 25})
FIGURES = SharedFigures(
    strategy="p2c",
    seconds=6.0,
    sent=3000,
    answered=3000,
    retried=40,
    lost=0,
    why_lost=None,
    unaccounted=0,
    died_on_the_way=0,
    window=1.0,
    clients=tuple(ClientFigures(name, 1500, 20, 0, 21, LATENCY, 5, 6, 0) for name in "AB"),
    quotas=(SCARCE, QuotaFigures("slow", 750, 100, 30, {"A": 20, "B": 20})),
    outage=OUTAGE,
    messages=(DOWN, BACK),
)


def printed(figures: SharedFigures) -> str:
    """Return verdict and summary as one line."""
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        console.print(verdict(figures))
        summarise(console, figures)
    text = capture.get()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    return " ".join(text.split())


def test_summary_says_what_happened() -> None:
    """Quota, outage and return are told in sentences, with the numbers."""
    text = printed(FIGURES)
    assert FIGURES.is_good
    assert "No request was lost and no quota exceeded, and the servers' own logs agree." in text
    assert "fast-1 allows 40 requests in any 1 s. It never got more than 40" in text
    assert "have been free to send 40, so 80 in all" in text
    assert "fast-1 40 40 21 25 184" in text
    assert "A found doomed down 30.0 ms after the kill; B was told 1.5 ms later." in text
    assert "3 failed requests in all (A 2, B 1)" in text
    assert "B's request was the first to find it well; A was told 2.0 ms later." in text
    assert "2 changes of health" in text


def test_both_finding_out_is_no_news() -> None:
    """Where nobody was told, the report does not pretend that somebody was."""
    text = printed(replace(FIGURES, outage=replace(OUTAGE, down=())))
    assert "after the kill, and so did the other before it was told." in text
    assert "never found" not in text


def test_nobody_finding_out_is_told() -> None:
    """With too few requests for a finding, the report says so."""
    assert "too few requests came its way" in printed(replace(FIGURES, outage=None))


def test_bad_news_is_told() -> None:
    """Lost requests, unknown answers, exceeded quotas and clients in the dark are all reported."""
    lost = replace(FIGURES, answered=2999, lost=1, why_lost="ReadTimeout: timed out")
    unknown = replace(FIGURES, unaccounted=2)
    exceeded = replace(FIGURES, quotas=(replace(SCARCE, most=57),))
    away = replace(exceeded, clients=(replace(FIGURES.clients[0], outages=1), FIGURES.clients[1]))
    dark = replace(FIGURES, outage=replace(OUTAGE, uninformed=("B",)))
    assert not any(each.is_good for each in (lost, unknown, exceeded, away, dark))
    assert "1 lost. The first to be lost: ReadTimeout: timed out" in printed(lost)
    assert "the servers know nothing of 2 answers" in printed(unknown)
    assert "But fast-1 got 57 requests within 1 s, and allows 40." in printed(exceeded)
    assert "allows 40 (Valkey did not answer 1 time)." in printed(away)
    assert "But B was never told that doomed is down." in printed(dark)
    assert "own logs agree" not in printed(exceeded) + printed(dark)
