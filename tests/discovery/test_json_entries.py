"""Entries one after another: the same as all at once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadwise._turns import in_turns
from loadwise.discovery.json_entries import parsed_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=40) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=60,
)


@given(VALUES, st.sampled_from([None, 1]))
def test_json_says_the_same(value: Any, indent: int | None) -> None:
    """With gaps between its parts and without."""
    assert parsed_json(f" {json.dumps(value, indent=indent)}\n".encode()) == value


@given(st.text(alphabet='[]{},:" 1a\n', max_size=12))
def test_what_is_not_json_is_refused_as_by_json(text: str) -> None:
    """Also where a list breaks off, or does not end the text."""
    try:
        wanted = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match="char"):
            parsed_json(text.encode())
    else:
        assert parsed_json(text.encode()) == wanted


def test_what_is_not_utf_8_and_what_is_nested_too_deeply() -> None:
    """Errors of the kinds that json has."""
    with pytest.raises(UnicodeDecodeError):
        parsed_json(b'["\xff"]')
    with pytest.raises(RecursionError):
        parsed_json(b"[" * 200_000)


def test_all_items_come_in_order() -> None:
    """However many there are."""
    for count in (0, 1, 16, 17, 100):
        assert list(in_turns(range(count))) == list(range(count))
