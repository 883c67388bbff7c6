"""LMetric: each prompt where its new tokens times the batch are fewest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random as RandomSource

from loadwise._native import mypyc_attr
from loadwise._prefix_index import PrefixIndex
from loadwise.strategies._planned import N
from loadwise.strategies._prefixed import Matched, Prefixed, PrefixPlan, least_busy

__all__ = ["LMetric"]


@mypyc_attr(allow_interpreted_subclasses=True)
class LMetric(Prefixed[N]):
    """Each prompt where its new tokens times the batch are fewest; for language models.

    *New* are the tokens of the prompt that a node has probably not cached, one at least. The
    *batch* are the requests in flight there, this one included. Where nodes have nothing in flight
    that is the fewest new tokens. Ties go where the fewest are in flight.

    There is nothing to tune. It saves as much work as any, and counts a long prompt that waits like
    a short answer under way: where prompts differ much in length, `PrefixAffinity` waits less.

    Args:
        index: Remembers which node has which prefixes; ``None`` for a `PrefixIndex` of its own.
            It may be shared by strategies and balancers of the same nodes.
        rng: Source of randomness for ties; ``None`` for the shared one of the `random` module.

    Attributes:
        index: What it remembers of the nodes' prefixes.

    Raises:
        TypeError: An argument is of the wrong kind.

    Requests without a prompt go where the fewest are in flight. Where weights differ, the batch is
    compared per weight.

    Thread-safety: full, as that of `PrefixAffinity`. Cost: O(n) per pick, and O(blocks of the
    prompt).

    Source: D. Zhang et al., "LMetric: simple is better - multiplication may be all you need for LLM
    request scheduling", arXiv 2603.15202, 2026. There servers report their batch; here it is known
    of this client's requests alone.

    Example:
        >>> from loadwise import Balancer
        >>> balancer = Balancer(["gpu-1", "gpu-2"], LMetric())
        >>> story = "Once upon a time there was a balancer. " * 100
        >>> with balancer.acquire(prompt=story) as one:
        ...     with balancer.acquire(prompt=story + "And then?") as other:
        ...         one.node == other.node  # 7 new tokens x 2, not 982 x 1
        True
    """

    def __init__(
        self, index: PrefixIndex | None = None, *, rng: RandomSource | None = None
    ) -> None:
        super().__init__(index, rng)

    def _choose(
        self,
        plan: PrefixPlan,
        eligible: Sequence[int],
        matched: Matched | None,
        draw: Callable[[], float],
    ) -> int:
        if matched is None:
            return least_busy(plan, eligible, draw)
        cells, ids, parts = plan.cells, plan.ids, plan.parts
        scores = [(len(cells[i]) + 1) * matched.new(ids[i]) for i in eligible]
        if parts is not None:
            scores = [score / parts[i] for score, i in zip(scores, eligible, strict=True)]
        lowest = min(scores)
        tied = [i for i, score in zip(eligible, scores, strict=True) if score == lowest]
        return least_busy(plan, tied, draw)
