"""An immutable, ordered snapshot of nodes: where the O(n) work of a membership happens, once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from operator import index as as_index
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, final, overload

from loadwise.errors import UnknownIndex
from loadwise.nodes import as_weight, check_id, refuse_text

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["NodeSet"]

N_co = TypeVar("N_co", covariant=True)

_NO_WEIGHT: Any = object()
_NOBODY: frozenset[int] = frozenset()


class Owner:
    """Tells the memberships of one balancer from those of others. Compared by identity."""

    __slots__ = ("__weakref__",)


class Membership(Generic[N_co]):
    """What a `NodeSet` and all its restricted views have in common."""

    __slots__ = (
        "__weakref__",
        "content",
        "eligible",
        "ids",
        "index",
        "nodes",
        "owner",
        "unweighted",
        "weights",
    )

    def __init__(self, nodes: tuple[N_co, ...], content: Content) -> None:
        self.nodes = nodes
        self.owner: Owner | None = None
        self.content = content
        self.ids = content.ids
        self.weights = content.weights
        self.unweighted = content.unweighted
        self.eligible = tuple(i for i, weight in enumerate(content.weights) if weight)
        self.index = {identity: position for position, identity in enumerate(content.ids)}
        if len(self.index) < len(nodes):
            position = next(i for i, identity in enumerate(self.ids) if self.index[identity] != i)
            raise ValueError(
                f"id {self.ids[position]!r} stands at index {position} and again at index "
                f"{self.index[self.ids[position]]}; each node needs an id of its own"
            )


class Content:
    """The ids and weights of some nodes: what makes two memberships the same to a strategy."""

    __slots__ = ("ids", "key", "unweighted", "weights")

    def __init__(self, nodes: Sequence[object]) -> None:
        self.ids: tuple[Hashable, ...] = tuple([getattr(node, "id", node) for node in nodes])
        try:
            hash(self.ids)
        except TypeError:
            for identity, node in zip(self.ids, nodes, strict=True):
                check_id(identity, node)
            raise
        found = [getattr(node, "weight", _NO_WEIGHT) for node in nodes]
        self.unweighted: int | None = None
        if _NO_WEIGHT in found:
            self.unweighted = found.index(_NO_WEIGHT)
            found = [1 if weight is _NO_WEIGHT else weight for weight in found]
        for position, weight in enumerate(found):
            if weight.__class__ is not int or weight < 0:
                found[position] = as_weight(weight, self.ids[position])
        self.weights: tuple[int | float, ...] = tuple(found)
        # 1 and 1.0 are equal but not the same to a rule that treats floats apart.
        self.key = (self.ids, self.weights, tuple(map(type, found)), self.unweighted)


@final
class NodeSet(Sequence[N_co]):
    """An immutable, ordered snapshot of nodes.

    Strategies recognise a NodeSet by identity, so selecting from the same one again costs O(1)
    where a plain list costs O(n). Ids and weights are read once, at construction.

    Args:
        nodes: The nodes, in the order their indices will have. Of a mapping they are the keys.

    Raises:
        TypeError: A node's id is not hashable, a weight is not a number, or ``nodes`` is one str
            or bytes.
        ValueError: Two nodes share an id, or a weight is negative, NaN or infinite.

    Immutable, so safe to share between threads and across fork.

    Cost: O(n) to build and to restrict, O(1) for everything else.

    Example:
        >>> nodes = NodeSet(["a", "b", "c"])
        >>> nodes.index_of("b"), nodes[1], len(nodes)
        (1, 'b', 3)
        >>> up = nodes.restrict([0, 2])
        >>> len(up), up.eligible
        (3, (0, 2))
    """

    __slots__ = ("__weakref__", "_mask", "_well", "ailing", "eligible", "membership")

    ailing: frozenset[int]
    """Indices of nodes that are UNHEALTHY and may be chosen all the same, because a balancer is in
    panic; strategies in tiers ask for all others first. Empty for what is not such a view."""

    eligible: tuple[int, ...]
    """Indices that may be chosen, ascending: those of this view whose weight is not 0."""
    membership: Membership[N_co]
    """What this view shares with every other view of the same nodes."""

    def __init__(self, nodes: Iterable[N_co]) -> None:
        refuse_text(nodes)
        members = tuple(nodes)
        self.membership = Membership(members, Content(members))
        self.eligible = self.membership.eligible
        self.ailing = _NOBODY
        self._mask: bytes | None = None
        self._well: NodeSet[N_co] | None = None

    @staticmethod
    def of_content(content: Content) -> NodeSet[Hashable]:
        """Return a set with this content whose nodes are the mere ids."""
        membership = Membership(content.ids, content)
        return _view(membership, membership.eligible, _NOBODY)

    @property
    def ids(self) -> tuple[Hashable, ...]:
        """The ids, by index."""
        return self.membership.ids

    @property
    def weights(self) -> tuple[int | float, ...]:
        """The weights, by index; 1 for a node that has none."""
        return self.membership.weights

    @property
    def mask(self) -> bytes:
        """One byte per index: 1 where it may be chosen, else 0. O(n) once per view."""
        if self._mask is None:
            mask = bytearray(len(self.membership.ids))
            for i in self.eligible:
                mask[i] = 1
            self._mask = bytes(mask)
        return self._mask

    def index_of(self, identity: Hashable) -> int | None:
        """Return the index of the node with this id, or ``None``."""
        return self.membership.index.get(identity)

    def restrict(self, indices: Iterable[int]) -> NodeSet[N_co]:
        """Return a view with the same membership in which only ``indices`` may be chosen.

        Positions are kept: length, indexing and the indices that strategies return are those of
        the whole set. What is not eligible here stays so in the view.

        Args:
            indices: Which to keep eligible, in any order.

        Raises:
            UnknownIndex: An index is negative or not below ``len(self)``.
        """
        keep = bytearray(len(self))
        for i in self._checked(indices):
            keep[i] = 1
        return self._kept(keep)

    def without(self, indices: Iterable[int]) -> NodeSet[N_co]:
        """Return a view with the same membership in which ``indices`` may not be chosen.

        Args:
            indices: Which to make ineligible, in any order.

        Raises:
            UnknownIndex: An index is negative or not below ``len(self)``.
        """
        keep = bytearray(b"\x01") * len(self)
        for i in self._checked(indices):
            keep[i] = 0
        return self._kept(keep)

    def marked(self, ailing: Iterable[int]) -> NodeSet[N_co]:
        """Return the same view with the nodes at these indices marked as ailing.

        Raises:
            UnknownIndex: An index is negative or not below ``len(self)``.
        """
        return _view(self.membership, self.eligible, frozenset(self._checked(ailing)))

    @property
    def well(self) -> NodeSet[N_co]:
        """This view without the ailing; the view itself where there are none. O(n) once."""
        if not self.ailing:
            return self
        if self._well is None:
            self._well = self.without(self.ailing)
        return self._well

    def _checked(self, indices: Iterable[int]) -> Iterator[int]:
        size = len(self)
        for i in map(as_index, indices):
            if not 0 <= i < size:
                raise UnknownIndex(f"index {i} is not in a NodeSet of {size} nodes")
            yield i

    def _kept(self, keep: bytearray) -> NodeSet[N_co]:
        eligible = self.eligible
        if len(eligible) == len(keep):
            left = tuple(compress(eligible, keep))
        else:
            left = tuple(i for i in eligible if keep[i])
        ailing = frozenset(i for i in self.ailing if keep[i]) if self.ailing else _NOBODY
        return _view(self.membership, left, ailing)

    def __len__(self) -> int:
        return len(self.membership.nodes)

    def __iter__(self) -> Iterator[N_co]:
        return iter(self.membership.nodes)

    @overload
    def __getitem__(self, index: int) -> N_co: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[N_co, ...]: ...
    def __getitem__(self, index: int | slice) -> N_co | tuple[N_co, ...]:
        return self.membership.nodes[index]

    def __repr__(self) -> str:
        shown = ", ".join(repr(identity) for identity in self.ids[:3])
        more = f", ... {len(self) - 3} more" if len(self) > 3 else ""  # noqa: PLR2004
        return f"<NodeSet of {len(self)}: {shown}{more}; {len(self.eligible)} eligible>"


def _view(
    membership: Membership[N_co], eligible: tuple[int, ...], ailing: frozenset[int]
) -> NodeSet[N_co]:
    view = cast("NodeSet[N_co]", NodeSet.__new__(NodeSet))
    view.membership = membership
    view.eligible = eligible
    view.ailing = ailing
    # The constructor of this class for views.
    view._mask = None  # noqa: SLF001
    view._well = None  # noqa: SLF001
    return view
