"""Immutable view of who in a balancer may be chosen now."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from loadwise.balancer.host import HostWatch
from loadwise.balancer.panic import Panic, PanicRule
from loadwise.balancer.reason_counts import Tally
from loadwise.balancer.slot import Slot
from loadwise.balancer.slow_start import Phase, SlowStarts
from loadwise.balancer.times_back import Cost
from loadwise.filters import Filter, StateSource, Watch, accepts, turned_away
from loadwise.health import HealthStatus, HealthTracker
from loadwise.node_set import MemberStanding, NodeSet
from loadwise.outliers import Ejector
from loadwise.quota import QuotaSource

__all__ = [
    "Grounds",
    "View",
    "admits",
    "cooldown_reason",
    "has_answered",
    "make_view",
    "no_view",
]

N = TypeVar("N")


class View(Generic[N]):
    """Snapshot of who may be chosen, made from some versions of health, quota and filters.

    Attributes:
        nodes: The members, restricted to those that may be chosen; the ailing are marked.
        members: The same nodes, by index.
        slots: Their slots, by index.
        ruled_out: Why the others may not be chosen, by index.
        probes: Indices of UNHEALTHY nodes whose one probe is due.
        recovering: Indices of RECOVERING nodes, which are given no more than they need; empty in
            panic.
        down: Indices of members that are UNHEALTHY.
        panic: How bad it is, while there is panic.
        candidates: In panic, the indices of the members that are available or ailing.
        others: In panic, the members beside the candidates, restricted to those that may be
            chosen where a request excludes all candidates.
        health_version: Version of the health it shows.
        quota_version: Version of the quotas it shows; -1 where whoever is in a hurry must look
            closer all the same.
        shown_quota_version: Version of the quotas it shows.
        phase: Weights of nodes in slow start, as they are for a while; ``None`` without the rule.
        turned_away: Indices of members that the balancer's filter does not admit, ascending.
        where: The balancer's filter, if it has one.
        asked: Tells whether the filter would say the same again; ``None`` if it may not.
        admitted: The last answers of a filter that may change its mind at any time, by index.
        plain: Whether a request may be given any index that the strategy returns: no probe to
            grant, no quota to reserve, no filter to ask, nothing to count. A node with a limit must
            have room besides.
        due: When outliers are looked for next, by the balancer's clock; inf for never.
        until: The same for a plain view, -inf for another, so that one comparison tells of both.
        watch: Tells whether it still holds; ``None`` when the two versions tell all.
        tallies: Why members are ruled out, counted for errors, by cost and by whether nodes are
            given in spite of their health.
    """

    __slots__ = (
        "admitted",
        "asked",
        "candidates",
        "down",
        "due",
        "health_version",
        "members",
        "nodes",
        "others",
        "panic",
        "phase",
        "plain",
        "probes",
        "quota_version",
        "recovering",
        "ruled_out",
        "shown_quota_version",
        "slots",
        "tallies",
        "turned_away",
        "until",
        "watch",
        "where",
    )

    nodes: NodeSet[N]
    members: tuple[N, ...]
    slots: tuple[Slot, ...]
    ruled_out: dict[int, str]
    probes: frozenset[int]
    recovering: frozenset[int]
    down: frozenset[int]
    panic: Panic | None
    candidates: frozenset[int]
    others: NodeSet[N] | None
    health_version: int
    quota_version: int
    shown_quota_version: int
    phase: Phase | None
    turned_away: tuple[int, ...]
    where: Filter[N] | None
    asked: Watch | None
    admitted: bytes | None
    plain: bool
    due: float
    until: float
    watch: Watch | None
    tallies: dict[tuple[Cost, bool], Tally]

    def expire(self, at: float) -> None:
        """Have it looked at again then, at the latest."""
        self.until = min(self.due, at) if self.plain else -math.inf


def no_view(nodes: NodeSet[N]) -> View[N]:
    """Return what stands for the view before the first; nobody is known to be out."""
    view: View[N] = View()
    view.nodes = nodes
    view.asked = None
    view.phase = None
    return view


def has_answered(before: View[Any], view: View[Any], health: HealthTracker) -> bool:
    """Tell whether a node that was down in the view before, and is still a member, is up again."""
    were_down = [before.nodes.ids[i] for i in before.down]
    return any(
        view.nodes.index_of(identity) is not None
        and health.status(identity) is not HealthStatus.UNHEALTHY
        for identity in were_down
    )


def admits(where: Filter[N], whole: NodeSet[N]) -> bytes:
    """Return a filter's answers now, one byte per index. O(n)."""
    return bytes([accepts(where, node) for node in whole.membership.nodes])


