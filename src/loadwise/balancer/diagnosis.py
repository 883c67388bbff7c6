"""Why a request would go where it would go, or nowhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

from loadwise.balancer.negotiation import Negotiator
from loadwise.balancer.request import Request
from loadwise.balancer.status import Explanation
from loadwise.balancer.view import View, why_it_rests
from loadwise.errors import NoNodeAvailable
from loadwise.health import HealthTracker
from loadwise.quota import QuotaSource
from loadwise.strategies._adapter import Unforeseeable, strategy_name
from loadwise.strategies._base import ViewStrategy

__all__ = ["explain", "no_node_available"]

N = TypeVar("N")


def explain(
    balancer: str,
    strategy: ViewStrategy[N],
    view: View[N],
    request: Request[N],
    quota: QuotaSource | None,
    negotiator: Negotiator[N],
) -> Explanation:
    """Tell where ``request`` would go, given ``view``, and change nothing."""
    nodes, ruled_out = request.restrict(view.nodes)
    if (
        view.others is not None
        and view.candidates <= request.excluded
        and request.excluded.issuperset(nodes.eligible)
    ):
        nodes, ruled_out = request.restrict(view.others)
    without_quota: dict[int, str] = {}
    if quota is not None:
        for i in nodes.eligible:
            # The clock is read last: what is available now was so a moment ago.
            if quota.available_at(nodes.ids[i], request.cost) > quota.clock():
                without_quota[i] = "quota"
    refused = {i: "recovering" for i in nodes.eligible if negotiator.is_passed_over(view, i)}
    foreseeable, index, passed_over = True, None, refused
    try:
        if refused and strategy.peek(nodes, request.context(refused | without_quota)) is None:
            refused = {}  # there is nobody else
        index = strategy.peek(nodes, request.context({}))
        asks_again = index in passed_over and len(nodes.eligible) > 1
        if index in without_quota or index in refused or asks_again:
            # The balancer will ask again without it, but what is drawn then nobody knows.
            foreseeable, index = False, None
    except Unforeseeable:
        foreseeable = False
    chosen_from = frozenset(nodes.eligible)
    ruled_out |= {i: why for i, why in view.ruled_out.items() if i not in chosen_from}
    ruled_out |= refused | without_quota
    ruled_out |= {i: "excluded" for i in request.excluded if view.nodes.mask[i] or nodes.mask[i]}
    nodes = nodes.restrict([i for i in nodes.eligible if i not in ruled_out])
    facts = strategy.facts(nodes)
    return Explanation(
        balancer=balancer,
        strategy=strategy_name(strategy),
        ineligible={nodes.ids[i]: ruled_out[i] for i in sorted(ruled_out)},
        eligible=tuple(nodes.ids[i] for i in nodes.eligible),
        seen={
            nodes.ids[i]: {fact: values[i] for fact, values in facts.items()}
            for i in nodes.eligible
        },
        choice=None if index is None else nodes.ids[index],
        foreseeable=foreseeable,
        panic=view.panic,
        ailing=frozenset(nodes.ids[i] for i in view.nodes.ailing),
    )


def no_node_available(
    balancer: str,
    view: View[N],
    request: Request[N],
    ruled_out: Mapping[int, str],
    health: HealthTracker | None,
    pauses: QuotaSource,
) -> NoNodeAvailable:
    """Return the error that says why ``request`` can be given no node, and until when."""
    reasons: dict[str, int] = {}
    waits: list[float] = []
    for index, identity in enumerate(view.nodes.ids):
        reason = ruled_out.get(index) or view.ruled_out.get(index)
        if reason is None:
            reason = "excluded" if index in request.excluded else "declined"
        elif reason in ("quota", "rate_limited"):
            # One may have taken the other's place since the view was made.
            reason = why_it_rests(identity, pauses)
        reasons[reason] = reasons.get(reason, 0) + 1
        wait = math.inf
        if reason in ("unhealthy", "quota", "rate_limited"):
            wait = pauses.available_at(identity, request.cost) - pauses.clock()
        if reason == "unhealthy" and health is not None:
            # It may sit out or lack quota besides: it is back when the last of that is over.
            due = health.next_probe(identity)
            wait = math.inf if due is None else max(wait, due - health.clock())
        waits.append(wait)
    wait = min(waits, default=math.inf)
    retry_after = None if math.isinf(wait) else max(0.0, wait)
    return NoNodeAvailable(balancer, len(view.nodes), reasons, retry_after)
