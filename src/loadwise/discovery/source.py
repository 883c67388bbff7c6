"""Sources of nodes, as a watcher sees them: what they find, and how they fail."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from loadwise._numbers import finite, shown
from loadwise.errors import LoadwiseError
from loadwise.nodes import refuse_text

__all__ = ["MOST_NODES", "Feed", "Found", "NodeSource", "SourceError"]

N = TypeVar("N")
N_co = TypeVar("N_co", covariant=True)

MOST_NODES: Final = 100_000
"""Most nodes that are taken from a source at once."""


class SourceError(LoadwiseError):
    """A source could not be asked, or its answer cannot be used; the message says which and why.

    Attributes:
        again: Seconds until it may be asked again; ``None`` for as long as the watcher thinks fit.
    """

    def __init__(self, text: str, again: float | None = None) -> None:
        super().__init__(text)
        self.again = again


def _nothing() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True)  # without slots, with which Python 3.11 cannot make a Found[str]
class Found(Generic[N_co]):
    """Nodes that a source lists, all of them.

    Args:
        nodes: The nodes, each once; any iterable, of which a tuple is made.
        draining: Ids of those of them that are about to end: they get no new requests.
        again: Seconds until the source is to be asked again, finite and at least 0; 0 for one
            that waits for news itself when it is asked.
        complaints: Oddities that were passed over, in words, by a short name for each kind. Each
            is logged when it begins, not again with every answer.

    Raises:
        TypeError: The nodes or the ids are one text, or cannot be gone through; ``again`` is not a
            number; or a complaint is no text.
        ValueError: ``again`` is out of range.

    Immutable, so thread-safe.

    Cost: O(1) for a tuple of nodes, O(n) for others.

    Example:
        >>> Found(("10.0.0.1:80", "10.0.0.2:80"), again=30.0).again
        30.0
    """

    nodes: tuple[N_co, ...]
    draining: frozenset[Hashable] = frozenset()
    again: float = 0.0
    complaints: Mapping[str, str] = field(default_factory=_nothing)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", _as_tuple(self.nodes))
        object.__setattr__(self, "draining", _as_ids(self.draining))
        object.__setattr__(self, "complaints", MappingProxyType(_as_texts(self.complaints)))
        if not 0 <= finite("again", self.again) < math.inf:
            raise ValueError(
                f"again is {self.again!r}; it must be a finite number of seconds, at least 0"
            )


def _as_tuple(nodes: object) -> tuple[Any, ...]:
    given = cast("Any", nodes)
    if isinstance(nodes, tuple):
        plain: tuple[Any, ...] = given
        return plain
    refuse_text(nodes)
    if not isinstance(nodes, Iterable):
        raise TypeError(f"nodes is {shown(nodes)}; it must be a tuple of nodes")
    # One more than is allowed, so that whoever counts them sees that there are too many.
    return tuple(islice(given, MOST_NODES + 1))


def _as_ids(ids: object) -> frozenset[Any]:
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise TypeError(f"draining is {shown(ids)}; it must be a set of ids")
    return frozenset(cast("Any", ids))


def _as_texts(given: object) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise TypeError(f"complaints is {shown(given)}; it must be a mapping of texts")
    texts: dict[Any, Any] = dict(cast("Any", given))
    for each in (*texts, *texts.values()):
        if not isinstance(each, str):
            raise TypeError(f"complaints has {shown(each)}; its keys and values must be texts")
    return texts


class Feed(Protocol[N_co]):
    """One connection to a source, used by one thread; `close` may be called from another."""

    def fetch(self) -> Found[N_co]:
        """Return what there is: at once when it is first asked, later when there may be news.

        It may block, and may raise whatever error there was; then it is asked again. To return the
        same `Found` once more is to say that all is well and nothing has changed, at no cost.
        """
        ...

    def close(self) -> None:
        """Give up the connection, and have a `fetch` under way return or raise soon."""
        ...


class NodeSource(Protocol[N_co]):
    """A place that lists nodes. It holds no connection itself, so it may serve many watchers."""

    def open(self) -> Feed[N_co]:
        """Return a new feed. Nothing is asked yet."""
        ...