class Grounds(NamedTuple):
    """Grounds, beside the members themselves, on which nodes may be chosen.

    Attributes:
        health: Who knows the health, if anyone.
        quota: Source of quotas, which also knows the cooldowns.
        where: A filter that holds for every request.
        rule: When there is panic; ``None`` for never.
        has_quota: Whether quota is to be reserved for each request, too.
        slow: Who is in slow start; ``None`` without the rule.
        watch: What others of the host are looked after by, if health is shared with any.
        ejector: Who ejects outliers, if anyone.
    """

    health: HealthTracker | None
    quota: QuotaSource
    where: Filter[Any] | None
    rule: PanicRule | None
    has_quota: bool
    slow: SlowStarts | None
    watch: HostWatch | None
    ejector: Ejector | None = None

    @property
    def due(self) -> float:
        """When outliers are looked for next; inf for never."""
        return math.inf if self.ejector is None else self.ejector.due

    def catch_up(self) -> None:
        """Take in what is known of the members' health, and has not been looked at yet."""
        if self.health is not None:
            self.health.catch_up()
        if self.ejector is not None:
            self.ejector.catch_up()


def make_view(
    whole: NodeSet[N],
    slots: tuple[Slot, ...],
    grounds: Grounds,
    *,
    before: View[N],
    draining: Iterable[int],
    answers: bytes | None,
) -> View[N]:
    """Work out who may be chosen now. O(nodes that may not), and O(n) to ask the filter.

    Args:
        whole: The members.
        slots: Their slots, by index.
        grounds: What decides beside them.
        before: The view before. The filter is not asked again while its sources are the same.
        draining: Indices of members that may be drained: their slots tell.
        answers: Those of a filter that may change its mind at any time, by index.
    """
    health, quota, where, rule, has_quota, slow, watching, _ = grounds
    filter_sources = None if where is None else where.sources()
    own: list[StateSource] = [quota] if health is None else [quota, health]
    others = [source for source in filter_sources or () if source not in own]
    view: View[N] = View()
    view.tallies = {}
    # Versions are read before the state, so that a change in between is noticed later.
    view.health_version, view.due = 0 if health is None else health.version, grounds.due
    view.quota_version = view.shown_quota_version = quota.version
    watch = Watch([*own, *others])

    view.admitted, view.where = answers, where
    same = before.nodes.membership is whole.membership
    if same and before.asked is not None and before.asked.holds():
        view.turned_away, view.asked = before.turned_away, before.asked
    else:
        view.asked = None if filter_sources is None else Watch(filter_sources)
        view.turned_away = () if where is None else _turned_away(where, whole, answers)
    not_members: dict[int, str] = dict.fromkeys(view.turned_away, "filtered")
    drained = [i for i in draining if slots[i].draining]
    not_members.update(dict.fromkeys(sorted({*drained, *whole.membership.idle}), "drained"))
    by_quota = dict(_ruled_out_by_quota(whole, quota))
    down = {} if health is None else _down(whole, health, not_members)
    view.down = frozenset(down)

    view.panic, ailing = None, dict[int, float]()
    members = len(whole) - len(not_members)
    if rule is not None and health is not None and rule.judge(members, len(down), 0) is not None:
        ailing = _ailing(whole, health, rule.window, down)
        view.panic = rule.judge(members, len(down), len(ailing))
    if view.panic is None:
        ailing = {}
    dead = _dead(down, ailing, view.panic)
    for until in ailing.values():
        watch.until(quota.clock if health is None else health.clock, until)

    view.ruled_out = ruled_out = {
        **by_quota,
        **dict.fromkeys([i for i, may_probe in dead.items() if not may_probe], "unhealthy"),
        **not_members,
    }
    view.probes = frozenset([i for i, due in dead.items() if due and i not in ruled_out])
    view.recovering = frozenset()
    if health is not None and view.panic is None:
        view.recovering = _indices(whole, health.recovering()).difference(ruled_out)
    view.candidates, view.others = frozenset(), None
    if view.down or not_members:
        whole = whole.told(MemberStanding(view.down, not_members, frozenset(ailing)))
    if view.panic is not None and dead:
        view.candidates = frozenset(range(len(whole))).difference(not_members, dead)
        view.others = whole.restrict(dead.keys() - by_quota.keys())
    view.watch = watch if watch.timed or others else None
    view.plain = not (
        view.watch is not None
        or view.admitted is not None
        or view.probes
        or view.recovering
        or has_quota
        or (view.panic is not None and view.panic.last_resort)
    )
    view.expire(math.inf if watching is None else watching.due)
    view.nodes = _left(view, whole, before, slow)
    if ailing:
        view.nodes = view.nodes.marked(ailing)
    view.members, view.slots = whole.membership.nodes, slots
    return view


