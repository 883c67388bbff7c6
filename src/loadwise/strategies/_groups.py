"""Nodes in groups, each a set of its own, which stays the same while nothing in it changes.

The strategy of a group is shown the group alone: its indices, its weights, its exclusions. So what
happens to the nodes of one group costs the strategies of the others nothing, and a strategy's
tables are as large as its group.
"""

from __future__ import annotations

from bisect import bisect_left
from operator import is_
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from loadwise._membership import Content, Membership, WarmUp
from loadwise.node_set import MemberStanding, NodeSet

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

    from loadwise.strategies.protocols import ViewStrategy

__all__ = ["Inner", "Layout", "NodeGroup", "Outlook", "laid_out"]

N = TypeVar("N")

_NOBODY: frozenset[int] = frozenset()


class Inner(Generic[N]):
    """Strategy of one group, which lives for as long as anyone has nodes of that group."""

    __slots__ = ("__weakref__", "strategy")

    def __init__(self, strategy: ViewStrategy[N]) -> None:
        self.strategy = strategy


class Outlook:
    """State of the nodes of one group, by their indices in it.

    Attributes:
        barred: Those that have a weight and may not be chosen.
        ailing: Those that are marked as ailing.
        standing: What their balancer knows of them; ``None`` where there is none.
        factors: What part of their weight those in slow start have.
    """

    __slots__ = ("ailing", "barred", "factors", "standing")

    def __init__(
        self,
        barred: frozenset[int],
        ailing: frozenset[int],
        standing: MemberStanding | None,
        factors: Mapping[int, float],
    ) -> None:
        self.barred = barred
        self.ailing = ailing
        self.standing = standing
        self.factors = factors

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Outlook)
            and self.barred == other.barred
            and self.ailing == other.ailing
            and self.standing == other.standing
            and self.factors == other.factors
        )

    __hash__ = None  # type: ignore[assignment]  # compared only


class NodeGroup(Generic[N]):
    """Nodes of one group of a layout.

    Attributes:
        key: What they have in common.
        inner: Who chooses among them.
        indices: Their indices in the whole, ascending, by index in the group.
        whole: All of them, as a set of their own.
    """

    __slots__ = ("_seen", "indices", "inner", "key", "whole")

    def __init__(
        self, key: Hashable, inner: Inner[N], indices: list[int], whole: NodeSet[N]
    ) -> None:
        self.key = key
        self.inner = inner
        self.indices = indices
        self.whole = whole
        # The last view of them, so that it is the same one as long as nothing in it changes.
        self._seen: tuple[Outlook, NodeSet[N]] = (Outlook(_NOBODY, _NOBODY, None, {}), whole)

    def moved(self, indices: list[int]) -> NodeGroup[N]:
        """Return the same group, whose nodes have other indices in the whole."""
        twin = NodeGroup(self.key, self.inner, indices, self.whole)
        twin._seen = self._seen
        return twin

    def place(self, index: int) -> int:
        """Return the index in the group of one in the whole. O(log n)."""
        return bisect_left(self.indices, index)

    def view(self, outlook: Outlook) -> NodeSet[N]:
        """Return the nodes as they are seen so; the same set as the last time if that fits."""
        seen = self._seen
        if seen[0] == outlook:
            return seen[1]
        view = self.whole.barring(outlook.barred) if outlook.barred else self.whole
        view = _marked(view, outlook)
        self._seen = outlook, view
        return view

    def only(self, places: Iterable[int], outlook: Outlook) -> NodeSet[N]:
        """Return a view in which these alone may be chosen. O(their number)."""
        return _marked(self.whole.only(places), outlook)


def _marked(view: NodeSet[N], outlook: Outlook) -> NodeSet[N]:
    if outlook.ailing:
        view = view.marked(outlook.ailing)
    standing = outlook.standing
    if standing is not None and (standing.down or standing.outside):
        view = view.told(standing)
    if outlook.factors:
        view = view.warming(WarmUp(view.membership, outlook.factors))
    return view


