"""Cache-aware routing as SGLang's router does it: the best match, unless loads are uneven."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random as RandomSource
from typing import Any

from loadwise._native import mypyc_attr
from loadwise._numbers import finite
from loadwise._prefix_index import PrefixIndex
from loadwise.strategies._planned import N
from loadwise.strategies._prefixed import Matched, Prefixed, PrefixPlan, least_busy, not_negative

__all__ = ["CacheAware"]


@mypyc_attr(allow_interpreted_subclasses=True)
class CacheAware(Prefixed[N]):
    """The node that has most of the prompt, or else the one that has least; for language models.

    Loads are uneven if the most requests in flight on a node are more than
    ``balance_abs_threshold`` above the fewest, and more than ``balance_rel_threshold`` times those.
    Then the node with the fewest is taken. Else, if a node has probably cached more than
    ``cache_threshold`` of the prompt, the one that has most of it is taken; and if none has, the
    one of which the index has the fewest blocks. Ties go where the fewest are in flight.

    It is here for comparison, and for those who move from that router. One busy node turns affinity
    off for all, and a queue may become long before it counts: `PrefixAffinity` does neither.

    Args:
        index: Remembers which node has which prefixes; ``None`` for a `PrefixIndex` of its own.
            It may be shared by strategies and balancers of the same nodes.
        cache_threshold: Share of a prompt, 0 to 1.
        balance_abs_threshold: Requests in flight, finite and >= 0.
        balance_rel_threshold: Factor, finite and >= 1.
        rng: Source of randomness for ties; ``None`` for the shared one of the `random` module.

    Attributes:
        index: What it remembers of the nodes' prefixes.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: A threshold is out of range.

    Requests without a prompt go where the fewest are in flight. Weights count in ties only, as that
    router has none.

    Thread-safety: full, as that of `PrefixAffinity`. Cost: O(n) per pick, and O(blocks of the
    prompt).

    Source: the ``cache_aware`` policy of the SGLang router, its thresholds those of the releases
    until 2025 (later ones have 0.3, 64 and 1.5). It matches characters; here it is blocks.

    Example:
        >>> from loadwise import Balancer
        >>> balancer = Balancer(["gpu-1", "gpu-2"], CacheAware())
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
        cache_threshold: float = 0.5,
        balance_abs_threshold: float = 32,
        balance_rel_threshold: float = 1.0001,
        rng: RandomSource | None = None,
    ) -> None:
        self._cache_threshold = finite("cache_threshold", cache_threshold)
        if not 0 <= self._cache_threshold <= 1:
            raise ValueError(f"cache_threshold is {cache_threshold!r}; it must be from 0 to 1")
        self._abs_threshold = not_negative("balance_abs_threshold", balance_abs_threshold)
        self._rel_threshold = finite("balance_rel_threshold", balance_rel_threshold)
        if not self._rel_threshold >= 1:
            raise ValueError(
                f"balance_rel_threshold is {balance_rel_threshold!r}; it must be at least 1"
            )
        super().__init__(index, rng)

    def _choose(
        self,
        plan: PrefixPlan,
        eligible: Sequence[int],
        matched: Matched | None,
        draw: Callable[[], float],
    ) -> int:
        if matched is None or self._is_uneven(plan, eligible):
            return least_busy(plan, eligible, draw)
        cached, ids = matched.cached, plan.ids
        most = max([cached.get(ids[i], 0) for i in eligible]) if cached else 0
        if most and most * matched.block_tokens > self._cache_threshold * matched.tokens:
            tied = [i for i in eligible if cached.get(ids[i], 0) == most]
        else:
            sizes = self._sizes(plan, eligible)
            fewest = min(sizes)
            tied = [i for i, size in zip(eligible, sizes, strict=True) if size == fewest]
        return least_busy(plan, tied, draw)

    def _sizes(self, plan: PrefixPlan, eligible: Sequence[int]) -> list[int]:
        ids: Sequence[Any] = plan.ids
        return [self.index.blocks(ids[i]) for i in eligible]

    def _is_uneven(self, plan: PrefixPlan, eligible: Sequence[int]) -> bool:
        loads = [len(plan.cells[i]) for i in eligible]
        most, fewest = max(loads), min(loads)
        return most - fewest > self._abs_threshold and most > self._rel_threshold * fewest
