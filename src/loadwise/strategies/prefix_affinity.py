"""Prefix affinity: each prompt where most of it is cached and the wait is short."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random as RandomSource
from typing import Final

from loadwise._native import mypyc_attr
from loadwise._prefix_index import PrefixIndex
from loadwise.load.pending_tokens import relative_paces
from loadwise.strategies._planned import N
from loadwise.strategies._prefixed import Matched, Prefixed, PrefixPlan, not_negative

__all__ = ["PrefixAffinity"]

_SLIGHT: Final = 0.1
"""Share of a cold prompt's cost by which idle nodes may differ and count as equal."""
_FEW: Final = 16
"""In flight on one node: so many are never too many for it."""
_MOST_OF_MEAN: Final = 2.0
_UNHEEDED: Final = 8
"""In flight on one node: up to so many, what their answers lose is not counted."""
_HALF: Final = 24
"""In flight beyond those, with which new tokens count half as much again; never twice."""


@mypyc_attr(allow_interpreted_subclasses=True)
class PrefixAffinity(Prefixed[N]):
    """Each prompt where most of it is cached and the wait is short; for language models.

    It goes to the node where ``pending + new_weight * new`` is least. *Pending* are the uncached
    prompt tokens sent to a node whose first byte has not come; *new* are the tokens of this prompt
    that the node has probably not cached. On a tie it goes where the fewest are in flight.

    Both are this client's own knowledge: what it sent where, by `Balancer.acquire` with ``prompt``,
    and whose answers have begun, by `Lease.first_byte`. No node is asked. A token is taken for four
    characters.

    From the same it learns how many seconds each node needs for a token. Where nodes differ by more
    than a quarter, all is compared in seconds. One that hangs once changes nothing: of its last
    seven spans of work the median counts. One that nothing was heard of for long is tried again.

    Where one machine computes prompts and writes answers, each new token also delays the answers
    that it is writing. So on a node with more than 8 requests in flight new tokens count more: half
    as much again with 32, never twice.

    Two rules keep a prefix that all prompts share from holding all of them on one node:

    - Nodes with nothing pending whose costs differ by at most a tenth of the prompt's cost where
      nothing is cached count as equal. Of those it goes where the fewest are in flight, then where
      the last prompt was sent longest ago.
    - A node that has more than twice the mean in flight, and 16 besides, is passed over.

    Args:
        index: Remembers which node has which prefixes; ``None`` for a `PrefixIndex` of its own.
            It may be shared by strategies and balancers of the same nodes; a node that leaves one
            of them is forgotten.
        new_weight: Tokens of waiting that one token less to compute is worth, finite and >= 0. At
            1 a prompt is sent where its own first byte comes soonest; more keeps the fleet's
            caches from filling up with copies, which pays under load.
        decode_weight: Tokens of waiting that each answer under way counts for, finite and >= 0, for
            servers on which answers slow prompts down.
        rng: Source of randomness for ties; ``None`` for the shared one of the `random` module.

    Attributes:
        index: What it remembers of the nodes' prefixes.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: A weight is out of range.

    Requests without a prompt go where the fewest tokens are pending, then the fewest requests in
    flight. Where weights differ, a node of weight 2 is taken to be twice as fast until its pace is
    known. A node that leaves, or is found dead, has nothing cached when it comes back.

    Thread-safety: full. It takes locks for moments: the index's at a look-up, a node's at a
    request's begin and end. In a forked child it starts from nothing.

    Cost: O(n) per pick, and O(blocks of the prompt); hashing is most of it for few nodes.

    Source: a score of cached and queued tokens is how Mooncake's conductor (Qin et al., FAST 2025)
    and the inference gateways of SGLang and llm-d choose; weight 3 did best of those tried on
    Mooncake's published trace of conversations, see ``benchmarks/prompt_rules.py``.

    Example:
        >>> from loadwise import Balancer
        >>> balancer = Balancer(["gpu-1", "gpu-2"], PrefixAffinity())
        >>> story = "Once upon a time there was a balancer. " * 100
        >>> with balancer.acquire(prompt=story) as lease:
        ...     lease.first_byte()
        ...     first = lease.node
        >>> with balancer.acquire(prompt=story + "What happened next?") as lease:
        ...     lease.node == first
        True
    """

    def __init__(
        self,
        index: PrefixIndex | None = None,
        *,
        new_weight: float = 3.0,
        decode_weight: float = 0.0,
        rng: RandomSource | None = None,
    ) -> None:
        self._new_weight = not_negative("new_weight", new_weight)
        self._decode_weight = not_negative("decode_weight", decode_weight)
        super().__init__(index, rng)

    def facts(self, nodes: Sequence[N]) -> dict[str, Sequence[float]]:
        """Return of each node the pending tokens, the blocks in the index, and the relative speed.

        That is 1 for the fastest by weight or by its pace, and left out where all are alike.
        """
        found = super().facts(nodes)
        speeds = self._speeds(self._resolve(nodes))
        return found if speeds is None else found | {"speed": [*speeds]}

    def _choose(
        self,
        plan: PrefixPlan,
        eligible: Sequence[int],
        matched: Matched | None,
        draw: Callable[[], float],
    ) -> int:
        speeds = self._speeds(plan)
        costs, cold = self._costs(plan, eligible, matched, speeds)
        index = _best(plan, eligible, costs, cold, draw)
        if len(plan.cells[index]) > _FEW:
            roomy = _not_crowded(plan, eligible)
            if index not in roomy:
                kept = [costs[p] for p, i in enumerate(eligible) if i in roomy]
                index = _best(plan, [i for i in eligible if i in roomy], kept, cold, draw)
        return index

    def _costs(
        self,
        plan: PrefixPlan,
        eligible: Sequence[int],
        matched: Matched | None,
        speeds: Sequence[float] | None,
    ) -> tuple[list[float], float]:
        """Return each one's cost, and what the prompt costs the fastest if it has nothing cached.

        Where speeds differ, waiting and work count as the node's own time. What work counts for
        beyond that is the fleet's: it will be done again wherever the copy is missed. What the
        answers in flight lose is the node's own time again.
        """
        costs = self._waits(plan, eligible)
        weight = self._new_weight
        mean = 1.0
        if speeds is not None:
            costs = [cost / speeds[i] for cost, i in zip(costs, eligible, strict=True)]
            mean = sum([speeds[i] for i in eligible]) / len(eligible)
        if matched is None:
            return costs, 0.0
        ids, cached, each = plan.ids, matched.cached, matched.block_tokens
        losses = _losses(plan, eligible)
        if speeds is None and losses is None:
            cold = weight * matched.tokens
            if not cached:
                return [cost + cold for cost in costs], cold
            get, saved = cached.get, weight * each
            return [
                cost + cold - saved * get(ids[i], 0)
                for cost, i in zip(costs, eligible, strict=True)
            ], cold
        if speeds is None:
            rates = [weight] * len(costs)
        else:
            own, fleet = min(weight, 1.0), max(weight - 1.0, 0.0) / mean
            rates = [own / speeds[i] + fleet for i in eligible]
        if losses is not None:
            rates = [
                rate + weight * loss / (1.0 if speeds is None else speeds[i])
                for rate, loss, i in zip(rates, losses, eligible, strict=True)
            ]
        news = [matched.tokens - each * cached.get(ids[i], 0) for i in eligible]
        return [
            cost + rate * new for cost, rate, new in zip(costs, rates, news, strict=True)
        ], matched.tokens * min(rates)

    def _waits(self, plan: PrefixPlan, eligible: Sequence[int]) -> list[float]:
        """Return the tokens that each one has to work through before."""
        cells, each = plan.cells, self._decode_weight
        if not each:
            return [cells[i].prefills.pending for i in eligible]
        return [
            cells[i].prefills.pending + each * max(0, len(cells[i]) - cells[i].prefills.waiting)
            for i in eligible
        ]

    def _speeds(self, plan: PrefixPlan) -> Sequence[float] | None:
        """Return how many tokens nodes compute in a time, relatively; ``None`` if all are alike."""
        turn = self._measure.turn
        if turn >= plan.paced_until:
            plan.paced_until = turn + plan.size
            paces = relative_paces([cell.prefills.pace for cell in plan.cells], plan.parts, turn)
            plan.speeds = plan.parts
            if paces is not None:
                parts = plan.parts or [1.0] * plan.size
                plan.speeds = [part / pace for part, pace in zip(parts, paces, strict=True)]
        return plan.speeds


