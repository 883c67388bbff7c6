"""One request, as a balancer's callers describe it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from loadwise._numbers import shown
from loadwise._prompt import Prompt
from loadwise.balancer.times_back import cost_of
from loadwise.context import HashKey, SelectionContext
from loadwise.filters import Filter, as_filter
from loadwise.nodes import node_id

if TYPE_CHECKING:
    from loadwise.balancer.limits import Room
    from loadwise.health import Probe
    from loadwise.node_set import NodeSet

__all__ = ["NOBODY", "Request", "as_ids", "is_slight"]

N = TypeVar("N")

NOBODY: Final[tuple[Hashable, ...]] = ()
"""Default of ``exclude``: no ids."""

_NO_COST: Mapping[str, float] = MappingProxyType({})


class Request(Generic[N]):
    """Request to a balancer, before it is known which indices the ids mean.

    Args: as for `Balancer.acquire`.

    Attributes:
        prompt: Its prompt, if it is one to a language model.
        probe: The last probe asked for on its behalf, with the node's id, granted or not.
        room: Where a permit was taken for it that no lease has yet.
        where: Its own filter, if it has one.

    Raises:
        TypeError: Both a context and its keywords were given, or an argument is of the wrong kind.
    """

    __slots__ = (
        "_estimate",
        "_excluded_ids",
        "_hash_key",
        "_tags",
        "cost",
        "excluded",
        "probe",
        "prompt",
        "room",
        "where",
    )

    def __init__(
        self,
        context: SelectionContext | None = None,
        *,
        hash_key: HashKey = None,
        exclude: Iterable[Hashable] = NOBODY,
        cost: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        where: Callable[[N], bool] | None = None,
        prompt: str | Prompt | None = None,
    ) -> None:
        if cost is not None and not isinstance(cost, Mapping):
            raise TypeError(
                f"cost is {cost!r}; give amounts by quota dimension, such as {{'rpm': 1}}"
            )
        self.probe: tuple[Hashable, Probe] | None = None
        self.room: Room | None = None
        self._excluded_ids = as_ids(exclude)
        self.excluded: frozenset[int] = frozenset()
        estimate: Mapping[str, float] | float | None = cost
        if context is not None:
            if not isinstance(context, SelectionContext):
                raise TypeError(f"context is {context!r}; it must be a SelectionContext")
            told = hash_key, cost, tags, prompt
            if self._excluded_ids or any(each is not None for each in told):
                raise TypeError(
                    "give either a context or the keywords hash_key, exclude, cost, tags and "
                    "prompt, not both"
                )
            hash_key, tags, prompt = context.hash_key, context.tags, context.prefix
            self.excluded = frozenset(context.exclude)
            if isinstance(context.estimated_cost, Mapping):
                cost = context.estimated_cost
            estimate = context.estimated_cost
        self._hash_key = hash_key
        self._tags = tags
        self.prompt = prompt if prompt is None else Prompt.of(prompt)
        self.where: Filter[N] | None = None if where is None else as_filter(where)
        self._estimate = estimate
        self.cost = _NO_COST if cost is None else cost

    def kind(self) -> Hashable:
        """Return what it needs of a node: the same nodes can serve all requests of one kind."""
        found = (self._excluded_ids, cost_of(self.cost) or id(self), self.where)
        try:
            hash(found)
        except TypeError:  # a filter of the user's own
            return id(self)
        return found

    def pin(self, nodes: NodeSet[N]) -> None:
        """Have it exclude by id from now on, because it may outlive these ``nodes``."""
        if self.excluded and not self._excluded_ids:
            self._excluded_ids = frozenset(nodes.ids[i] for i in self.excluded)

    @property
    def narrows(self) -> bool:
        """True if it has a filter of its own."""
        return self.where is not None

    def restrict(self, nodes: NodeSet[N]) -> NodeSet[N]:
        """Return what of ``nodes`` this request's filter admits, and find whom it excludes.

        O(number excluded), and what the filter costs.
        """
        if self.where is not None:
            nodes = self.where.view(nodes)
        if self._excluded_ids:
            found = (_index_of(identity, nodes) for identity in self._excluded_ids)
            self.excluded = frozenset(index for index in found if index is not None)
        return nodes

    def context(
        self, refused: Mapping[int, str], full: AbstractSet[int] = frozenset()
    ) -> SelectionContext:
        """Return what to tell the strategy, given who has refused or was full so far."""
        exclude = self.excluded.union(refused, full) if refused or full else self.excluded
        return SelectionContext(self._hash_key, exclude, self._tags, self._estimate, self.prompt)


def is_slight(context: SelectionContext) -> bool:
    """Tell whether a ready context asks for no more than a key and tags do. O(1)."""
    return (
        context.__class__ is SelectionContext
        and not context.exclude
        and context.estimated_cost is None
        and context.prefix is None
    )


def as_ids(exclude: Iterable[Hashable]) -> frozenset[Hashable]:
    """Return whom to exclude as a set; nodes among the ids stand for themselves or for their ids.

    Raises:
        TypeError: It is no collection, or has what can be no id.
    """
    if not isinstance(exclude, (str, bytes)):
        try:
            return frozenset(exclude)
        except TypeError:
            if isinstance(exclude, Collection):
                # A node that cannot be hashed may have an id that can.
                return frozenset(map(node_id, exclude))
            if hasattr(exclude, "__iter__"):
                raise
    raise TypeError(f"exclude is {shown(exclude)}; give a collection of ids, such as {{'a'}}")


def _index_of(identity: Hashable, nodes: NodeSet[N]) -> int | None:
    index = nodes.index_of(identity)
    # It may be a node in the place of its id. (Ids of nobody are ignored.)
    return nodes.index_of(node_id(identity)) if index is None else index
