"""Text of unknown origin: what cannot be seen is never shown as it is."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadwise._text import visible, visible_lines

DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain: ä, 日本, 👩\u200d🚀, C:\\n", "plain: ä, 日本, 👩\u200d🚀, C:\\n"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("two\nlines\r\t", r"two\nlines\r\t"),
        ("\x9b2J\x85\x7f", r"\x9b2J\x85\x7f"),
        ("user\u202egnp.exe", r"user\u202egnp.exe"),
        ("\ud800\ufeff\u2028\U000e0001", r"\ud800\ufeff\u2028\U000e0001"),
        ("non\u00a0breaking", "non\u00a0breaking"),
    ],
)
def test_what_cannot_be_seen_is_escaped(text: str, shown: str) -> None:
    """As Python writes it; what can be seen stays."""
    assert visible(text) == shown


def test_of_all_characters_none_that_controls_is_left() -> None:
    """Controls, directions, halves and separators, in all of Unicode."""
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    left = set(visible(everything))
    assert not left & set(DIRECTIONS)
    assert {unicodedata.category(each) for each in left - {"\u200c", "\u200d"}}.isdisjoint(
        {"Cc", "Cf", "Cs", "Zl", "Zp"}
    )


@given(st.text(st.characters(categories=["L", "N", "Cc", "Cf", "Cs", "Zs", "Zl", "P"])))
def test_it_may_be_done_again(text: str) -> None:
    """What is safe stays as it is; line breaks stay where they are wanted, and nowhere else."""
    once = visible(text)
    assert visible(once) == once
    assert "\n" not in once
    lines = visible_lines(text)
    assert lines.count("\n") == text.count("\n")
    assert lines.replace("\n", "\\n") == once
    once.encode()  # no halves of characters are left, so that it can be written
