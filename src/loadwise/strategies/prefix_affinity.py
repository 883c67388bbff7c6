"""Prefix affinity: each prompt where most of it is cached and the wait is short."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from random import Random as RandomSource
from typing import Any, Final

from loadwise._native import mypyc_attr
from loadwise._numbers import finite, shown
from loadwise._prefix_index import PrefixIndex
from loadwise._prompt import Prompt
from loadwise._random import check_rng, fork_of, source_of
from loadwise.context import EMPTY, SelectionContext
from loadwise.load import LoadMeasure
from loadwise.load.pending_tokens import PendingTokens, TokenCell
from loadwise.node_set import NodeSet
from loadwise.strategies._planned import N, Plan, Planned, check_excluded
from loadwise.strategies._weight_table import table_for

__all__ = ["PrefixAffinity"]

_CHARACTERS_PER_TOKEN: Final = 4
_SLIGHT: Final = 0.1
"""Share of a cold prompt's cost by which idle nodes may differ and count as equal."""
_FEW: Final = 16
"""In flight on one node: so many are never too many for it."""
_MOST_OF_MEAN: Final = 2.0


@mypyc_attr(allow_interpreted_subclasses=True)
class PrefixPlan(Plan[None]):
    """A plan with the nodes' cells.

    Attributes:
        ids: The nodes' ids.
        cells: Their entries in the measure, by index.
        parts: Their weights as parts of the largest, by index; ``None`` where they are alike.
    """

    __slots__ = ("cells", "ids", "parts")

    def __init__(self, nodes: NodeSet[Any], cells: list[TokenCell]) -> None:
        super().__init__(nodes, None)
        self.ids = nodes.ids
        self.cells = cells
        self.parts: Sequence[float] | None = None
        if not nodes.alike:
            self.parts = table_for(nodes, None)[0].parts


