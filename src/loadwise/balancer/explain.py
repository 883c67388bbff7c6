"""Explanations of why a request would go where it would go, or nowhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from loadwise.balancer.admission import Admission
from loadwise.balancer.asked_nodes import Asked
from loadwise.balancer.cooldowns import Cooldowns
from loadwise.balancer.reason_counts import BY_QUOTA, Tally
from loadwise.balancer.request import Request
from loadwise.balancer.status import Explanation
from loadwise.balancer.times_back import NEVER, cost_of, journal_of
from loadwise.balancer.view import View, cooldown_reason
from loadwise.errors import NoNodeAvailable
from loadwise.filters import Filter
from loadwise.health import HealthTracker
from loadwise.node_set import NodeSet
from loadwise.quota import QuotaSource
from loadwise.strategies.adapter import Unforeseeable, strategy_name
from loadwise.strategies.protocols import ViewStrategy

__all__ = ["explain", "no_node_available"]

N = TypeVar("N")

_MOST_COSTS = 32


def explain(
    balancer: str,
    strategy: ViewStrategy[N],
    view: View[N],
    request: Request[N],
    quota: QuotaSource | None,
    admission: Admission[N],
    cooldowns: Cooldowns,
) -> Explanation:
    """Tell where ``request`` would go, given ``view``, and change nothing."""
    among, nodes = view.nodes, request.restrict(view.nodes)
    if (
        view.others is not None
        and view.candidates <= request.excluded
        and request.excluded.issuperset(nodes.eligible)
    ):
        among, nodes = view.others, request.restrict(view.others)
    lacking = {i: "full" for i in nodes.eligible if view.slots[i].is_full}
    if quota is not None:
        for i in nodes.eligible:
            # The clock is read last: what is available now was so a moment ago.
            if quota.available_at(nodes.ids[i], request.cost) > quota.clock():
                lacking[i] = "quota"
    refused = {i: "recovering" for i in nodes.eligible if admission.is_passed_over(view, i)}
    foreseeable, index, passed_over = True, None, refused
    first: int | None = None
    try:
        if refused and strategy.peek(nodes, request.context(refused | lacking)) is None:
            refused = {}  # there is nobody else
        index = strategy.peek(nodes, request.context({}))
        asks_again = index in passed_over and len(nodes.eligible) > 1
        if index in lacking or index in refused or asks_again:
            # The balancer will ask again without it, but what is drawn then nobody knows.
            foreseeable, index, first = False, None, index
    except Unforeseeable:
        foreseeable = False
    chosen_from = frozenset(nodes.eligible)
    ruled_out = {i: "filtered" for i in among.eligible if i not in chosen_from}
    ruled_out |= {i: why for i, why in view.ruled_out.items() if i not in chosen_from}
    ruled_out |= refused | lacking
    ruled_out |= {i: "excluded" for i in request.excluded if view.nodes.mask[i] or nodes.mask[i]}
    nodes = nodes.restrict([i for i in nodes.eligible if i not in ruled_out])
    if not nodes.eligible:
        foreseeable, index, first = True, None, None
    facts = strategy.facts(nodes)
    return Explanation(
        balancer=balancer,
        strategy=strategy_name(strategy),
        ineligible={nodes.ids[i]: ruled_out[i] for i in sorted(ruled_out)},
        eligible=tuple(nodes.ids[i] for i in nodes.eligible),
        seen={
            nodes.ids[i]: {fact: values[i] for fact, values in facts.items()} | _slowness(nodes, i)
            for i in nodes.eligible
        },
        choice=None if index is None else nodes.ids[index],
        foreseeable=foreseeable,
        panic=view.panic,
        ailing=frozenset(nodes.ids[i] for i in view.nodes.ailing),
        cooldowns=cooldowns.among(view.slots),
        passed_over=None if first is None else nodes.ids[first],
    )


def _slowness(nodes: NodeSet[N], index: int) -> dict[str, float]:
    """Return what there is to tell of a node because it is in slow start, if it is."""
    factor = None if nodes.warm_up is None else nodes.warm_up.factors.get(index)
    return {} if factor is None else {"weight": nodes.weights[index], "slow_start": factor}


def no_node_available(
    balancer: str,
    view: View[N],
    request: Request[N],
    asked: Sequence[Asked[N]],
    health: HealthTracker | None,
    quota: QuotaSource,
) -> NoNodeAvailable:
    """Return the error that says why ``request`` can be given no node, and until when.

    O(number excluded or asked) while view and quotas stay as they are: the rest is counted once
    per view and cost.
    """
    refusal = _Refusal(view, request, health, quota, despite=len(asked) > 1)
    if len(asked) > 1:
        refusal.count_candidates(asked[0])
    refusal.count_asked(asked[-1])
    wait = refusal.until
    retry_after = None if wait == NEVER else max(0.0, wait - quota.clock())
    filters = map(repr, refusal.filters)
    return NoNodeAvailable(balancer, len(view.nodes), refusal.reasons, retry_after, filters)


class _Refusal(Generic[N]):
    """Reasons for a refusal, counted, when the first of them lapses, and which filters count.

    It begins with those that the view has for everybody.
    """

    def __init__(
        self,
        view: View[N],
        request: Request[N],
        health: HealthTracker | None,
        quota: QuotaSource,
        *,
        despite: bool,
    ) -> None:
        self._view = view
        self._request = request
        self._health = health
        self._quota = quota
        self._among = view.nodes
        if despite and view.others is not None:
            self._among = view.others
        tally = _tally(view, request, self._back_at, quota, despite=despite)
        self.reasons = dict(tally.reasons)
        self.filters: list[Filter[N]] = []
        if view.where is not None and view.turned_away:
            self.filters.append(view.where)
        self.until = tally.waits.due

    def count_candidates(self, asked: Asked[N]) -> None:
        """Count those that the request excludes, where only nodes that are down are besides."""
        probes = self._view.probes
        candidates = admitted = len(self._view.nodes.eligible) - len(probes)
        if self._request.narrows:
            mask = asked.nodes.mask
            admitted = len(asked.nodes.eligible) - sum(mask[i] for i in probes)
        self._count("excluded", admitted)
        self._count_filtered(candidates - admitted)

    def count_asked(self, asked: Asked[N]) -> None:
        """Count those that could have been chosen, and were not."""
        eligible = len(asked.nodes.eligible)
        self._count_filtered(len(self._among.eligible) - eligible)
        poor = 0 if asked.short is None else asked.short.count
        self._count("quota", poor)
        self.until = min(self.until, asked.first_to_wait())
        for index, why in asked.refused.items():
            self._count(*self._refused(index, why))
        mask, known = asked.nodes.mask, {} if asked.short is None else asked.short.waits.times
        excluded = sum(
            mask[i] and i not in known and i not in asked.refused for i in self._request.excluded
        )
        self._count("excluded", excluded)
        rest = eligible - poor - len(asked.refused) - excluded
        self._count("full" if asked.crowded else "declined", rest)

    def _refused(self, index: int, why: str) -> tuple[str, int]:
        if why in BY_QUOTA:
            # One may have taken the other's place since the view was made.
            why = cooldown_reason(self._view.nodes.ids[index], self._quota)
        if why in BY_QUOTA or why == "unhealthy":
            self.until = min(self.until, self._back_at(index, unhealthy=why == "unhealthy"))
        return why, 1

    def _back_at(self, index: int, *, unhealthy: bool = False) -> float:
        """Return when a node is back that is on cooldown or down."""
        identity = self._view.nodes.ids[index]
        at = self._quota.available_at(identity, self._request.cost)
        unhealthy = unhealthy or (
            self._among is self._view.nodes and self._view.ruled_out.get(index) == "unhealthy"
        )
        if not unhealthy or self._health is None:
            return at
        # It may be on cooldown or lack quota besides: it is back when the last of that is over.
        due = self._health.next_probe(identity)
        return NEVER if due is None else max(at, due)

    def _count_filtered(self, number: int) -> None:
        """Count those that the request's own filter does not accept."""
        where = self._request.where
        if number and where is not None and where not in self.filters:
            self.filters.append(where)
        self._count("filtered", number)

    def _count(self, reason: str, number: int) -> None:
        if number:
            self.reasons[reason] = self.reasons.get(reason, 0) + number


def _tally(
    view: View[N],
    request: Request[N],
    ask: Callable[[int], float],
    quota: QuotaSource,
    *,
    despite: bool,
) -> Tally:
    """Return the reasons why the view itself rules members out. O(n) once per view and cost."""
    journal, cost, now = journal_of(quota), cost_of(request.cost), quota.clock()
    known = None if cost is None else view.tallies.get((cost, despite))
    if journal is None or known is None or now >= known.until:
        found = view.ruled_out
        if despite and view.others is not None:
            mask, dead = view.others.mask, view.down - view.candidates
            found = {
                i: "rate_limited" if i in dead else why for i, why in found.items() if not mask[i]
            }
        mark = 0 if journal is None else journal.mark
        known = Tally.of(found, view.nodes.ids, quota, ask, mark)
    else:
        known = known.fresh(journal, view.nodes.index_of, ask, now)
    if cost is not None:
        if len(view.tallies) >= _MOST_COSTS:
            view.tallies.clear()
        view.tallies[cost, despite] = known
    return known