class Layout(Generic[N]):
    """Groups of a membership, in the order in which they are asked.

    Attributes:
        groups: The groups.
        number: By index of a node, the number of its group among them.
        counts: What was last counted in the groups, by what it was counted from.
    """

    __slots__ = ("_told", "counts", "groups", "number")

    def __init__(self, groups: list[NodeGroup[N]], number: list[int]) -> None:
        self.groups = groups
        self.number = number
        self.counts: tuple[MemberStanding, Sequence[float], list[Any]] | None = None
        self._told: tuple[MemberStanding | None, list[MemberStanding]] = (None, [])

    def told(self, standing: MemberStanding) -> list[MemberStanding]:
        """Return what a balancer tells of the nodes of each group, by its number.

        O(those it tells of), once for all views of which it tells the same.
        """
        known = self._told
        if known[0] is standing:
            return known[1]
        down, ailing = self.split(standing.down), self.split(standing.ailing)
        outside: dict[int, dict[int, str]] = {}
        for index, why in standing.outside.items():
            number = self.number[index]
            outside.setdefault(number, {})[self.groups[number].place(index)] = why
        told = [
            MemberStanding(
                frozenset(down.get(number, ())),
                outside.get(number, {}),
                frozenset(ailing.get(number, ())),
            )
            for number in range(len(self.groups))
        ]
        self._told = standing, told
        return told

    def split(self, indices: Iterable[int]) -> dict[int, list[int]]:
        """Return indices in the groups, by the groups' numbers. O(log n) for each."""
        found: dict[int, list[int]] = {}
        for index in indices:
            number = self.number[index]
            found.setdefault(number, []).append(self.groups[number].place(index))
        return found

    def keys(self) -> list[Hashable]:
        """Return the keys of all nodes, by index."""
        known = [group.key for group in self.groups]
        return [known[number] for number in self.number]

    def joined(self, node: N, key: Hashable) -> Layout[N] | None:
        """Return the layout with a node more, at the end; ``None`` if no group has its key."""
        numbers = [i for i, group in enumerate(self.groups) if group.key == key]
        if not numbers:
            return None
        [number] = numbers
        old, size = self.groups[number], len(self.number)
        whole = NodeSet.of_membership(old.whole.membership.joined(node))
        groups = self.groups.copy()
        groups[number] = NodeGroup(old.key, old.inner, [*old.indices, size], whole)
        return Layout(groups, [*self.number, number])

    def parted(self, cut: int) -> Layout[N] | None:
        """Return the layout without the node at an index; ``None`` if the groups may change.

        That is so if it is the first of its group, by which groups may be in order.
        """
        number = self.number[cut]
        old = self.groups[number]
        place = old.place(cut)
        if not place:
            return None
        groups = [group.moved(_closed_up(group.indices, cut)) for group in self.groups]
        whole = NodeSet.of_membership(old.whole.membership.parted(place))
        groups[number] = NodeGroup(old.key, old.inner, groups[number].indices, whole)
        return Layout(groups, self.number[:cut] + self.number[cut + 1 :])


def _closed_up(indices: list[int], cut: int) -> list[int]:
    """Return indices without one, those above it one lower."""
    place = bisect_left(indices, cut)
    rest = indices[place:]
    if rest and rest[0] == cut:
        del rest[0]
    return indices[:place] + [i - 1 for i in rest]


def laid_out(
    nodes: NodeSet[N],
    keys: Sequence[Hashable],
    order: Callable[[Iterable[Any]], list[Any]],
    inner: Callable[[Hashable, Sequence[N]], Inner[N]],
    before: Layout[N] | None,
) -> Layout[N]:
    """Lay the groups of some nodes out. O(n).

    Args:
        nodes: The nodes; who of them may be chosen does not matter.
        keys: What puts each into its group, by index.
        order: Puts the keys into order.
        inner: Gives the strategy of a group, by its key and its nodes.
        before: A layout whose groups are kept where nothing in them has changed.
    """
    found: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        found.setdefault(key, []).append(index)
    ordered = order(found)
    old = {} if before is None else {group.key: group for group in before.groups}
    groups: list[NodeGroup[N]] = []
    for key in ordered:
        indices, known = found[key], old.get(key)
        members = tuple([nodes.membership.nodes[i] for i in indices])
        content = _content(nodes.membership.content, indices)
        if known is not None and _same(known.whole.membership, members, content, nodes):
            groups.append(known.moved(indices))
            continue
        membership = Membership(members, content)
        membership.owner, membership.is_part = nodes.membership.owner, True
        whole = NodeSet.of_membership(membership)
        groups.append(NodeGroup(key, inner(key, members), indices, whole))
    numbers = {key: number for number, key in enumerate(ordered)}
    return Layout(groups, [numbers[key] for key in keys])


def _same(known: Membership[N], members: Sequence[N], content: Content, nodes: NodeSet[N]) -> bool:
    return (
        known.owner is nodes.membership.owner
        and len(known.nodes) == len(members)
        and all(map(is_, known.nodes, members))
        and known.content == content
    )


def _content(whole: Content, indices: Sequence[int]) -> Content:
    """Return what was read of some of the nodes when they joined."""
    kinds = tuple([whole.kinds[i] for i in indices])
    return Content(
        tuple([whole.ids[i] for i in indices]),
        tuple([whole.weights[i] for i in indices]),
        kinds,
        kinds.index(object) if object in kinds else None,
    )
