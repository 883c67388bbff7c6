"""Base of the strategies that go by what nodes have cached of a prompt."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random as RandomSource
from typing import Any, Final

from loadwise._native import mypyc_attr
from loadwise._numbers import finite, shown
from loadwise._prefix_index import PrefixIndex
from loadwise._prompt import CHARACTERS_PER_TOKEN, LEAST_TOKENS, Prompt
from loadwise._random import check_rng, fork_of, source_of
from loadwise.context import EMPTY, SelectionContext
from loadwise.load import LoadMeasure
from loadwise.load.pending_tokens import PendingTokens, PrefixNews, TokenCell
from loadwise.node_set import NodeSet
from loadwise.strategies._planned import N, Plan, Planned, check_excluded
from loadwise.strategies._weight_table import table_for

__all__ = ["Matched", "PrefixPlan", "Prefixed", "least_busy", "left", "not_negative", "plan_of"]

_CUT_BLOCKS: Final = 3
"""Blocks by which an answer may say less: servers cut prompts elsewhere than the index does."""
_CLEARLY: Final = 0.75


@mypyc_attr(allow_interpreted_subclasses=True)
class PrefixPlan(Plan[None]):
    """A plan with the nodes' cells.

    Attributes:
        ids: The nodes' ids.
        cells: Their entries in the measure, by index.
        parts: Their weights as parts of the largest, by index; ``None`` where they are alike.
        speeds: Their speeds by weight and pace, by index; ``None`` where they are alike.
        paced_until: Number of the prompt at which the speeds are worked out again.
    """

    __slots__ = ("cells", "ids", "paced_until", "parts", "speeds")

    def __init__(self, nodes: NodeSet[Any], cells: list[TokenCell]) -> None:
        super().__init__(nodes, None)
        self.ids = nodes.ids
        self.cells = cells
        self.parts: Sequence[float] | None = None
        if not nodes.alike:
            self.parts = table_for(nodes, None)[0].parts
        self.speeds: Sequence[float] | None = self.parts
        self.paced_until = 0


class Matched:
    """One request's prompt, and who has how much of it.

    Attributes:
        prompt: The prompt.
        tokens: Its length, in tokens.
        cached: How many of its blocks are cached, by the nodes' ids; none with 0.
        block_tokens: Tokens of a block.
    """

    __slots__ = ("block_tokens", "cached", "prompt", "tokens")

    def __init__(self, prompt: Prompt, cached: Mapping[Any, int], block_tokens: float) -> None:
        self.prompt = prompt
        self.tokens = prompt.tokens
        self.cached = cached
        self.block_tokens = block_tokens

    def new(self, node_id: Any) -> float:  # noqa: ANN401 - any hashable
        """Return how many of its tokens a node has to compute."""
        cached = self.cached.get(node_id, 0)
        return max(LEAST_TOKENS, self.tokens - cached * self.block_tokens)


@mypyc_attr(allow_interpreted_subclasses=True)
class Prefixed(Planned[N, None, PrefixPlan]):
    """Base of the strategies that go by what nodes have cached of a prompt.

    Each has an index of what was sent where, and a measure of what is on its way.
    """

    def __init__(self, index: PrefixIndex | None, rng: RandomSource | None) -> None:
        if index is not None and not isinstance(index, PrefixIndex):
            raise TypeError(
                f"index is {shown(index)}; it must be a PrefixIndex, or None for one of its own"
            )
        check_rng(rng)
        self._rng = rng
        self._random = source_of(rng)
        self.index = PrefixIndex() if index is None else index
        self._block_tokens = self.index.block_chars / CHARACTERS_PER_TOKEN
        self._measure = PendingTokens()
        self._news = self._measure.follow(self.index)
        super().__init__()

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the index of the best node for the prompt, or ``None`` when there is none."""
        source, plan = self._hot
        if source is not candidates:
            plan = self._resolve(candidates)
        eligible = left(plan, context)
        prompt = context.prefix
        if not eligible:
            return None
        if prompt is None:
            return self._choose(plan, eligible, None, self._random)
        matched = self._matched(prompt)
        index = self._choose(plan, eligible, matched, self._random)
        prompt.sent = partial(self._sent, matched)
        return index

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return, without drawing."""
        plan, prompt = self._glance(candidates), context.prefix
        eligible = left(plan, context)
        if not eligible:
            return None
        matched = None if prompt is None else self._matched(prompt)
        return self._choose(plan, eligible, matched, fork_of(self._rng))

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
                self._news = measure.follow(self.index)

    @abstractmethod
    def _choose(
        self,
        plan: PrefixPlan,
        eligible: Sequence[int],
        matched: Matched | None,
        draw: Callable[[], float],
    ) -> int:
        """Return the index of the best of those eligible, of which there is at least one."""

    def _matched(self, prompt: Prompt) -> Matched:
        if self._news is not None:
            self._news.catch_up()
        cached = self.index.match_hashes(self._hashes(prompt))
        return Matched(prompt, cached, self._block_tokens)

    def _hashes(self, prompt: Prompt) -> list[int]:
        size = self.index.block_chars
        known = prompt.hashes.get(size)
        if known is None:
            known = prompt.hashes[size] = self.index.hashes(prompt.text)
        return known

    def _sent(self, matched: Matched, node_id: Any, token: int, now: float) -> float:  # noqa: ANN401 - any hashable
        """Record that a prompt is on its way to a node, perhaps another than was chosen."""
        new, cell, hashes = (
            matched.new(node_id),
            self._measure.cell(node_id),
            self._hashes(matched.prompt),
        )
        self._measure.sent(cell, token, new, matched.tokens, now)
        before = self.index.insert_hashes(hashes, node_id)
        if self._news is not None:
            self._news.tell(cell, hashes)
        matched.prompt.cached = (
            partial(self._corrected, matched, node_id, before) if before else None
        )
        return new

    def _corrected(
        self,
        matched: Matched,
        node_id: Any,  # noqa: ANN401 - any hashable
        before: Sequence[int],
        share: float,
    ) -> None:
        """Record that a node had only this share of a prompt, if that is clearly less."""
        found = share * matched.tokens / matched.block_tokens + _CUT_BLOCKS
        if found < _CLEARLY * len(before):
            self.index.correct(node_id, before, int(found))

    def _make_state(self, nodes: NodeSet[N]) -> None:
        """Nothing is kept but by plan, so that the cells of those that left are let go."""

    def _make_plan(self, nodes: NodeSet[N], state: None) -> PrefixPlan:  # noqa: ARG002 - the base's
        return plan_of(nodes, self._hot if len(nodes) else None, self._measure, self._news)


def plan_of(
    nodes: NodeSet[Any],
    hot: tuple[NodeSet[Any], PrefixPlan] | None,
    measure: PendingTokens,
    news: PrefixNews | None = None,
) -> PrefixPlan:
    """Return a plan, with the cells of the last one if that is of the same nodes."""
    if hot is not None and hot[0].membership is nodes.membership:
        return PrefixPlan(nodes, hot[1].cells)
    cells = [measure.cell(identity) for identity in nodes.ids]
    if news is not None:
        news.know(cells)
    return PrefixPlan(nodes, cells)


def left(plan: PrefixPlan, context: SelectionContext) -> Sequence[int]:
    """Return the indices of all that may be chosen."""
    exclude = context.exclude
    if not exclude:
        return plan.eligible
    check_excluded(exclude, plan.size)
    return [i for i in plan.eligible if i not in exclude]


def not_negative(name: str, value: float) -> float:
    """Return a number that is finite and at least 0; else raise ``ValueError``."""
    checked = finite(name, value)
    if not checked >= 0:
        raise ValueError(f"{name} is {value!r}; it must be finite and at least 0")
    return checked


def least_busy(plan: PrefixPlan, indices: Sequence[int], draw: Callable[[], float]) -> int:
    """Return the one with the fewest requests in flight, by its weight; ties at random."""
    cells, parts = plan.cells, plan.parts
    loads: list[float] = [len(cells[i]) for i in indices]
    if parts is not None:
        loads = [load / parts[i] for load, i in zip(loads, indices, strict=True)]
    lowest = min(loads)
    tied = [i for i, load in zip(indices, loads, strict=True) if load == lowest]
    return tied[0] if len(tied) == 1 else tied[int(draw() * len(tied))]
