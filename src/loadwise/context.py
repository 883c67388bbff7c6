"""What a caller tells about one request."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

__all__ = ["EMPTY", "SelectionContext"]

HashKey = str | bytes | int | None


@dataclass(frozen=True, slots=True)
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

    Immutable, so thread-safe.

    Example:
        >>> context = SelectionContext(hash_key="user-42", exclude=frozenset({0}))
        >>> context.is_excluded(0), context.tag("model")
        (True, None)
    """

    hash_key: HashKey = None
    exclude: AbstractSet[int] = frozenset()
    tags: Mapping[str, str] | None = None
    estimated_cost: Mapping[str, float] | float | None = None

    def __post_init__(self) -> None:
        if self.exclude.__class__ is not frozenset:
            object.__setattr__(self, "exclude", frozenset(self.exclude))
        if not (self.hash_key is None or isinstance(self.hash_key, str | bytes | int)):
            raise TypeError(f"hash_key is {self.hash_key!r}; it must be a str, bytes, int or None")

    def is_excluded(self, index: int) -> bool:
        """Whether the candidate at ``index`` must not be chosen."""
        return index in self.exclude

    def tag(self, name: str) -> str | None:
        """The value of one tag, or ``None``."""
        return None if self.tags is None else self.tags.get(name)


EMPTY = SelectionContext()
"""The context of a request about which nothing is said."""
