"""Protocols of strategies: the one method, and those of views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from loadwise.context import EMPTY, HashKey, SelectionContext
from loadwise.load import LoadMeasure
from loadwise.node_set import NodeSet

__all__ = ["KeyOrder", "Strategy", "ViewStrategy"]

N_contra = TypeVar("N_contra", contravariant=True)


class Strategy(Protocol[N_contra]):
    """A rule that chooses one of the candidates.

    One method is enough; a strategy of yours works wherever a built-in one does. It must be
    thread-safe if it is used from several threads, and must do no I/O.
    """

    def select(
        self, candidates: Sequence[N_contra], context: SelectionContext = EMPTY
    ) -> int | None:
        """Return the index of the chosen candidate, or ``None`` when there is none to choose.

        Args:
            candidates: The nodes. A `NodeSet` is recognised by identity, which makes the call
                O(1) for most strategies; any other sequence works and costs O(n).
            context: Facts about the request.
        """
        ...


@runtime_checkable
class ViewStrategy(Protocol[N_contra]):
    """A strategy that knows `NodeSet` views and can be asked about its next choice.

    All built-in strategies are. One without these methods is given plain sets that hold only what
    it may choose, so it needs to know nothing about eligibility.
    """

    def select(
        self, candidates: Sequence[N_contra], context: SelectionContext = EMPTY
    ) -> int | None:
        """As `Strategy.select`, and never an index that the view rules out."""
        ...

    def peek(self, candidates: Sequence[N_contra], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return, changing nothing."""
        ...

    def prepare(self, nodes: NodeSet[N_contra]) -> None:
        """Build what `select` will need for these nodes; refuse nodes it cannot work with."""
        ...

    def facts(self, nodes: NodeSet[N_contra]) -> Mapping[str, Sequence[float]]:
        """Return what the choice is based on: by name, one number per index."""
        ...

    @property
    def measures(self) -> tuple[LoadMeasure, ...]:
        """The load measures it consults, for whoever feeds them."""
        ...


@runtime_checkable
class KeyOrder(ViewStrategy[N_contra], Protocol[N_contra]):
    """A strategy with an order of all nodes for every key, as those of the hash family are."""

    def owner(self, candidates: Sequence[N_contra], hash_key: HashKey) -> int | None:
        """Return the index of the first in the order that may be chosen."""
        ...

    def owners(self, candidates: Sequence[N_contra], hash_key: HashKey, k: int) -> list[int]:
        """Return the indices of the first ``k``."""
        ...

    def ranking(self, candidates: Sequence[N_contra], hash_key: HashKey) -> Iterator[int]:
        """Give the indices of all that may be chosen, in the order, each once."""
        ...
