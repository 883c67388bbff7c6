"""Listeners of one kind of news of nodes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar
from weakref import WeakMethod

__all__ = ["Audience"]

T = TypeVar("T")


class Audience(Generic[T]):
    """Methods that are told news of nodes; their objects are not kept alive.

    Thread-safety: full; whoever joins meanwhile hears the next news.

    Cost: O(listeners).
    """

    def __init__(self) -> None:
        self._listeners: list[WeakMethod[Callable[[Hashable, T], None]]] = []

    def add(self, listener: Callable[[Hashable, T], None]) -> None:
        """Have a method told from now on, for as long as its object lives."""
        living = [each for each in self._listeners if each() is not None]
        self._listeners = [*living, WeakMethod(listener)]

    def tell(self, node_id: Hashable, news: T) -> None:
        """Tell all of them news of a node."""
        for each in self._listeners:
            listener = each()
            if listener is not None:
                listener(node_id, news)
