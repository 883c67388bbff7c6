"""Plans of the strategies that first choose a group: which groups are asked, in which order."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from collections.abc import Set as AbstractSet
from itertools import accumulate
from typing import Final, Generic, NamedTuple, TypeVar

from loadwise._native import mypyc_attr
from loadwise.node_set import MemberStanding, NodeSet
from loadwise.strategies._groups import Layout, NodeGroup, Outlook
from loadwise.strategies.protocols import ViewStrategy

__all__ = ["Division", "GroupPlan", "GroupView", "Headcount", "Stage", "looked_over", "usable"]

N = TypeVar("N")

_NOBODY: Final[frozenset[int]] = frozenset()
_ROUGH: Final = 1e-9


class Headcount(NamedTuple):
    """Number of nodes of a group, and what they amount to.

    Attributes:
        key: What the nodes of the group have in common.
        members: Those that count: the balancer's own filter admits them, and they are not drained.
        available: Those of them that are not UNHEALTHY.
        ailing: Those of them that are UNHEALTHY and get requests, because there is panic.
        power: Weights of the available, added up; in slow start, those they have by now.
    """

    key: Hashable
    members: int
    available: int
    ailing: int
    power: float


class Division(NamedTuple):
    """Division of the requests among groups, in their order.

    Attributes:
        percents: What each is given, in per cent; 100 in all.
        wanted: Whether each would be given some if its nodes were available, so that those of them
            that are due for a probe get one.
        spill: In what proportion others stand in where all that are given some have no candidate;
            ``None`` for one after the other.
        mixes: Whether ailing nodes are on a par with the others.
    """

    percents: Sequence[int | float]
    wanted: Sequence[bool]
    spill: Sequence[float] | None
    mixes: bool


def usable(counts: Sequence[Headcount]) -> list[int]:
    """Return how many nodes of each group are to be counted on.

    The available; where there are none at all the ailing, and without these all members.
    """
    found = [count.available for count in counts]
    if not any(found):
        found = [count.ailing for count in counts]
    return found if any(found) else [count.members for count in counts]


@mypyc_attr(allow_interpreted_subclasses=True)
class GroupView(Generic[N]):
    """Candidates within one group, and who chooses among them."""

    __slots__ = ("group", "indices", "nodes", "number", "strategy")

    def __init__(self, group: NodeGroup[N], number: int, nodes: NodeSet[N]) -> None:
        self.group = group
        self.number = number
        self.indices = group.indices
        self.nodes = nodes
        self.strategy: ViewStrategy[N] = group.inner.strategy


@mypyc_attr(allow_interpreted_subclasses=True)
class Stage(Generic[N]):
    """Groups that are asked until one has a candidate.

    Attributes:
        parts: The groups.
        sums: Of their shares, up to each; ``None`` where they are asked in order.
    """

    __slots__ = ("parts", "sums")

    def __init__(self, parts: list[GroupView[N]], shares: Sequence[float] | None) -> None:
        self.parts = parts
        self.sums: list[float] | None = None if shares is None else list(accumulate(shares))


@mypyc_attr(allow_interpreted_subclasses=True)
class GroupPlan(Generic[N]):
    """Order in which the groups of a view are asked.

    It must not refer to the NodeSet it was made for, or neither could ever be collected.

    Attributes:
        layout: The groups.
        stages: In this order, each only where those before it have no candidate.
        parts: The groups of the first stage.
        sums: Of their shares; empty where they are asked in order, or there is none.
        last: Position of the last of these; -1 if there is none.
        views: Of each group all that may be chosen, by number.
        counts: The groups' nodes, counted.
        division: What each group is given.
    """

    __slots__ = ("counts", "division", "last", "layout", "parts", "stages", "sums", "views")

    def __init__(
        self,
        layout: Layout[N],
        views: list[NodeSet[N]],
        counts: list[Headcount],
        division: Division,
    ) -> None:
        self.layout = layout
        self.views = views
        self.counts = counts
        self.division = division
        stages = self.stages = _stages(layout, views, counts, division)
        self.parts: list[GroupView[N]] = stages[0].parts if stages else []
        sums = stages[0].sums if stages else None
        self.sums: list[float] = [] if sums is None else sums
        self.last = len(self.sums) - 1


def looked_over(layout: Layout[N], nodes: NodeSet[N]) -> tuple[list[NodeSet[N]], list[Headcount]]:
    """Return the view of each group, and its nodes counted."""
    standing = nodes.standing
    told = [None] * len(layout.groups) if standing is None else layout.told(standing)
    ailing = layout.split(nodes.ailing)
    factors: dict[int, dict[int, float]] = {}
    for index, factor in nodes.warm_up.factors.items() if nodes.warm_up is not None else ():
        number = layout.number[index]
        factors.setdefault(number, {})[layout.groups[number].place(index)] = factor
    counted = nodes.barred is not None
    found = layout.split(nodes.eligible if nodes.barred is None else nodes.barred)
    views: list[NodeSet[N]] = []
    for number, group in enumerate(layout.groups):
        barred = frozenset(found.get(number, ())) if counted else _NOBODY
        weak, slow = frozenset(ailing.get(number, ())), factors.get(number, {})
        outlook = Outlook(barred, weak, told[number], slow)
        views.append(group.view(outlook) if counted else group.only(found.get(number, ()), outlook))
    if standing is None:
        return views, [_seen(*pair) for pair in zip(layout.groups, views, strict=True)]
    # Views that one request narrows are made often, and what is counted is the same in all.
    weights = nodes.weights
    known = layout.counts
    if known is None or known[0] is not standing or known[1] is not weights:
        grouped = zip(layout.groups, views, layout.told(standing), strict=True)
        counts = [_counted(group, view, mine) for group, view, mine in grouped]
        known = layout.counts = (standing, weights, counts)
    return views, known[2]


def _seen(group: NodeGroup[N], view: NodeSet[N]) -> Headcount:
    """Count the nodes of a group of which no balancer tells more than the view does."""
    everybody = view.membership.eligible
    ailing = view.ailing.intersection(view.eligible) if view.ailing else _NOBODY
    available = _open(view) - len(ailing)
    gone: AbstractSet[int] | None = None if view.barred is None else view.barred.union(ailing)
    if gone is None:
        gone = set(everybody).difference(view.eligible).union(ailing)
    power = _power(view, gone) if available else 0
    return Headcount(group.key, len(everybody), available, len(ailing), power)


def _counted(group: NodeGroup[N], view: NodeSet[N], standing: MemberStanding) -> Headcount:
    """Count the nodes of a group of which a balancer tells."""
    weights = view.weights
    outside = [i for i in standing.outside if weights[i]]
    members = len(view.membership.eligible) - len(outside)
    available = members - len(standing.down)
    power = _power(view, standing.down.union(outside)) if available else 0
    return Headcount(group.key, members, available, len(standing.ailing), power)


def _power(view: NodeSet[N], gone: AbstractSet[int]) -> float:
    """Return the weights of all but some, added up. O(different weights, and those)."""
    membership, weights = view.membership, view.weights
    total: float = sum([weight * number for weight, number in view.tally.items()])
    power = total - sum([weights[i] for i in gone])
    if power < total * _ROUGH:  # rounding may have left nothing of them, or less
        return sum([weights[i] for i in membership.eligible if i not in gone])
    return power


def _open(view: NodeSet[N]) -> int:
    """Return how many may be chosen, without asking for each."""
    barred = view.barred
    return len(view.eligible) if barred is None else len(view.membership.eligible) - len(barred)


def _stages(
    layout: Layout[N],
    views: Sequence[NodeSet[N]],
    counts: Sequence[Headcount],
    division: Division,
) -> list[Stage[N]]:
    """Return whom to ask, and in which order."""
    # Where nobody is available, and nobody ailing, those who may be chosen are no exception.
    hope = any(count.available or count.ailing for count in counts)
    due: list[GroupView[N]] = []
    drawn: list[tuple[GroupView[N], float]] = []
    rest: list[tuple[GroupView[N], float]] = []
    later: list[GroupView[N]] = []
    for number, group in enumerate(layout.groups):
        view, percent = views[number], division.percents[number]
        well = view if division.mixes else view.well
        part = GroupView(group, number, well)
        if well is not view and _open(view) > _open(well):
            later.append(GroupView(group, number, view))
        if not _open(well):
            continue
        none_available = hope and not counts[number].available
        if none_available and division.wanted[number] and _open(view.well):
            due.append(part if well is view.well else GroupView(group, number, view.well))
        if percent:
            drawn.append((part, percent))
        else:
            rest.append((part, 0.0 if division.spill is None else division.spill[number]))
    stages = [Stage(due, None)] if due else []
    if drawn:
        stages.append(Stage([part for part, _ in drawn], [share for _, share in drawn]))
    in_proportion = [(part, share) for part, share in rest if share]
    if in_proportion:
        parts, spill = [part for part, _ in in_proportion], [share for _, share in in_proportion]
        stages.append(Stage(parts, spill))
    in_order = [part for part, share in rest if not share]
    if in_order:
        stages.append(Stage(in_order, None))
    if later:
        stages.append(Stage(later, None))
    return stages
