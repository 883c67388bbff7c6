"""SelectionContext: frozen facts about one request."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Iterable
from typing import Any

import pytest

from loadwise import SelectionContext
from loadwise.context import EMPTY, context_of


def test_by_default_nothing_is_said() -> None:
    """The empty context has no key, excludes nothing and carries nothing."""
    assert SelectionContext() == EMPTY == SelectionContext(None, frozenset(), None, None)
    assert not EMPTY.is_excluded(0)
    assert EMPTY.tag("model") is None


@pytest.mark.parametrize("exclude", [[2, 0, 2], (0, 2), {0, 2}, frozenset({0, 2}), {0: 1, 2: 1}])
def test_what_is_excluded_becomes_a_frozen_set(exclude: Any) -> None:
    """Any collection of indices is taken."""
    context = SelectionContext(exclude=exclude)
    assert type(context.exclude) is frozenset
    assert context.exclude == {0, 2}
    assert [context.is_excluded(i) for i in range(3)] == [True, False, True]


def test_what_is_excluded_is_copied() -> None:
    """A set that changes later changes nothing behind a pick's back."""
    exclude = {0}
    context = SelectionContext(exclude=exclude)
    exclude.add(1)
    assert context.exclude == {0}


def test_an_iterator_is_read_once() -> None:
    """A generator serves as well."""
    indices: Iterable[int] = (i for i in (4, 5))
    assert SelectionContext(exclude=indices).exclude == {4, 5}  # type: ignore[arg-type]  # wider than typed


@pytest.mark.parametrize("key", ["user-42", b"user-42", 0, 2**64 - 1, "", None])
def test_keys(key: str | bytes | int | None) -> None:
    """A key is a str, bytes, an int, or not there."""
    assert SelectionContext(key).hash_key == key


@pytest.mark.parametrize("key", [1.5, bytearray(b"x"), ("a",), object()])
def test_other_keys(key: Any) -> None:
    """A key of another type is refused with its value."""
    with pytest.raises(TypeError, match=r"hash_key is .*; it must be a str, bytes, int or None"):
        SelectionContext(key)


def test_tags() -> None:
    """Tags are found by name."""
    context = SelectionContext(tags={"model": "large"})
    assert (context.tag("model"), context.tag("zone")) == ("large", None)


def test_it_is_frozen() -> None:
    """No field can be set; a changed copy is made by replace(), and is checked like the first."""
    context = SelectionContext("k", estimated_cost={"rpm": 1})
    with pytest.raises(dataclasses.FrozenInstanceError):
        context.hash_key = "other"  # type: ignore[misc]  # the point of the test
    changed = dataclasses.replace(context, exclude=[3])  # type: ignore[arg-type]  # wider than typed
    assert changed == SelectionContext("k", frozenset({3}), None, {"rpm": 1})
    assert context.exclude == frozenset()


@pytest.mark.parametrize("has_gil", [True, False])
@pytest.mark.parametrize("key", ["user-42", b"user-42", 7, None])
def test_made_quickly(
    key: str | bytes | int | None,
    has_gil: bool,  # noqa: FBT001 - a parameter of the test
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a balancer makes for each request differs in nothing from a context made plainly."""
    monkeypatch.setattr("loadwise.context.HAS_GIL", has_gil)
    context = context_of(key, {"model": "large"})
    assert context == SelectionContext(key, tags={"model": "large"})
    assert type(context) is SelectionContext
    assert context.exclude == frozenset()
    with pytest.raises(dataclasses.FrozenInstanceError):
        context.hash_key = "other"  # type: ignore[misc]  # the point of the test
    with pytest.raises(TypeError, match=r"hash_key is 1\.5"):
        context_of(1.5)  # type: ignore[arg-type]  # the point of the test


def test_it_travels() -> None:
    """Pickled and copied contexts are equal; those without mappings are hashable."""
    context = SelectionContext(b"k", {1}, {"a": "b"}, 2.5)
    for twin in (
        pickle.loads(pickle.dumps(context)),  # noqa: S301 - our own bytes
        copy.copy(context),
        copy.deepcopy(context),
    ):
        assert twin == context
    assert hash(SelectionContext("k", {1})) == hash(SelectionContext("k", frozenset({1})))