def _best(
    plan: PrefixPlan,
    eligible: Sequence[int],
    costs: Sequence[float],
    cold: float,
    draw: Callable[[], float],
) -> int:
    cells, parts = plan.cells, plan.parts
    least = min(costs)
    first = eligible[costs.index(least)]
    if cells[first].prefills.pending:
        tied = [i for i, cost in zip(eligible, costs, strict=True) if cost == least]
    else:
        most = least + _SLIGHT * cold
        tied = [
            i
            for i, cost in zip(eligible, costs, strict=True)
            if cost <= most and not cells[i].prefills.pending
        ]
    if len(tied) == 1:
        return tied[0]
    ranks = [
        (
            len(cells[i]) if parts is None else len(cells[i]) / parts[i],
            cells[i].prefills.turn if cold else 0,
        )
        for i in tied
    ]
    lowest = min(ranks)
    last = [i for i, rank in zip(tied, ranks, strict=True) if rank == lowest]
    return last[0] if len(last) == 1 else last[int(draw() * len(last))]


def _losses(plan: PrefixPlan, eligible: Sequence[int]) -> list[float] | None:
    """Return by what share new tokens count more for each one's answers; ``None`` for nothing."""
    beyond = [len(plan.cells[i]) - _UNHEEDED for i in eligible]
    if max(beyond) <= 0:
        return None
    return [max(0, count) / (_HALF + max(0, count)) for count in beyond]


def _not_crowded(plan: PrefixPlan, eligible: Sequence[int]) -> frozenset[int]:
    """Return those that do not have far more in flight than the others, each by its weight."""
    cells, parts = plan.cells, plan.parts
    whole = float(len(eligible)) if parts is None else sum([parts[i] for i in eligible])
    most = _MOST_OF_MEAN * sum([len(cells[i]) for i in eligible]) / whole
    if parts is None:
        return frozenset(i for i in eligible if len(cells[i]) <= most + _FEW)
    return frozenset(i for i in eligible if len(cells[i]) <= most * parts[i] + _FEW)
