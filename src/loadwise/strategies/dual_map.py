"""DualMap: each prompt to one of two nodes that its beginning is mapped to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random as RandomSource
from typing import Any

from xxhash import xxh3_64_intdigest

from loadwise._native import mypyc_attr
from loadwise._numbers import whole
from loadwise._prompt import Prompt
from loadwise._random import check_rng, fork_of, source_of
from loadwise.context import EMPTY, SelectionContext
from loadwise.load import LoadMeasure
from loadwise.load.pending_tokens import PendingTokens
from loadwise.node_set import NodeSet
from loadwise.strategies._planned import N, Planned
from loadwise.strategies._prefixed import PrefixPlan, least_busy, left, plan_of
from loadwise.strategies.rendezvous import Rendezvous

__all__ = ["DualMap"]


@mypyc_attr(allow_interpreted_subclasses=True)
class DualMap(Planned[N, None, PrefixPlan]):
    """One of two nodes that the beginning of the prompt is mapped to; for language models.

    Two hash choices by the first ``prefix_chars`` characters: it goes to the first, unless the
    prompt tokens pending there are more than those of the second and this whole prompt together.
    Then computing it anew on the second is quicker.

    Nothing is remembered of prompts, so clients that share nothing agree all the same. Take it
    where many clients with little traffic each send to the same servers. Where one client sees all,
    `PrefixAffinity` waits less, because it knows where prefixes are cached and uses every node.

    Args:
        prefix_chars: Characters that decide, >= 1. More than all prompts have in common, such as a
            system prompt, or all go to the same two nodes; fewer than a conversation's first prompt
            has, or its next ones go elsewhere.
        rng: Source of randomness for requests without a prompt; ``None`` for the shared one of the
            `random` module.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: ``prefix_chars`` is below 1.

    Requests without a prompt go where the fewest are in flight. A node that comes or goes moves its
    own prefixes only. Shares of prefixes are by weight, and waits are compared per weight.

    Thread-safety: full. Cost: O(n) per pick.

    Source: Y. Yuan et al., "DualMap: enabling both cache affinity and load balancing for
    distributed LLM serving", ICLR 2026, without its migration of queued requests and its search for
    the length of the prefix. The choices are those of `Rendezvous` hashing.

    Example:
        >>> from loadwise import Balancer
        >>> fleet = ["gpu-1", "gpu-2", "gpu-3"]
        >>> one, other = Balancer(fleet, DualMap(1024)), Balancer(fleet, DualMap(1024))
        >>> story = "Once upon a time there was a balancer. " * 100
        >>> one.pick(prompt=story) == other.pick(prompt=story + "And then?")
        True
    """

    def __init__(self, prefix_chars: int = 4096, *, rng: RandomSource | None = None) -> None:
        self._prefix_chars = whole("prefix_chars", prefix_chars, 1)
        check_rng(rng)
        self._rng = rng
        self._random = source_of(rng)
        self._order: Rendezvous[N] = Rendezvous()
        self._measure = PendingTokens()
        super().__init__()

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the index of one of the prompt's two nodes, or ``None`` when there is none."""
        source, plan = self._hot
        if source is not candidates:
            plan = self._resolve(candidates)
        index = self._chosen(candidates, plan, context, self._random)
        prompt = context.prefix
        if prompt is not None and index is not None:
            prompt.sent = partial(self._sent, prompt)
        return index

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return, without drawing."""
        return self._chosen(candidates, self._glance(candidates), context, fork_of(self._rng))

    def facts(self, nodes: Sequence[N]) -> dict[str, Sequence[float]]:
        """Return the pending tokens of each node."""
        return {"pending": [cell.prefills.pending for cell in self._resolve(nodes).cells]}

    @property
    def measures(self) -> tuple[LoadMeasure, ...]:
        """The measure of pending tokens."""
        return (self._measure,)

    def share_measures(self, measures: Sequence[LoadMeasure]) -> None:
        """Consult a measure in the place of its own, before it has been asked for anything."""
        for measure in measures:
            if isinstance(measure, PendingTokens):
                self._measure = measure

    def _chosen(
        self,
        candidates: Sequence[N],
        plan: PrefixPlan,
        context: SelectionContext,
        draw: Callable[[], float],
    ) -> int | None:
        eligible, prompt = left(plan, context), context.prefix
        if not eligible:
            return None
        if prompt is None:
            return least_busy(plan, eligible, draw)
        beginning = prompt.text[: self._prefix_chars].encode("utf-8", "surrogatepass")
        ranking = self._order.ranking(candidates, xxh3_64_intdigest(beginning))
        both = [i for i in ranking if i not in context.exclude][:2]
        if len(both) == 1:
            return both[0]
        waits = [plan.cells[i].prefills.pending for i in both]
        waits[1] += prompt.tokens
        if plan.parts is not None:
            waits = [wait / plan.parts[i] for wait, i in zip(waits, both, strict=True)]
        return both[waits[1] < waits[0]]

    def _sent(self, prompt: Prompt, node_id: Any, token: int, now: float) -> float:  # noqa: ANN401 - any hashable
        """Record that a prompt is on its way to a node, perhaps another than was chosen."""
        tokens = prompt.tokens
        self._measure.sent(self._measure.cell(node_id), token, tokens, tokens, now)
        return tokens

    def _make_state(self, nodes: NodeSet[N]) -> None:
        """Nothing is kept but by plan, so that the cells of those that left are let go."""

    def _make_plan(self, nodes: NodeSet[N], state: None) -> PrefixPlan:  # noqa: ARG002 - the base's
        return plan_of(nodes, self._hot if len(nodes) else None, self._measure)
