"""The simulator and the strategies do what theory and published values say: row by row."""

from __future__ import annotations

import pytest
from tests.proof.page import PAGE, page
from tests.proof.row import Row, measured
from tests.proof.rows import ROWS
from tests.proof.sources import SOURCES

MOST_RISK = 0.05
"""How often a faultless program may miss a row, were the seeds drawn at random."""


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.chapter[:11]}: {row.what}")
def test_row(row: Row) -> None:
    """What is measured is as close to what is expected as the row says; its source is the row's.

    The seeds are fixed. With others, chance alone would exceed the tolerance as often as the row's
    line in docs/proof.md says: once in 20 at most.
    """
    expected = row.expected()
    allowed = row.tolerance * expected
    found = measured(row)
    assert abs(found.value - expected) <= allowed
    assert found.risk(allowed) <= MOST_RISK, "the runs are too short for such a tolerance"


@pytest.mark.slow
def test_the_page_holds_these_rows() -> None:
    """docs/proof.md is what the rows give here and now, to the letter; else: make proof."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_sources_are_cited() -> None:
    """Every source named by a row is listed, and none is listed in vain."""
    assert {source for row in ROWS for source in row.sources} == set(SOURCES)


def test_rows_have_names_of_their_own() -> None:
    """No statement is made twice, unless of another source."""
    names = [(row.what, row.sources) for row in ROWS]
    assert len(set(names)) == len(names)
