"""Scored prefixes as llm-d does it: a weighted sum of prefix, queue and cache in use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random as RandomSource

from loadwise._native import mypyc_attr
from loadwise._prefix_index import PrefixIndex
from loadwise.strategies._planned import N
from loadwise.strategies._prefixed import Matched, Prefixed, PrefixPlan, least_busy, not_negative

__all__ = ["ScoredPrefix"]


@mypyc_attr(allow_interpreted_subclasses=True)
class ScoredPrefix(Prefixed[N]):
    """The node with the highest weighted sum of three scores; for language models.

    Each score is from 0 to 1:

    - *prefix*: the share of the prompt that the node has probably cached;
    - *queue*: by its prompts without a first byte, 1 for the fewest and 0 for the most, and 1 for
      all where they have the same;
    - *cache*: the share of its cache that no prompt of a request in flight takes.

    It is here for comparison, and for those who move from that scheduler. A queue counts by its
    requests, be they long or short, and is compared with the longest of the moment: where prompts
    differ much in length, `PrefixAffinity` waits less.

    Args:
        index: Remembers which node has which prefixes; ``None`` for a `PrefixIndex` of its own.
            It may be shared by strategies and balancers of the same nodes. Its
            ``capacity_blocks`` are taken for the size of a node's cache.
        prefix_weight: Of the first score, finite and >= 0.
        queue_weight: Of the second.
        cache_weight: Of the third.
        rng: Source of randomness for ties; ``None`` for the shared one of the `random` module.

    Attributes:
        index: What it remembers of the nodes' prefixes.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: A weight is out of range, or all are 0.

    Requests without a prompt go by the other two scores. Ties go where the fewest are in flight.
    Weights of nodes count in ties only, as that scheduler has none.

    Thread-safety: full, as that of `PrefixAffinity`. Cost: O(n) per pick, and O(blocks of the
    prompt).

    Source: the scorers of the Kubernetes Gateway API Inference Extension, weighted 3, 2 and 2 as
    in llm-d's default profile. There servers report queue and cache; here both are known of this
    client's requests alone.

    Example:
        >>> from loadwise import Balancer
        >>> balancer = Balancer(["gpu-1", "gpu-2"], ScoredPrefix())
        >>> story = "Once upon a time there was a balancer. " * 100
        >>> with balancer.acquire(prompt=story) as one:
        ...     with balancer.acquire(prompt=story + "And then?") as other:
        ...         one.node == other.node
        True
    """

    def __init__(
        self,
        index: PrefixIndex | None = None,
        *,
        prefix_weight: float = 3.0,
        queue_weight: float = 2.0,
        cache_weight: float = 2.0,
        rng: RandomSource | None = None,
    ) -> None:
        self._prefix_weight = not_negative("prefix_weight", prefix_weight)
        self._queue_weight = not_negative("queue_weight", queue_weight)
        self._cache_weight = not_negative("cache_weight", cache_weight)
        if not self._prefix_weight + self._queue_weight + self._cache_weight:
            raise ValueError("all weights are 0; give one above 0, or take LeastLoad(InFlight())")
        super().__init__(index, rng)
        self._capacity = self.index.capacity_blocks * self._block_tokens

    def _choose(
        self,
        plan: PrefixPlan,
        eligible: Sequence[int],
        matched: Matched | None,
        draw: Callable[[], float],
    ) -> int:
        prefills = [plan.cells[i].prefills for i in eligible]
        queues = [each.waiting for each in prefills]
        longest = max(queues)
        span = longest - min(queues)
        by_queue, by_cache = self._queue_weight, self._cache_weight
        scores = [
            by_queue * ((longest - queue) / span if span else 1.0)
            + by_cache * (1.0 - min(1.0, each.held / self._capacity))
            for queue, each in zip(queues, prefills, strict=True)
        ]
        if matched is not None and matched.cached:
            share = self._prefix_weight * matched.block_tokens / matched.tokens
            get, ids = matched.cached.get, plan.ids
            scores = [
                score + share * get(ids[i], 0) for score, i in zip(scores, eligible, strict=True)
            ]
        highest = max(scores)
        tied = [i for i, score in zip(eligible, scores, strict=True) if score == highest]
        return least_busy(plan, tied, draw)
