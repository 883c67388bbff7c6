"""The table in docs/health.md of what becomes of requests on bad days."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.bad_days import fleets

from loadwise.simulation import load_scenario, simulate

__all__ = ["PAGE", "lines", "put_into"]

PAGE = Path(__file__).parents[2] / "docs" / "health.md"
BEGIN = "<!-- The table of bad days, made by `make bad-days`; changes made here are lost. -->\n"
NO_PANIC = ("health.panic_threshold=none",)
END = "<!-- End of the table of bad days. -->\n"


def lines() -> Iterator[str]:
    """Measure, and give the table line by line as it comes about."""
    yield "| good answers, at one try / at three | no panic | no health | default | best |\n"
    yield "|---|---|---|---|---|\n"
    for day in fleets.FLEETS:
        cells = [
            " / ".join(percent(fleets.share(day.failing, tries, make)) for tries in (1, 3))
            for make in (fleets.without_panic, fleets.without_health, fleets.default)
        ]
        best = " / ".join(percent(fleets.best_possible(day.failing, tries)) for tries in (1, 3))
        yield f"| {day.name} | {' | '.join(cells)} | {best} |\n"
    yield "\n"
    yield "| lost of 6,000 requests at one try | no panic | no health | default |\n"
    yield "|---|---|---|---|\n"
    for dying, nodes in fleets.DEATHS:
        lost = [
            f"{fleets.lost_in_death(dying, nodes, make):,}"
            for make in (fleets.without_panic, fleets.without_health, fleets.default)
        ]
        yield f"| {dying} of {nodes} die under load | {' | '.join(lost)} |\n"
    yield "\n"
    yield "| lost of 20,000 requests in scenario `overload` | no panic | no health | default |\n"
    yield "|---|---|---|---|\n"
    for strategy in ("p2c", "round-robin"):
        shares = [
            percent(overload(f"{strategy}{option}", *settings))
            for option, settings in (("", NO_PANIC), ("/no-health", ()), ("", ()))
        ]
        yield f"| {strategy} | {' | '.join(shares)} |\n"


def overload(strategy: str, *settings: str) -> float:
    """Return the share of requests that are lost in the scenario `overload`, mean of two seeds."""
    scenario = load_scenario("overload", ["requests=20000", *settings])
    runs = [simulate(scenario, strategy=strategy, seed=seed) for seed in (1, 2)]
    return sum((run.failed + run.dropped) / run.arrived for run in runs) / len(runs)


def percent(value: float) -> str:
    """Return a share as the table shows it: a digit after the point where it is near to 100 %."""
    return f"{value * 100:.1f} %" if value >= 0.99 else f"{value * 100:.0f} %"


def put_into(page: str, table: str) -> str:
    """Return the page with the table in its place."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"the page has no place for the table: it lacks {BEGIN!r} or {END!r}")
    return f"{before}{BEGIN}{table}{END}{after}"