@mypyc_attr(allow_interpreted_subclasses=True)
class PrefixAffinity(Planned[N, None, PrefixPlan]):
    """Each prompt where most of it is cached and the wait is short; for language models.

    It goes to the node where ``pending + new_weight * new`` is least. *Pending* are the uncached
    prompt tokens sent to a node whose first byte has not come; *new* are the tokens of this prompt
    that the node has probably not cached. On a tie it goes where the fewest are in flight.

    Both are this client's own knowledge: what it sent where, by `Balancer.acquire` with ``prompt``,
    and whose answers have begun, by `Lease.first_byte`. No node is asked. A token is taken for four
    characters.

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
        rng: Source of randomness for ties; ``None`` for the shared one of the `random` module.

    Attributes:
        index: What it remembers of the nodes' prefixes.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: ``new_weight`` is out of range.

    Requests without a prompt go where the fewest tokens are pending, then the fewest requests in
    flight. Where weights differ, all is compared per weight: a node of weight 2 is taken to be
    twice as fast. A node that leaves, or is found dead, has nothing cached when it comes back.

    Thread-safety: full. It takes locks for moments: the index's at a look-up, a node's at a
    request's begin and end. In a forked child it starts from nothing.

    Cost: O(n) per pick, and O(blocks of the prompt); hashing is most of it for few nodes.

    Source: a score of cached and queued tokens is how Mooncake's conductor (Qin et al., FAST 2025)
    and the inference gateways of SGLang and llm-d choose; weight 3 did best of those tried on
    Mooncake's published trace of conversations, see ``benchmarks/prefixes.py``.

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
        rng: RandomSource | None = None,
    ) -> None:
        if index is not None and not isinstance(index, PrefixIndex):
            raise TypeError(
                f"index is {shown(index)}; it must be a PrefixIndex, or None for one of its own"
            )
        self._new_weight = finite("new_weight", new_weight)
        if not self._new_weight >= 0:
            raise ValueError(f"new_weight is {new_weight!r}; it must be finite and at least 0")
        check_rng(rng)
        self._rng = rng
        self._random = source_of(rng)
        self.index = PrefixIndex() if index is None else index
        self._block_tokens = self.index.block_chars / _CHARACTERS_PER_TOKEN
        self._measure = PendingTokens()
        self._measure.follow(self.index)
        super().__init__()

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the index of the cheapest node, or ``None`` when none may be chosen."""
        source, plan = self._hot
        if source is not candidates:
            plan = self._resolve(candidates)
        prompt = context.prefix
        if prompt is None:
            return self._cheapest(plan, context.exclude, self._random)
        cached = self._cached(prompt)
        index = self._cheapest(plan, context.exclude, self._random, prompt, cached)
        if index is not None:
            prompt.sent = partial(self._sent, prompt, cached)
        return index

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return, without drawing."""
        plan, prompt = self._glance(candidates), context.prefix
        cached = {} if prompt is None else self._cached(prompt)
        return self._cheapest(plan, context.exclude, fork_of(self._rng), prompt, cached)

    def facts(self, nodes: Sequence[N]) -> dict[str, Sequence[float]]:
        """Return the pending tokens, and how many blocks the index has of each node."""
        plan = self._resolve(nodes)
        return {
            "pending": [cell.prefills.pending for cell in plan.cells],
            "blocks": [self.index.blocks(identity) for identity in plan.ids],
        }

    @property
    def measures(self) -> tuple[LoadMeasure, ...]:
        """The measure of pending tokens."""
        return (self._measure,)

    def share_measures(self, measures: Sequence[LoadMeasure]) -> None:
        """Consult a measure in the place of its own, before it has been asked for anything."""
        for measure in measures:
            if isinstance(measure, PendingTokens):
                self._measure = measure
                measure.follow(self.index)

    def _cached(self, prompt: Prompt) -> dict[Any, int]:
        """Return how many blocks of a prompt which nodes have."""
        return self.index.match_hashes(self._hashes(prompt))

    def _hashes(self, prompt: Prompt) -> list[int]:
        size = self.index.block_chars
        known = prompt.hashes.get(size)
        if known is None:
            known = prompt.hashes[size] = self.index.hashes(prompt.text)
        return known

    def _sent(
        self,
        prompt: Prompt,
        cached: Mapping[Any, int],
        node_id: Any,  # noqa: ANN401 - any hashable
        token: int,
        _now: float,
    ) -> None:
        """Record that a prompt is on its way to a node, perhaps another than was chosen."""
        tokens = len(prompt.text) / _CHARACTERS_PER_TOKEN
        new = tokens - cached.get(node_id, 0) * self._block_tokens
        self._measure.sent(self._measure.cell(node_id), token, new)
        self.index.insert_hashes(self._hashes(prompt), node_id)

    def _cheapest(
        self,
        plan: PrefixPlan,
        exclude: AbstractSet[int],
        draw: Callable[[], float],
        prompt: Prompt | None = None,
        cached: Mapping[Any, int] | None = None,
    ) -> int | None:
        eligible: Sequence[int] = plan.eligible
        if exclude:
            check_excluded(exclude, plan.size)
            eligible = [i for i in eligible if i not in exclude]
        if not eligible:
            return None
        costs, cold = self._costs(plan, eligible, prompt, cached)
        index = self._best(plan, eligible, costs, cold, draw)
        if len(plan.cells[index]) > _FEW:
            roomy = _not_crowded(plan, eligible)
            if index not in roomy:
                kept = [costs[p] for p, i in enumerate(eligible) if i in roomy]
                index = self._best(plan, [i for i in eligible if i in roomy], kept, cold, draw)
        return index

    def _costs(
        self,
        plan: PrefixPlan,
        eligible: Sequence[int],
        prompt: Prompt | None,
        cached: Mapping[Any, int] | None,
    ) -> tuple[list[float], float]:
        """Return each one's cost, and what the prompt adds to it where nothing is cached."""
        cells, parts, cold = plan.cells, plan.parts, 0.0
        costs = [cells[i].prefills.pending for i in eligible]
        if prompt is not None:
            weight, ids = self._new_weight, plan.ids
            cold = weight * len(prompt.text) / _CHARACTERS_PER_TOKEN
            if cached:
                saved, get = weight * self._block_tokens, cached.get
                costs = [
                    pending + cold - saved * get(ids[i], 0)
                    for pending, i in zip(costs, eligible, strict=True)
                ]
            else:
                costs = [pending + cold for pending in costs]
        if parts is not None:
            costs = [cost / parts[i] for cost, i in zip(costs, eligible, strict=True)]
        return costs, cold

    def _best(
        self,
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
            slight = _SLIGHT * cold / (1.0 if parts is None else parts[first])
            tied = [
                i
                for i, cost in zip(eligible, costs, strict=True)
                if cost <= least + slight and not cells[i].prefills.pending
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

    def _make_state(self, nodes: NodeSet[N]) -> None:
        """Nothing is kept but by plan, so that the cells of those that left are let go."""

    def _make_plan(self, nodes: NodeSet[N], state: None) -> PrefixPlan:  # noqa: ARG002 - the base's
        if len(nodes):
            source, before = self._hot
            if source.membership is nodes.membership:
                return PrefixPlan(nodes, before.cells)
        return PrefixPlan(nodes, [self._measure.cell(identity) for identity in nodes.ids])


def _not_crowded(plan: PrefixPlan, eligible: Sequence[int]) -> frozenset[int]:
    """Return those that do not have far more in flight than the others, each by its weight."""
    cells, parts = plan.cells, plan.parts
    whole = float(len(eligible)) if parts is None else sum([parts[i] for i in eligible])
    most = _MOST_OF_MEAN * sum([len(cells[i]) for i in eligible]) / whole
    if parts is None:
        return frozenset(i for i in eligible if len(cells[i]) <= most + _FEW)
    return frozenset(i for i in eligible if len(cells[i]) <= most * parts[i] + _FEW)
