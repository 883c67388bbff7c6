"""An immutable, ordered snapshot of nodes: where the O(n) work of a membership happens, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress
from operator import index as as_index
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast, final, overload

from loadwise._membership import Content, Membership, WarmUp
from loadwise._memo import Memo
from loadwise.errors import UnknownIndex
from loadwise.nodes import refuse_text

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["MemberStanding", "NodeSet"]

M = TypeVar("M")
N_co = TypeVar("N_co", covariant=True)

_NOBODY: frozenset[int] = frozenset()
_PLAIN = {int}
_FEW = 64
"""Most differences between two views for one to be made from the other."""


class MemberStanding(NamedTuple):
    """States of nodes in their balancer, whether or not they may be chosen just now.

    Attributes:
        down: Indices of members that are UNHEALTHY.
        outside: Why others are no members, by index: "drained", or "filtered" by the balancer's
            own filter.
        ailing: Indices of those that are down and get requests all the same, because there is
            panic.
    """

    down: frozenset[int]
    outside: Mapping[int, str]
    ailing: frozenset[int] = _NOBODY


_ALL_WELL = MemberStanding(_NOBODY, MappingProxyType({}))


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

    Cost: O(n) to build and to restrict, O(log n) to look up an id, O(1) for everything else. A view
    without a few works out who is left when it is first asked.

    Example:
        >>> nodes = NodeSet(["a", "b", "c"])
        >>> nodes.index_of("b"), nodes[1], len(nodes)
        (1, 'b', 3)
        >>> up = nodes.restrict([0, 2])
        >>> len(up), up.eligible
        (3, (0, 2))
    """

    __slots__ = (
        "__weakref__",
        "_barred",
        "_eligible",
        "_mask",
        "_standing",
        "_views",
        "_well",
        "ailing",
        "membership",
        "warm_up",
    )

    ailing: frozenset[int]
    """Indices of nodes that are UNHEALTHY and may be chosen all the same, because a balancer is in
    panic; strategies in tiers ask for all others first. Empty for what is not such a view."""

    membership: Membership[N_co]
    """Part that this view shares with every other view of the same nodes."""

    warm_up: WarmUp | None
    """Weights of nodes in slow start, where some are; see `Balancer`."""

    def __init__(self, nodes: Iterable[N_co]) -> None:
        refuse_text(nodes)
        members = tuple(nodes)
        self.membership = Membership(members, Content.of(members))
        self.ailing = _NOBODY
        self.warm_up = None
        # Which of the membership's eligible may not be chosen here; ``None`` where nobody counted.
        self._barred: frozenset[int] | None = _NOBODY
        # One of the two is there from the beginning, the other once it has been asked for.
        self._eligible: tuple[int, ...] | None = self.membership.eligible
        self._mask: bytes | None = None
        self._well: NodeSet[N_co] | None = None
        self._views: Memo[NodeSet[N_co]] | None = None
        self._standing: MemberStanding | None = None

    @staticmethod
    def of_content(content: Content) -> NodeSet[Hashable]:
        """Return a set with this content whose nodes are the mere ids."""
        return NodeSet.of_membership(Membership(content.ids, content))

    @staticmethod
    def of_membership(membership: Membership[M]) -> NodeSet[M]:
        """Return the set of all nodes of a membership."""
        return _view(membership, membership.eligible, _NOBODY, _NOBODY)

    @property
    def eligible(self) -> tuple[int, ...]:
        """Indices that may be chosen, ascending: those of this view whose weight is not 0."""
        known = self._eligible
        if known is None:
            known = self._eligible = _among(self.membership.eligible, self.mask)
        return known

    @property
    def ids(self) -> tuple[Hashable, ...]:
        """The ids, by index."""
        return self.membership.ids

    @property
    def weights(self) -> tuple[int | float, ...]:
        """The weights, by index; 1 for a node that has none; less for one in slow start."""
        return self.membership.weights if self.warm_up is None else self.warm_up.weights

    @property
    def tally(self) -> Mapping[int | float, int]:
        """Number of nodes of each weight above 0, whether they may be chosen or not."""
        return self.membership.tally if self.warm_up is None else self.warm_up.tally

    @property
    def barred(self) -> frozenset[int] | None:
        """Indices that have a weight and may not be chosen here; ``None`` if nobody counted them.

        They are known of a whole set, and of what was made from one by `without`.
        """
        return self._barred

    @property
    def alike(self) -> bool:
        """True if all that may be chosen have the same weight. O(different weights and barred)."""
        tally, weights = self.tally, self.weights
        if len(tally) <= 1:
            return True
        if self._barred is None:
            return len(set(map(weights.__getitem__, self.eligible))) <= 1
        if len(tally) > len(self._barred) + 1:
            return False
        gone = Counter(map(weights.__getitem__, self._barred))
        emptied = sum(tally[weight] == number for weight, number in gone.items())
        return len(tally) - emptied <= 1

    @property
    def mask(self) -> bytes:
        """One byte per index: 1 where it may be chosen, else 0. O(n) once per view."""
        known = self._mask
        if known is None:
            known = self._mask = bytes(self._masked())
        return known

    def _masked(self) -> bytearray:
        size = len(self.membership.ids)
        if self._barred is None:
            mask = bytearray(size)
            for i in self.eligible:
                mask[i] = 1
            return mask
        mask = bytearray(b"\x01") * size
        for i in self.membership.idle:
            mask[i] = 0
        for i in self._barred:
            mask[i] = 0
        return mask

    def index_of(self, identity: Hashable) -> int | None:
        """Return the index of the node with this id, or ``None``. O(log n)."""
        return self.membership.index_of(identity)

    def restrict(self, indices: Iterable[int]) -> NodeSet[N_co]:
        """Return a view with the same membership in which only ``indices`` may be chosen.

        Positions are kept: length, indexing and the indices that strategies return are those of
        the whole set. What is not eligible here stays so in the view.

        Args:
            indices: Which to keep eligible, in any order.

        Raises:
            UnknownIndex: An index is negative or not below ``len(self)``.
        """
        wanted = list(self._checked(indices))
        if len(wanted) <= _FEW:
            mask = self.mask
            few = tuple(sorted({i for i in wanted if mask[i]}))
            return self._as(few, self.ailing.intersection(few), None)
        keep = bytearray(len(self))
        for i in wanted:
            keep[i] = 1
        return self._kept(keep)

    def only(self, eligible: Iterable[int]) -> NodeSet[N_co]:
        """Return what `restrict` does for indices known to be eligible here. O(their number)."""
        few = tuple(sorted(eligible))
        return self._as(few, self.ailing.intersection(few), None)

    def without(self, indices: Iterable[int]) -> NodeSet[N_co]:
        """Return a view with the same membership in which ``indices`` may not be chosen.

        Args:
            indices: Which to make ineligible, in any order.

        Raises:
            UnknownIndex: An index is negative or not below ``len(self)``.
        """
        return self.barring(self._checked_set(indices))

    def barring(self, gone: frozenset[int]) -> NodeSet[N_co]:
        """Return the view `without` these indices, which are known to be those of the set."""
        barred = self._barred
        if barred is None:
            keep = bytearray(b"\x01") * len(self)
            for i in gone:
                keep[i] = 0
            return self._kept(keep)
        more = gone.difference(self.membership.idle) if self.membership.idle else gone
        # At the speed of a copy, and shared where nothing is added.
        barred = more if barred <= more else more | barred
        return self._as(None, self.ailing - gone, barred)

    def derived(
        self, key: Hashable, make: Callable[[NodeSet[N_co]], NodeSet[N_co]]
    ) -> NodeSet[N_co]:
        """Return what ``make`` makes of this view, remembered by a key for as long as it lives.

        At most 32 are remembered. O(1) for one of them.
        """
        views = self._views
        if views is None:
            views = self._views = Memo()
        known = views.get(key)
        if known is None:
            known = make(self)
            views.keep(key, known)
        return known

    def marked(self, ailing: Iterable[int]) -> NodeSet[N_co]:
        """Return the same view with the nodes at these indices marked as ailing.

        Raises:
            UnknownIndex: An index is negative or not below ``len(self)``.
        """
        marks = self._checked_set(ailing)
        return self._as(self._eligible, marks, self._barred)

    def told(self, standing: MemberStanding) -> NodeSet[N_co]:
        """Return the same view with what a balancer knows of its nodes. O(1)."""
        view = self._as(self._eligible, self.ailing, self._barred)
        view._standing = standing  # noqa: SLF001 - a new one of its own class
        return view

    def warming(self, warm_up: WarmUp | None) -> NodeSet[N_co]:
        """Return the same view with the weights of a slow start, or without any. O(1)."""
        view = self._as(self._eligible, self.ailing, self._barred)
        view.warm_up = warm_up
        return view

    @property
    def at_full_weight(self) -> NodeSet[N_co]:
        """This view as it is without slow start; the view itself where there is none."""
        return self if self.warm_up is None else self.warming(None)

    @property
    def standing(self) -> MemberStanding | None:
        """Members that are down, and nodes that are no members; ``None`` without a balancer."""
        if self._standing is None and self.membership.owner is not None:
            return _ALL_WELL
        return self._standing

    def since(self, before: NodeSet[object]) -> tuple[list[int], list[int]] | None:
        """Return the indices that may be chosen no more, and those that may be again.

        ``None`` where these are views of different nodes, or differ by more than a few. O(indices
        that either rules out).
        """
        mine, others = self._barred, before._barred
        if mine is None or others is None or self.membership is not before.membership:
            return None
        if abs(len(mine) - len(others)) > _FEW:
            return None
        apart = mine ^ others
        if len(apart) > _FEW:
            return None
        return [i for i in apart if i in mine], [i for i in apart if i in others]

    @property
    def well(self) -> NodeSet[N_co]:
        """This view without the ailing; the view itself where there are none. O(n) once."""
        if not self.ailing:
            return self
        if self._well is None:
            self._well = self.without(self.ailing)
        return self._well

    def _checked_set(self, indices: Iterable[int]) -> frozenset[int]:
        """Return the indices once each, checked."""
        given = frozenset(indices)
        # Most often they are plain ones, and quicker to look at all at once.
        if not given:
            return given
        if set(map(type, given)) == _PLAIN and min(given) >= 0 and max(given) < len(self):
            return given
        return frozenset(self._checked(given))

    def _checked(self, indices: Iterable[int]) -> Iterator[int]:
        size = len(self)
        for i in map(as_index, indices):
            if not 0 <= i < size:
                raise UnknownIndex(f"index {i} is not in a NodeSet of {size} nodes")
            yield i

    def _kept(self, keep: bytearray) -> NodeSet[N_co]:
        ailing = frozenset(i for i in self.ailing if keep[i]) if self.ailing else _NOBODY
        return self._as(_among(self.eligible, keep), ailing, None)

    def _as(
        self,
        eligible: tuple[int, ...] | None,
        ailing: frozenset[int],
        barred: frozenset[int] | None,
    ) -> NodeSet[N_co]:
        """Return a view of the same nodes, of which others may be chosen."""
        view = _view(self.membership, eligible, ailing, barred)
        view._standing = self._standing  # noqa: SLF001 - a new one of its own class
        view.warm_up = self.warm_up
        return view

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


def _among(eligible: tuple[int, ...], keep: bytes | bytearray) -> tuple[int, ...]:
    if len(eligible) == len(keep):
        return tuple(compress(eligible, keep))
    return tuple([i for i in eligible if keep[i]])


def _view(
    membership: Membership[M],
    eligible: tuple[int, ...] | None,
    ailing: frozenset[int],
    barred: frozenset[int] | None,
) -> NodeSet[M]:
    view = cast("NodeSet[M]", NodeSet.__new__(NodeSet))
    view.membership = membership
    view.ailing = ailing
    view.warm_up = None
    # The constructor of this class for views.
    view._barred = barred  # noqa: SLF001
    view._eligible = eligible  # noqa: SLF001
    view._mask = None  # noqa: SLF001
    view._well = None  # noqa: SLF001
    view._views = None  # noqa: SLF001
    view._standing = None  # noqa: SLF001
    return view
