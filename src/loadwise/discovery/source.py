"""Sources of nodes, as a watcher sees them: what they find, and how they fail."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Generic, Protocol, TypeVar

from loadwise._numbers import finite
from loadwise.errors import LoadwiseError

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
        nodes: The nodes, each once.
        draining: Ids of those of them that are about to end: they get no new requests.
        again: Seconds until the source is to be asked again, finite and at least 0; 0 for one
            that waits for news itself when it is asked.
        complaints: Oddities that were passed over, in words, by a short name for each kind. Each
            is logged when it begins, not again with every answer.

    Raises:
        TypeError: ``again`` is not a number.
        ValueError: ``again`` is out of range.

    Immutable, so thread-safe.

    Example:
        >>> Found(("10.0.0.1:80", "10.0.0.2:80"), again=30.0).again
        30.0
    """

    nodes: tuple[N_co, ...]
    draining: frozenset[Hashable] = frozenset()
    again: float = 0.0
    complaints: Mapping[str, str] = field(default_factory=_nothing)

    def __post_init__(self) -> None:
        if not 0 <= finite("again", self.again) < math.inf:
            raise ValueError(
                f"again is {self.again!r}; it must be a finite number of seconds, at least 0"
            )


class Feed(Protocol[N_co]):
    """One connection to a source, used by one thread; `close` may be called from another."""

    def fetch(self) -> Found[N_co]:
        """Return what there is: at once when it is first asked, later when there may be news.

        It may block, and may raise whatever error there was; then it is asked again.
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
