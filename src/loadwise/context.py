"""Facts that a caller tells about one request."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from operator import index as as_index
from typing import cast

from loadwise._callables import is_awaitable, refuse_awaitable
from loadwise._gil import HAS_GIL
from loadwise._numbers import shown
from loadwise._prompt import Prompt

__all__ = ["EMPTY", "SelectionContext", "as_hash_key", "context_of"]

HashKey = str | bytes | int | None

_NOBODY: AbstractSet[int] = frozenset()
_PLAIN_KEYS = frozenset({str, bytes, int, type(None)})


def as_hash_key(value: object) -> HashKey:
    """Return a key that is no plain one, but as good: of a subclass, or an int of NumPy's.

    Raises:
        TypeError: It is no key, such as a bool.
    """
    if not isinstance(value, bool):
        if isinstance(value, (str, bytes, int)):
            return value
        with suppress(TypeError):
            return as_index(value)  # type: ignore[arg-type]  # what is no whole number says so
    text = shown(value)
    if is_awaitable(value):
        refuse_awaitable("what was to find out the hash_key", value, "await it first")
    raise TypeError(f"hash_key is {text}; it must be a str, bytes, int or None")


@dataclass(frozen=True, slots=True, init=False)
class SelectionContext:
    """Facts about one request that a strategy may use.

    Args:
        hash_key: What the request belongs to (a user, a session, a cache key), for strategies that
            keep a key on one node. A ``str`` (as UTF-8) or ``bytes`` is hashed; an ``int`` in
            0..2^64-1 is taken as the hash itself.
        exclude: Indices into the candidates that must not be chosen, for example the nodes a retry
            has already tried. An index that no candidate has is an error at the pick.
        tags: Free text by name, for strategies of your own; the built-in ones do not read it.
        estimated_cost: What the request is expected to use, by quota dimension; a Balancer with
            quotas reserves it. A single number is for strategies of your own.
        prefix: The prompt of a request to a language model, as a ``str`` or a `Prompt`, for
            strategies that send it where its beginning is cached; kept as a `Prompt`, whose
            ``text`` strategies of your own may read.

    Immutable, so thread-safe.

    Example:
        >>> context = SelectionContext(hash_key="user-42", exclude=frozenset({0}))
        >>> context.is_excluded(0), context.tag("model")
        (True, None)
    """

    hash_key: HashKey = None
    exclude: AbstractSet[int] = _NOBODY
    tags: Mapping[str, str] | None = None
    estimated_cost: Mapping[str, float] | float | None = None
    prefix: Prompt | None = None

    def __init__(
        self,
        hash_key: HashKey = None,
        exclude: AbstractSet[int] = _NOBODY,
        tags: Mapping[str, str] | None = None,
        estimated_cost: Mapping[str, float] | float | None = None,
        prefix: Prompt | str | None = None,
    ) -> None:
        if hash_key.__class__ not in _PLAIN_KEYS:
            hash_key = as_hash_key(hash_key)
        if exclude.__class__ is not frozenset:
            exclude = frozenset(exclude)
        # In half the time of the constructor that dataclass writes.
        _set_hash_key(self, hash_key)
        _set_exclude(self, exclude)
        _set_tags(self, tags)
        _set_estimated_cost(self, estimated_cost)
        _set_prefix(self, prefix if prefix is None else Prompt.of(prefix))

    def excluding(self, exclude: AbstractSet[int]) -> SelectionContext:
        """Return the same facts with other exclusions, for a strategy that asks another."""
        return SelectionContext(self.hash_key, exclude, self.tags, self.estimated_cost, self.prefix)

    def is_excluded(self, index: int) -> bool:
        """Tell whether the candidate at ``index`` must not be chosen."""
        return index in self.exclude

    def tag(self, name: str) -> str | None:
        """The value of one tag, or ``None``."""
        return None if self.tags is None else self.tags.get(name)


# The fields' descriptors write to them without asking whether the context is frozen.
_set_hash_key, _set_exclude, _set_tags, _set_estimated_cost, _set_prefix = (
    getattr(SelectionContext, name).__set__ for name in SelectionContext.__slots__
)


class _Draft:
    """A context that can still be written to; laid out as `SelectionContext` is."""

    __slots__ = SelectionContext.__slots__

    hash_key: HashKey
    exclude: AbstractSet[int]
    tags: Mapping[str, str] | None
    estimated_cost: Mapping[str, float] | float | None
    prefix: Prompt | None


def context_of(hash_key: HashKey, tags: Mapping[str, str] | None = None) -> SelectionContext:
    """Return ``SelectionContext(hash_key, tags=tags)``, for a balancer's every request with a key.

    In half the time of the constructor: the fields are written first, and frozen then by a
    change of class. Without the GIL that would stop all other threads for as long as it takes.
    """
    if not HAS_GIL or hash_key.__class__ not in _PLAIN_KEYS:
        return SelectionContext(hash_key, tags=tags)
    draft = _Draft()
    draft.hash_key = hash_key
    draft.exclude = _NOBODY
    draft.tags = tags
    draft.estimated_cost = None
    draft.prefix = None
    draft.__class__ = SelectionContext  # type: ignore[assignment]  # the layouts are the same
    return cast("SelectionContext", draft)


EMPTY = SelectionContext()
"""The context of a request about which nothing is said."""
