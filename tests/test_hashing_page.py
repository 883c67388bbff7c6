"""The page on hashing: its table is that of its command."""

from __future__ import annotations

import pytest
from benchmarks.hashing import BEGIN, END, FAMILY, PAGE, lines, put_into


def test_the_table_is_that_of_the_command() -> None:
    """It has a row for each strategy, and the command can renew it; a small run has the same."""
    page = PAGE.read_text(encoding="utf-8")
    table = page.partition(BEGIN)[2].partition(END)[0].splitlines()
    made = "".join(lines(nodes=3, keys=60, rounds=1)).splitlines()
    assert table[:2] == made[:2]
    named = [row.split(" | ")[0] for row in table[2:]]
    assert named == [row.split(" | ")[0] for row in made[2:]] == [f"| {name}" for name in FAMILY]
    assert put_into(page, "".join(f"{row}\n" for row in table)) == page


def test_a_page_without_a_place_for_it_is_refused() -> None:
    """The error says what it lacks."""
    with pytest.raises(ValueError, match="no place for the table: it lacks '<!-- The table"):
        put_into("# Hashing\n", "")
