"""The balancer's immutable picture of who may be chosen now."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import count
from typing import Generic, TypeVar

from loadwise.filters import Filter, StateSource, Watch, accepts
from loadwise.health import HealthTracker
from loadwise.load import Cell, Forgetful, LoadMeasure
from loadwise.node_set import NodeSet
from loadwise.outcome import Outcome
from loadwise.quota import QuotaSource

__all__ = ["Meter", "Slot", "View", "make_view", "why_it_rests"]

N = TypeVar("N")

Observe = Callable[[Cell, float, Outcome, float], None]


class Meter:
    """A load measure, with what requests need of it looked up once for all nodes.

    Attributes:
        cell: Gives a node's entry.
        observe: Told how each request ends; ``None`` for a measure that only counts.
        forget: Told when a node is down, where the measure wants to know.
    """

    __slots__ = ("cell", "forget", "observe")

    def __init__(self, measure: LoadMeasure) -> None:
        self.cell = measure.cell
        counts_only = getattr(measure, "counts_only", False)
        self.observe: Observe | None = None if counts_only else measure.observe
        self.forget = measure.forget if isinstance(measure, Forgetful) else None


class Slot:
    """What the balancer keeps of one member, for as long as it is one.

    Attributes:
        cell: Its entry in the first measure.
        in_flight: The same, as the list it is: its length is the number of requests in flight.
        others: Cells of further measures, to be counted alike.
        observe: Tells the measure of the cell how a request ended; ``None`` if it only counts.
        observers: Further measures to tell, each with its cell.
        forgetters: Measures to tell when the node is down, each with its cell.
        picks: How often the member was chosen.
    """

    __slots__ = (
        "alive",
        "cell",
        "draining",
        "forgetters",
        "id",
        "in_flight",
        "latency",
        "observe",
        "observers",
        "others",
        "picks",
    )

    def __init__(self, node_id: Hashable, meters: Iterable[Meter]) -> None:
        self.id = node_id
        self.alive = True
        self.draining = False
        self.latency: float | None = None
        self.picks = count()
        pairs = [(meter, meter.cell(node_id)) for meter in meters]
        self.cell = pairs[0][1]
        self.in_flight: list[None] = self.cell
        self.others: tuple[list[None], ...] = tuple(cell for _, cell in pairs[1:])
        self.observe = pairs[0][0].observe
        self.observers = tuple(
            (meter.observe, cell) for meter, cell in pairs[1:] if meter.observe is not None
        )
        self.forgetters = tuple(
            (meter.forget, cell) for meter, cell in pairs if meter.forget is not None
        )

    def forget(self) -> None:
        """Have the measures forget what they know of the node."""
        for forget, cell in self.forgetters:
            forget(cell)

    def enter_others(self) -> None:
        """Count a request in with the further measures."""
        for cell in self.others:
            cell.append(None)

    def leave_others(self) -> None:
        """Count a request out with the further measures."""
        for cell in self.others:
            cell.pop()

    def fresh(self, meters: Iterable[Meter]) -> Slot:
        """Return a slot for the same member with nothing in flight."""
        slot = Slot(self.id, meters)
        slot.latency, slot.draining = self.latency, self.draining
        return slot


class View(Generic[N]):
    """Who may be chosen, as of the versions of health, quota and filters it was made from.

    Attributes:
        nodes: The members, restricted to those that may be chosen.
        members: The same nodes, by index.
        slots: Their slots, by index.
        ruled_out: Why the others may not be chosen, by index.
        probes: Indices of UNHEALTHY nodes whose one probe is due.
        health_version: Version of the health it shows.
        quota_version: Version of the quotas it shows.
        unwatched: A filter of which nobody knows when its answer changes, to be asked each time.
        plain: Whether a request may be given any index that the strategy returns: no probe to
            grant, no quota to reserve, no filter to ask.
        watch: Tells whether it still holds; ``None`` when the two versions tell all.
    """

    __slots__ = (
        "health_version",
        "members",
        "nodes",
        "plain",
        "probes",
        "quota_version",
        "ruled_out",
        "slots",
        "unwatched",
        "watch",
    )

    nodes: NodeSet[N]
    members: tuple[N, ...]
    slots: tuple[Slot, ...]
    ruled_out: dict[int, str]
    probes: frozenset[int]
    health_version: int
    quota_version: int
    unwatched: Filter[N] | None
    plain: bool
    watch: Watch | None


def make_view(
    whole: NodeSet[N],
    slots: tuple[Slot, ...],
    health: HealthTracker | None,
    pauses: QuotaSource,
    where: Filter[N] | None,
    *,
    has_quota: bool,
) -> View[N]:
    """Work out who may be chosen now. O(n)."""
    filter_sources = None if where is None else where.sources()
    own: list[StateSource] = [pauses] if health is None else [pauses, health]
    others = [source for source in filter_sources or () if source not in own]
    view: View[N] = View()
    # Versions are read before the state, so that a change in between is noticed later.
    view.health_version = 0 if health is None else health.version
    view.quota_version = pauses.version
    watch = Watch([*own, *others])
    view.watch = watch if watch.timed or others else None
    view.unwatched = where if filter_sources is None else None

    ruled_out: dict[int, str] = {}
    if where is not None and view.unwatched is None:
        ruled_out.update(
            (i, "filtered") for i, node in enumerate(whole) if not accepts(where, node)
        )
    ruled_out.update(_sitting_out(whole, pauses))
    down = {} if health is None else _down(whole, health)
    ruled_out.update((i, "unhealthy") for i, may_probe in down.items() if not may_probe)
    ruled_out.update(
        (i, "drained") for i, slot in enumerate(slots) if slot.draining or not whole.weights[i]
    )
    view.ruled_out = ruled_out
    view.probes = frozenset(i for i, due in down.items() if due and i not in ruled_out)
    view.plain = view.watch is None and view.unwatched is None and not view.probes and not has_quota
    view.nodes = whole.without(ruled_out) if ruled_out else whole
    view.members = whole.membership.nodes
    view.slots = slots
    return view


def _sitting_out(whole: NodeSet[N], pauses: QuotaSource) -> Iterator[tuple[int, str]]:
    for identity in pauses.unavailable():
        index = whole.index_of(identity)
        if index is not None:
            yield index, why_it_rests(identity, pauses)


def why_it_rests(identity: Hashable, pauses: QuotaSource) -> str:
    """Return the reason for which a node sits out now."""
    return "quota" if pauses.rests_until(identity) is None else "rate_limited"


def _down(whole: NodeSet[N], health: HealthTracker) -> dict[int, bool]:
    """Return the indices of the UNHEALTHY, each with whether it may be probed now."""
    found = ((whole.index_of(identity), may_probe) for identity, may_probe in health.down())
    return {index: may_probe for index, may_probe in found if index is not None}
