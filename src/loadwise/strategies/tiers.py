"""Tiers: the nodes of the lowest priority first, the next as far as those are down."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from random import Random as RandomSource
from typing import Final

from loadwise._native import mypyc_attr
from loadwise._numbers import whole
from loadwise.nodes import node_id
from loadwise.strategies._group_plan import Division, Headcount, usable
from loadwise.strategies._grouped import Grouped
from loadwise.strategies._planned import N
from loadwise.strategies._shares import check_overprovisioning
from loadwise.strategies.power_of_two_choices import PowerOfTwoChoices
from loadwise.strategies.protocols import Strategy

__all__ = ["Tiers"]

_ALL: Final = 100
_ROUNDING: Final = 1e-9


@mypyc_attr(allow_interpreted_subclasses=True)
class Tiers(Grouped[N]):
    """Nodes of the lowest ``priority`` first; the others as far as those are down.

    Use it for failover: a region, a provider, a reserve that is to be used only as far as the
    first choice cannot bear the load. Each tier has a strategy of its own, made by ``make``.

    Args:
        make: Makes the strategy of a tier, such as a class or a lambda; called once for each
            priority. Load measures that it creates are shared by all tiers. The class
            `PowerOfTwoChoices` itself stands for power of two choices by the nodes' own
            ``load_score()`` or, where a node has none, by requests in flight.
        overprovisioning: How many times its share a node can bear, finite and at least 1.
        rng: Source of randomness for the choice of the tier; ``None`` for one of its own.

    Raises:
        TypeError: An argument is of the wrong kind, or ``make`` returned no strategy; when nodes
            are given, one has no ``priority``, or one that is no int.
        ValueError: ``overprovisioning`` is out of range.

    A tier bears ``100 * overprovisioning * available / members`` per cent, 100 at most; with 1.4
    all, as long as 72 % of it are available. It is given what the tiers before it do not bear. If
    all tiers together bear less than 100, their shares are scaled up, and the ailing nodes of a
    balancer in panic are on a par; else they are asked last. Available is who is not UNHEALTHY.
    Full nodes, cooldowns, quotas, exclusions and the filter of a request do not move shares: a
    request that finds nobody in its tier goes on to the others. The nodes of a tier that is down
    are tried again while the tiers before it do not bear all. Outside of a balancer, who may not
    be chosen is taken to be down.

    Thread-safety: lock-free, but for the first pick after a change. Cost: O(1) for a few tiers,
    and that of the tier's strategy; O(nodes that may not be chosen) after a change of health. What
    happens in one tier costs the strategies of the others nothing.

    Source: Envoy, priority levels and their overprovisioning factor; shares are whole per cent
    as there, but that a tier with a node available bears at least 1.

    Example:
        >>> from loadwise import Endpoint, NodeSet
        >>> nodes = NodeSet([Endpoint(f"n{i}", priority=i // 4) for i in range(6)])
        >>> tiers = Tiers()
        >>> tiers.shares(nodes), tiers.shares(nodes.without([0, 1, 2]))
        ({0: 100, 1: 0}, {0: 35, 1: 65})
    """

    def __init__(
        self,
        make: Callable[[], Strategy[N]] = PowerOfTwoChoices,
        overprovisioning: float = 1.4,
        *,
        rng: RandomSource | None = None,
    ) -> None:
        # In per cent; 1.1 times 100 is not quite 110.
        self._borne = round(check_overprovisioning(overprovisioning) * _ALL, 9)
        super().__init__(make, rng)

    def _key(self, node: N) -> int:
        priority = self._read(node, "priority")
        if type(priority) is int:
            return priority
        return whole(f"the priority of node {node_id(node)!r}", priority)

    def _order(self, keys: Iterable[int]) -> list[int]:
        return sorted(keys)

    def _divide(self, counts: Sequence[Headcount]) -> Division:
        capacities = self._capacities([count.available for count in counts], counts)
        before = accumulate([0, *capacities])
        wanted = [sum_before < _ALL for sum_before, _ in zip(before, counts, strict=False)]
        mixes = sum(capacities) < _ALL
        if not any(capacities):
            if any(count.ailing for count in counts):
                capacities = self._capacities(usable(counts), counts)
            else:
                return Division(_by_members(counts), wanted, None, mixes)
        in_all = min(_ALL, sum(capacities))
        left, percents = _ALL, list[int]()
        for capacity in capacities:
            percents.append(min(left, capacity * _ALL // in_all))
            left -= percents[-1]
        _round_up(percents, capacities)
        return Division(percents, wanted, None, mixes)

    def _capacities(self, able: Sequence[int], counts: Sequence[Headcount]) -> list[int]:
        """Return how many per cent of all requests each tier can bear."""
        return [
            max(1, min(_ALL, int(self._borne * each / count.members + _ROUNDING))) if each else 0
            for each, count in zip(able, counts, strict=True)
        ]


def _by_members(counts: Sequence[Headcount]) -> list[int]:
    """Return shares by the number of members: where all are down, none is better."""
    members = [count.members for count in counts]
    in_all = sum(members)
    percents = [each * _ALL // in_all if in_all else 0 for each in members]
    _round_up(percents, members if in_all else [1] * len(members))
    return percents


def _round_up(percents: list[int], able: Sequence[int]) -> None:
    """Give what rounding has left over to the first that can bear anything."""
    for position, each in enumerate(able):
        if each:
            percents[position] += _ALL - sum(percents)
            return
