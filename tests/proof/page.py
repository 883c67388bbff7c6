"""docs/proof.md, made of the rows."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from tests.proof.row import Row, measured
from tests.proof.rows import ROWS
from tests.proof.sources import SOURCES

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).parents[2] / "docs" / "proof.md"

OPENING = """\
<!-- Made by `make proof` from tests/proof/; changes made here are lost. -->

# Proof

Are the simulator's results right, and do the strategies do what theory says of them? This page
compares what the code does with theory and with other simulations. Every line is a test. It runs
with the code that ships, and fails when the measured value is further off than the tolerance.

**What this proves.** Where a fleet is simple enough for a formula, the simulator and the
strategies give what the formula says, within the tolerance. Simple means: servers that are alike,
requests that arrive independently, and no faults. A second simulator, written separately on top
of [simpy](https://simpy.readthedocs.io), agrees request by request, also on queue limits,
timeouts and crashes (`tests/simulation/runs/test_oracle.py`).

**What it does not prove.** It does not prove that your fleet is like the scenario that describes
it. There are no formulas for retries, health tracking, quotas, delays between zones or bursts.
They are tested one by one, not proven here. The best strategy of a table is the best for that
table.

**How to read it.** Times are in mean service times, so 1 is a request that never waits. Most
values are means over runs with different seeds, and chance makes them differ from the expected
value. The tolerance is also given in standard errors of that mean, found from how much the runs
differ. With it stands how often a correct program would miss it with other seeds (by Student's
t). The seeds are fixed, so this page is the same on every machine. They are the same for all
rows, so the chance of one seed shows in several rows alike. Unless a row says otherwise,
statistics begin when the effect of the empty start has fallen below 0.1 %: after seven relaxation
times or more.
"""


def page() -> str:
    """Return the whole page; measures what has not been measured."""
    parts = [OPENING]
    for chapter, rows in groupby(ROWS, lambda row: row.chapter):
        parts.append(
            f"## {chapter}\n\n"
            "| what | expected | measured | tolerance | why this tolerance | source |\n"
            "|---|---|---|---|---|---|\n" + "".join(map(line, rows))
        )
    cited = sorted({source for row in ROWS for source in row.sources})
    parts.append("## Sources\n\n" + "".join(f"- {name}: {SOURCES[name]}\n" for name in cited))
    return "\n".join(parts)


def line(row: Row) -> str:
    """Return a row as a line of a table."""
    expected, found = row.expected(), measured(row)
    allowed = f"{row.tolerance:.0%}".replace("%", " %") if row.tolerance else "none"
    cells = [
        row.what,
        number(expected),
        number(found.value),
        allowed,
        why(row, expected),
        ", ".join(row.sources),
    ]
    return f"| {' | '.join(cells)} |\n"


def number(value: float) -> str:
    """Return a value as the page shows it: three digits after the point, or more if it is small."""
    return f"{value:.3f}" if value >= 0.01 or not value else f"{value:.5f}"


def why(row: Row, expected: float) -> str:
    """Return the reason for a tolerance: chance, and what else there is."""
    found = measured(row)
    if not found.error:
        return row.reason
    allowed = row.tolerance * expected
    chance = (
        f"{allowed / found.error:.1f} standard errors of {found.runs} runs, which chance exceeds "
        f"{once_in(found.risk(allowed))}"
    )
    return f"{chance}; {row.reason}" if row.reason else chance


def once_in(risk: float) -> str:
    """Return a small probability in words, with one digit: 0.0234 is once in 40."""
    if risk < 1e-6:
        return "less than once in a million"
    return f"once in {float(f'{1 / risk:.0e}'):,.0f}"
