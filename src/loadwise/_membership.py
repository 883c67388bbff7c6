"""Nodes of a `NodeSet` with their ids and weights, which all its views share."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from itertools import compress
from operator import not_
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from weakref import ref

from loadwise._memo import Memo
from loadwise.nodes import as_weight, check_id

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

__all__ = ["Content", "Membership", "Owner", "WarmUp"]

N_co = TypeVar("N_co", covariant=True)
T = TypeVar("T")

_NO_WEIGHT: Any = object()


class Owner:
    """Tells the memberships of one balancer from those of others. Compared by identity."""

    __slots__ = ("__weakref__",)


class Content:
    """The ids and weights of some nodes: what makes two memberships the same to a strategy.

    Attributes:
        ids: The ids, by index.
        weights: The weights, by index; 1 for a node that has none.
        kinds: Their types, because 1 and 1.0 are equal but not the same to a rule that treats
            floats apart; ``object`` for a node without a weight.
        unweighted: Index of the first node without a weight; ``None`` if all have one.
    """

    __slots__ = ("_hash", "ids", "kinds", "unweighted", "weights")

    def __init__(
        self,
        ids: tuple[Hashable, ...],
        weights: tuple[int | float, ...],
        kinds: tuple[type, ...],
        unweighted: int | None,
    ) -> None:
        self.ids = ids
        self.weights = weights
        self.kinds = kinds
        self.unweighted = unweighted
        self._hash: int | None = None

    @classmethod
    def of(cls, nodes: Sequence[object]) -> Content:
        """Read ids and weights of nodes. O(n).

        Raises:
            TypeError: An id is not hashable, or a weight is not a number.
            ValueError: A weight is negative, NaN or infinite.
        """
        ids: tuple[Hashable, ...] = tuple([getattr(node, "id", node) for node in nodes])
        try:
            hash(ids)
        except TypeError:
            for identity, node in zip(ids, nodes, strict=True):
                check_id(identity, node)
            raise
        found = [getattr(node, "weight", _NO_WEIGHT) for node in nodes]
        kinds: list[type] | None = None
        unweighted: int | None = None
        if _NO_WEIGHT in found:
            unweighted = found.index(_NO_WEIGHT)
            kinds = [object if weight is _NO_WEIGHT else type(weight) for weight in found]
            found = [1 if weight is _NO_WEIGHT else weight for weight in found]
        for position, weight in enumerate(found):
            if weight.__class__ is not int or weight < 0:
                found[position] = plain = as_weight(weight, ids[position])
                if kinds is not None and kinds[position] is not object:
                    kinds[position] = type(plain)
        types = tuple(map(type, found) if kinds is None else kinds)
        return cls(ids, tuple(found), types, unweighted)

    def joined(self, other: Content) -> Content:
        """Return this content followed by another."""
        first = self.unweighted
        if first is None and other.unweighted is not None:
            first = len(self.ids) + other.unweighted
        ids, weights = self.ids + other.ids, self.weights + other.weights
        return Content(ids, weights, self.kinds + other.kinds, first)

    def parted(self, index: int) -> Content:
        """Return this content without what stands at an index."""
        kinds, first = _cut(self.kinds, index), self.unweighted
        if first is not None and index < first:
            first -= 1
        elif first == index:
            first = kinds.index(object, index) if object in kinds[index:] else None
        return Content(_cut(self.ids, index), _cut(self.weights, index), kinds, first)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Content)
            and self.ids == other.ids
            and self.weights == other.weights
            and self.kinds == other.kinds
        )

    def __hash__(self) -> int:
        # Tuples do not remember theirs, and this one is asked for again and again.
        if self._hash is None:
            self._hash = hash((self.ids, self.weights, self.kinds))
        return self._hash

    def __reduce__(self) -> tuple[object, ...]:
        # Another process has other hashes.
        return Content, (self.ids, self.weights, self.kinds, self.unweighted)


class Membership(Generic[N_co]):
    """Base that a `NodeSet` and all its restricted views share.

    Attributes:
        nodes: The nodes, by index.
        content: Their ids and weights.
        ids: The same as of the content.
        weights: The same as of the content.
        unweighted: The same as of the content.
        eligible: Indices of the nodes whose weight is not 0, ascending.
        idle: Indices of the others, ascending.
        tally: How many of the eligible have each weight.
        owner: The balancer that it belongs to, if it does.
        is_part: Whether it is but one group of the nodes that a strategy was given.
        rejected: Indices of the nodes that filters do not accept, by what such filters have in
            common; for those whose answers depend on the nodes alone.

    Where one node comes or goes, the next membership is made from this one: what was read of the
    others when they joined is copied, not read again.
    """

    __slots__ = (
        "__weakref__",
        "_before",
        "_cut",
        "_index",
        "_serials",
        "_tickets",
        "content",
        "eligible",
        "idle",
        "ids",
        "is_part",
        "nodes",
        "owner",
        "rejected",
        "tally",
        "unweighted",
        "weights",
    )

    def __init__(self, nodes: tuple[N_co, ...], content: Content) -> None:
        weights = content.weights
        idle = () if all(weights) else compress(range(len(nodes)), map(not_, weights))
        self._begin(nodes, content, None, tuple(idle))
        self.eligible = tuple(i for i, weight in enumerate(weights) if weight)
        self.tally: Mapping[int | float, int] = Counter(map(weights.__getitem__, self.eligible))
        # A node's index is the place of its ticket's number among the numbers given out, or the
        # number itself where nobody has left.
        self._tickets: dict[Hashable, int] = {
            identity: position for position, identity in enumerate(content.ids)
        }
        self._serials: list[int] | None = None
        if len(self._tickets) < len(nodes):
            index = self._tickets
            position = next(i for i, identity in enumerate(self.ids) if index[identity] != i)
            raise _twice(self.ids[position], position, index[self.ids[position]])

    def _begin(
        self,
        nodes: tuple[N_co, ...],
        content: Content,
        owner: Owner | None,
        idle: tuple[int, ...],
    ) -> None:
        self.nodes = nodes
        self.owner = owner
        self.is_part = False
        self.rejected: Memo[frozenset[int]] = Memo()
        self.content = content
        self.ids = content.ids
        self.weights = content.weights
        self.unweighted = content.unweighted
        self.idle = idle
        self._index: dict[Hashable, int] | None = None
        # Not held: else each would hold all before it.
        self._before: ref[Membership[Any]] | None = None
        self._cut: int | None = None

    @property
    def index(self) -> dict[Hashable, int]:
        """The indices, by id. O(n) once."""
        if self._index is None:
            self._index = dict(zip(self.ids, range(len(self.ids)), strict=True))
        return self._index

    def index_of(self, identity: Hashable) -> int | None:
        """Return the index of the node with this id, or ``None``. O(log n)."""
        ticket = self._tickets.get(identity)
        serials = self._serials
        return ticket if ticket is None or serials is None else bisect_left(serials, ticket)

    @property
    def before(self) -> tuple[Membership[Any], int | None] | None:
        """The membership that this one was made from, while that is in use by anybody.

        With it, the index of the node that left; ``None`` where one joined at the end.
        """
        before = None if self._before is None else self._before()
        return None if before is None else (before, self._cut)

    def joined(self, node: T) -> Membership[N_co | T]:
        """Return the membership with one node more, at the end. O(n), at the speed of a copy.

        Raises:
            TypeError: Its id is not hashable, or its weight is not a number.
            ValueError: A node with this id is there, or the weight is negative, NaN or infinite.
        """
        size = len(self.nodes)
        one = Content.of((node,))
        known = self.index_of(one.ids[0])
        if known is not None:
            raise _twice(self.ids[known], known, size)
        made: Membership[N_co | T] = cast("Membership[N_co | T]", Membership.__new__(Membership))
        [weight] = one.weights
        idle = self.idle if weight else (*self.idle, size)
        made._begin((*self.nodes, node), self.content.joined(one), self.owner, idle)
        made.eligible = (*self.eligible, size) if weight else self.eligible
        made.tally = {**self.tally, weight: self.tally.get(weight, 0) + 1} if weight else self.tally
        ticket = size
        made._serials = None
        if self._serials is not None:
            ticket = self._serials[-1] + 1 if size else 0
            made._serials = [*self._serials, ticket]
        made._tickets = self._tickets.copy()
        made._tickets[one.ids[0]] = ticket
        made._before = ref(self)
        made.is_part = self.is_part
        return made

    def parted(self, index: int) -> Membership[N_co]:
        """Return the membership without the node at an index. O(n), at the speed of a copy."""
        made: Membership[N_co] = cast("Membership[N_co]", Membership.__new__(Membership))
        idle = tuple([i - (i > index) for i in self.idle if i != index])
        made._begin(_cut(self.nodes, index), self.content.parted(index), self.owner, idle)
        if self.idle:
            made.eligible = tuple(compress(range(len(made.nodes)), made.weights))
        else:  # all indices there are, and those are the first of the old ones
            made.eligible = self.eligible[:-1]
        made.tally = _less(self.tally, self.weights[index])
        serials = list(range(len(self.nodes)) if self._serials is None else self._serials)
        del serials[index]
        made._serials = serials
        made._tickets = self._tickets.copy()
        del made._tickets[self.ids[index]]
        made._before = ref(self)
        made._cut, made.is_part = index, self.is_part
        return made

    def __reduce__(self) -> tuple[object, ...]:
        return _made_again, (self.nodes, self.content, self.owner)


class WarmUp:
    """Weights of a membership while some of its nodes count in part only.

    Args:
        membership: The nodes.
        factors: What part of its weight such a node counts with, by index; above 0, at most 1.

    Attributes:
        factors: The same.
        weights: All weights with the factors applied, by index.
        tally: How many of the nodes that have a weight have each of those.

    Immutable. Cost: O(factors), and O(n) at the speed of a copy.
    """

    __slots__ = ("factors", "tally", "weights")

    def __init__(self, membership: Membership[Any], factors: Mapping[int, float]) -> None:
        self.factors = factors
        weights = list(membership.weights)
        tally = dict(membership.tally)
        for index, factor in factors.items():
            weight = weights[index]
            if weight:
                # The least of floats has no half.
                weights[index] = part = weight * factor or weight
                tally[part] = tally.get(part, 0) + 1
                tally[weight] -= 1
                if not tally[weight]:
                    del tally[weight]
        self.weights = tuple(weights)
        self.tally: Mapping[int | float, int] = tally


def _made_again(nodes: tuple[T, ...], content: Content, owner: Owner | None) -> Membership[T]:
    made = Membership(nodes, content)
    made.owner = owner
    return made


def _cut(items: tuple[T, ...], index: int) -> tuple[T, ...]:
    return items[:index] + items[index + 1 :]


def _less(tally: Mapping[int | float, int], weight: float) -> Mapping[int | float, int]:
    """Return the tally with one less of a weight, which may be 0 and so not counted."""
    if not weight:
        return tally
    left = {**tally, weight: tally[weight] - 1}
    if not left[weight]:
        del left[weight]
    return left


def _twice(identity: Hashable, first: int, again: int) -> ValueError:
    return ValueError(
        f"id {identity!r} stands at index {first} and again at index {again}; each node needs an "
        f"id of its own"
    )
