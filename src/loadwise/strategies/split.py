"""Split of the requests by group: a canary, two versions, two providers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from random import Random as RandomSource
from typing import Any, Final

from loadwise._callables import refuse_async, refuse_awaitable
from loadwise._native import mypyc_attr
from loadwise._numbers import shown
from loadwise.nodes import node_id
from loadwise.strategies._group_plan import Division, Headcount, usable
from loadwise.strategies._grouped import Grouped
from loadwise.strategies._planned import N
from loadwise.strategies._shares import check_shares, scaled
from loadwise.strategies.power_of_two_choices import PowerOfTwoChoices
from loadwise.strategies.protocols import Strategy

__all__ = ["Split"]

_NEEDED_NOW: Final = "it is asked when nodes are given: make it a plain function"


@mypyc_attr(allow_interpreted_subclasses=True)
class Split(Grouped[N]):
    """Requests split among groups of nodes in fixed shares, such as 95 to 5 for a canary.

    Use it for a canary release, an A/B test or two providers: unlike weights of nodes, shares of
    groups hold when nodes of a group are down, or when one group has more of them. Each group has
    a strategy of its own, made by ``make``.

    Args:
        shares: Shares by group, finite and at least 0; they need not add up to 100. A group of
            share 0 gets requests only where no other has a candidate.
        by: Function of a node that returns its group; asked once when a node joins.
        make: Makes the strategy of a group; see `Tiers`.
        rng: Source of randomness for the choice of the group; ``None`` for one of its own.

    Raises:
        TypeError: An argument is of the wrong kind, or ``make`` returned no strategy; when nodes
            are given, ``by`` returns what is not hashable.
        ValueError: ``shares`` is empty or out of range; when nodes are given, ``by`` puts one into
            a group that has no share.

    While none of its nodes is available, or it has none yet, the others share what a group would
    be given, in proportion. Available is who is not UNHEALTHY; see `Tiers` for what does not move
    shares, and for nodes outside of a balancer. A request that finds nobody in its group, because
    its nodes are full, excluded or on cooldown, goes to another, too.

    Thread-safety and cost: those of `Tiers`.

    Example:
        >>> from loadwise import Endpoint, NodeSet
        >>> nodes = NodeSet([Endpoint(f"n{i}", tags={"v": "1112"[i]}) for i in range(4)])
        >>> canary = Split({"1": 95, "2": 5}, by=lambda node: node.tags["v"])
        >>> canary.shares(nodes), canary.shares(nodes.without([3]))
        ({'1': 95.0, '2': 5.0}, {'1': 100.0, '2': 0.0})
    """

    def __init__(
        self,
        shares: Mapping[Any, float],
        by: Callable[[N], Hashable],
        make: Callable[[], Strategy[N]] = PowerOfTwoChoices,
        *,
        rng: RandomSource | None = None,
    ) -> None:
        self._shares = check_shares("shares", shares, '{"stable": 95, "canary": 5}')
        if not callable(by):
            raise TypeError(f"by is {shown(by)}; give a function of a node that returns its group")
        refuse_async("by", by, _NEEDED_NOW)
        self._by = by
        super().__init__(make, rng)

    def shares(self, nodes: Sequence[N]) -> dict[Any, float]:
        """Return what each group is given, in per cent; see `Tiers.shares`."""
        return dict.fromkeys(self._shares, 0.0) | super().shares(nodes)

    def _key(self, node: N) -> Hashable:
        by: Callable[[N], Hashable] = self._by
        group = by(node)
        try:
            known = group in self._shares
        except TypeError:
            refuse_awaitable(f"by, asked of node {node_id(node)!r},", group, _NEEDED_NOW)
            raise TypeError(
                f"by puts node {node_id(node)!r} into the group {shown(group)}; a group must be "
                f"hashable, such as a str"
            ) from None
        if not known:
            refuse_awaitable(f"by, asked of node {node_id(node)!r},", group, _NEEDED_NOW)
            named = ", ".join(map(repr, self._shares))
            raise ValueError(
                f"by puts node {node_id(node)!r} into the group {shown(group)}, which has no "
                f"share; give it one (0 for none), or one of {named}"
            )
        return group

    def _order(self, keys: Iterable[Any]) -> list[Any]:
        found = set(keys)
        return [key for key in self._shares if key in found]

    def _divide(self, counts: Sequence[Headcount]) -> Division:
        able, own = usable(counts), self._shares
        parts = [own[count.key] if each else 0.0 for each, count in zip(able, counts, strict=True)]
        if not any(parts):  # of those that are given nothing else
            parts = [float(each) for each in able]
        wanted = [own[count.key] > 0 for count in counts]
        return Division(scaled(parts), wanted, None, mixes=True)
