"""Zones: near nodes first, the others in proportion; or zones by weight."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from random import Random as RandomSource
from typing import Any, Final

from loadwise._native import mypyc_attr
from loadwise._numbers import shown
from loadwise.nodes import node_id
from loadwise.strategies._group_plan import Division, Headcount, usable
from loadwise.strategies._grouped import Grouped
from loadwise.strategies._groups import Layout
from loadwise.strategies._planned import N
from loadwise.strategies._shares import check_overprovisioning, check_shares, scaled
from loadwise.strategies.power_of_two_choices import PowerOfTwoChoices
from loadwise.strategies.protocols import Strategy

__all__ = ["Zones"]

_ALL: Final = 100.0
_MOST_NAMED: Final = 5


@mypyc_attr(allow_interpreted_subclasses=True)
class Zones(Grouped[N]):
    """Nodes of the local ``zone`` as far as they are up, else those of the others; or by weight.

    Use it for zone-aware routing: traffic between zones costs money and time. Give each client
    the zone that it runs in. Each zone has a strategy of its own, made by ``make``.

    Args:
        make: Makes the strategy of a zone; see `Tiers`.
        local: The zone of this client: a ``zone`` that nodes have; ``None`` for no preference.
        overprovisioning: How many times its share a node can bear, finite and at least 1.
        weights: Shares by zone instead, finite and at least 0; zones not named have 1. Those of
            weight 0 get requests only where no other has a candidate.
        rng: Source of randomness for the choice of the zone; ``None`` for one of its own.

    Raises:
        TypeError: An argument is of the wrong kind, or ``make`` returned no strategy; when nodes
            are given, one has no ``zone``, or one that is not hashable.
        ValueError: An argument is out of range, or both ``local`` and ``weights`` are given; when
            nodes are given, none of them is in ``local``, or in any zone of ``weights``.

    With ``local``, that zone is given ``overprovisioning * available / members`` of the requests,
    1 at most. The other zones share the rest in proportion to the weights of the nodes available
    in each. With ``weights`` a zone is given its weight times the same factor, in proportion. With
    neither, every zone is given what its available nodes weigh. Available is who is not UNHEALTHY;
    see `Tiers` for what does not move shares, and for nodes outside of a balancer. Ailing nodes of
    a balancer in panic are on a par with the others in their zone.

    A ``local`` that no node has is an error when a balancer is made with nodes. If its nodes leave
    later, or the balancer is made without any, as for discovery, or another strategy hands it one
    group of them (such as a tier), and none is in ``local``, the others are given everything.

    Thread-safety and cost: those of `Tiers`.

    Source: Envoy, zone-aware routing and locality-weighted load balancing.

    Example:
        >>> from loadwise import Endpoint, NodeSet
        >>> nodes = NodeSet([Endpoint(f"n{i}", zone="aabbc"[i]) for i in range(5)])
        >>> near = Zones(local="a")
        >>> near.shares(nodes), near.shares(nodes.without([1]))
        ({'a': 100.0, 'b': 0.0, 'c': 0.0}, {'a': 70.0, 'b': 20.0, 'c': 10.0})
    """

    def __init__(
        self,
        make: Callable[[], Strategy[N]] = PowerOfTwoChoices,
        local: Hashable = None,
        overprovisioning: float = 1.4,
        *,
        weights: Mapping[Any, float] | None = None,
        rng: RandomSource | None = None,
    ) -> None:
        if local is not None and weights is not None:
            raise ValueError(
                f"Zones is given local={local!r} and weights={shown(weights)}; give one of them: "
                f"the zone of this client, or shares by zone"
            )
        self._local = _hashable("local", local)
        self._factor = check_overprovisioning(overprovisioning)
        self._weights = None
        if weights is not None:
            self._weights = check_shares("weights", weights, '{"a": 2, "b": 1}')
        # Whether nodes were given at once, so that a zone that none has was a mistake.
        self._known = False
        super().__init__(make, rng)

    def _key(self, node: N) -> Hashable:
        zone = self._read(node, "zone")
        return _hashable(f"the zone of node {node_id(node)!r}", zone)

    def _order(self, keys: Iterable[Any]) -> list[Any]:
        return list(keys)

    def _check(self, layout: Layout[N], *, afresh: bool) -> None:
        zones = [group.key for group in layout.groups]
        if self._known:
            return
        wanted = list(self._weights or ())
        if self._local is not None:
            wanted = [self._local]
        if wanted and zones and afresh and not set(wanted).intersection(zones):
            what = (
                f"local is {self._local!r}"
                if self._weights is None
                else (f"weights are for {', '.join(map(repr, wanted[:_MOST_NAMED]))}")
            )
            found = ", ".join(map(repr, zones[:_MOST_NAMED]))
            raise ValueError(
                f"{what}, but no node is in such a zone; the zones of the nodes are {found}"
                f"{', ...' if len(zones) > _MOST_NAMED else ''}: name one of them, or leave it out"
            )
        self._known = True

    def _divide(self, counts: Sequence[Headcount]) -> Division:
        able = usable(counts)
        power = [count.power for count in counts]
        if not any(power):
            power = [float(each) for each in able]
        if self._weights is not None:
            own = self._weights
            parts = [
                own.get(count.key, 1.0) * self._borne(each, count)
                for each, count in zip(able, counts, strict=True)
            ]
            wanted = [own.get(count.key, 1.0) > 0 for count in counts]
            return Division(scaled(parts if any(parts) else power), wanted, power, mixes=True)
        near = [p for p, count in enumerate(counts) if count.key == self._local]
        if self._local is None or not near:
            return Division(scaled(power), [True] * len(counts), power, mixes=True)
        [local] = near
        others = [0.0 if p == local else each for p, each in enumerate(power)]
        kept = _ALL * self._borne(able[local], counts[local]) if any(others) else _ALL
        percents = scaled(others, _ALL - kept)
        percents[local] = kept
        now = self._borne(counts[local].available, counts[local])
        wanted = [p == local or now < 1 for p in range(len(counts))]
        return Division(percents, wanted, power, mixes=True)

    def _borne(self, able: int, count: Headcount) -> float:
        """Return which part of its share a zone can bear."""
        return min(1.0, self._factor * able / count.members) if able else 0.0


def _hashable(what: str, value: Any) -> Hashable:  # noqa: ANN401 - whatever a node has
    try:
        hash(value)
    except TypeError:
        raise TypeError(f"{what} is {shown(value)}; it must be hashable, such as a str") from None
    return value  # type: ignore[no-any-return]  # that was found out