def _left(view: View[N], whole: NodeSet[N], before: View[N], slow: SlowStarts | None) -> NodeSet[N]:
    """Return those who are not ruled out, by their present weights; note of which phase."""
    view.phase = None
    if slow is not None:
        panic = view.panic is not None
        view.phase = slow.phase(whole.membership, before.phase, panic=panic)
        if view.phase.warm_up is not None:
            view.quota_version = -1
            whole = whole.warming(view.phase.warm_up)
    return whole.without(view.ruled_out) if view.ruled_out else whole


def _turned_away(where: Filter[N], whole: NodeSet[N], answers: bytes | None) -> tuple[int, ...]:
    if answers is None:
        return tuple(turned_away(where, whole))
    return tuple([i for i, answer in enumerate(answers) if not answer])


def _ruled_out_by_quota(whole: NodeSet[N], quota: QuotaSource) -> Iterator[tuple[int, str]]:
    for identity in quota.unavailable():
        index = whole.index_of(identity)
        if index is not None:
            yield index, cooldown_reason(identity, quota)


def cooldown_reason(identity: Hashable, quota: QuotaSource) -> str:
    """Return why a node is ruled out by its quota: it is used up, or the node is on cooldown."""
    return "quota" if quota.cooldown_until(identity) is None else "rate_limited"


def _down(
    whole: NodeSet[N], health: HealthTracker, not_members: Mapping[int, str]
) -> dict[int, bool]:
    """Return the indices of members that are UNHEALTHY, each with whether it may be probed now."""
    # A loop, because with many nodes down this is most of what a change costs.
    found: dict[int, bool] = {}
    index_of = whole.membership.index_of
    for identity, may_probe in health.down():
        index = index_of(identity)
        if index is not None and index not in not_members:
            found[index] = may_probe
    return found


def _dead(
    down: dict[int, bool], ailing: Mapping[int, float], panic: Panic | None
) -> dict[int, bool]:
    """Return those of the members that are down who are given no requests."""
    if panic is None:
        return down
    if panic.last_resort:
        return {}
    return {i: may_probe for i, may_probe in down.items() if i not in ailing}


def _ailing(
    whole: NodeSet[N], health: HealthTracker, window: float, down: Mapping[int, bool]
) -> dict[int, float]:
    """Return the indices of members that are ailing, each with when that lapses."""
    found = ((whole.index_of(identity), until) for identity, until in health.ailing(window).items())
    return {index: until for index, until in found if index is not None and index in down}


def _indices(whole: NodeSet[N], ids: Iterable[Hashable]) -> frozenset[int]:
    found = map(whole.index_of, ids)
    return frozenset(index for index in found if index is not None)
