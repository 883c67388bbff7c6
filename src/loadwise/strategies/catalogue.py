"""Catalogue of the strategies: when to use each, what it needs and costs, and its short names.

The list of the command line, the demo and scenarios read it; a test compares it with the README,
the documentation and the list of compiled modules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random as RandomSource
from types import MappingProxyType
from typing import Any, Literal

from loadwise.load import InFlight, PeakEwma, PendingTokens
from loadwise.strategies.bounded_loads import BoundedLoads
from loadwise.strategies.cache_aware import CacheAware
from loadwise.strategies.consistent_hash import ConsistentHash
from loadwise.strategies.dual_map import DualMap
from loadwise.strategies.fallback import FallbackChain, WithFallback
from loadwise.strategies.filtered import Filtered
from loadwise.strategies.jump_hash import JumpHash
from loadwise.strategies.least_load import LeastLoad
from loadwise.strategies.lmetric import LMetric
from loadwise.strategies.maglev import Maglev
from loadwise.strategies.most_available import MostAvailable
from loadwise.strategies.power_of_two_choices import PowerOfTwoChoices
from loadwise.strategies.prefix_affinity import PrefixAffinity
from loadwise.strategies.protocols import Strategy
from loadwise.strategies.rendezvous import Rendezvous
from loadwise.strategies.round_robin import RoundRobin
from loadwise.strategies.scored_prefix import ScoredPrefix
from loadwise.strategies.split import Split
from loadwise.strategies.sticky import Sticky
from loadwise.strategies.tiers import Tiers
from loadwise.strategies.uniform_random import Random
from loadwise.strategies.weighted_random import WeightedRandom
from loadwise.strategies.weighted_round_robin import WeightedRoundRobin
from loadwise.strategies.zones import Zones

__all__ = ["CATALOGUE", "STRATEGIES", "Entry", "Maker", "known_name"]

Maker = Callable[[RandomSource | None, float], Strategy[Any]]  # of whatever nodes
"""Makes a strategy from a random source, ``None`` for the shared one, and the tau of peak EWMA."""


def _begin_anywhere(rng: RandomSource | None) -> Strategy[Any]:
    return RoundRobin(start=None if rng is None else rng.randrange(1 << 16))


_LLM = "loadwise.llm"


@dataclass(frozen=True, slots=True)
class Entry:
    """One strategy, combinator of strategies, or load measure.

    Attributes:
        kind: ``"strategy"``, ``"combinator"`` or ``"load"``.
        of: The class, importable from its home.
        needs: What it needs of a node.
        cost: What a pick costs for n nodes.
        use: When to use it.
        makers: Makers of it by the names that commands and scenarios call it by; the first is the
            plain form.
        home: The module that users import it from.
    """

    kind: Literal["strategy", "combinator", "load"]
    of: type
    needs: str
    cost: str
    use: str
    makers: Mapping[str, Maker] = field(default_factory=dict[str, Maker])
    home: str = "loadwise"

    @property
    def name(self) -> str:
        """The name of the class."""
        return self.of.__name__


CATALOGUE = (
    Entry(
        "strategy",
        RoundRobin,
        "nothing",
        "O(1)",
        "Nodes are alike and requests cost alike.",
        {
            "round-robin": lambda _, __: RoundRobin(),
            "round-robin-random-start": lambda rng, _: _begin_anywhere(rng),
        },
    ),
    Entry(
        "strategy",
        WeightedRoundRobin,
        "weight",
        "O(1) or O(log n)",
        "Nodes differ in size and requests cost alike. Exact shares, smoothly interleaved; "
        "O(log n) only for weights that are floats or very uneven.",
        {"weighted-round-robin": lambda _, __: WeightedRoundRobin()},
    ),
    Entry(
        "strategy",
        Random,
        "nothing",
        "O(1)",
        "Many clients share the nodes and must not fall into step.",
        {"random": lambda rng, _: Random(rng)},
    ),
    Entry(
        "strategy",
        WeightedRandom,
        "weight",
        "O(1)",
        "As Random, for nodes that differ in size.",
        {"weighted-random": lambda rng, _: WeightedRandom(rng)},
    ),
    Entry(
        "strategy",
        PowerOfTwoChoices,
        "a load",
        "O(1)",
        "The default. Nearly as good as asking all nodes for their load, at any size.",
        {
            "p2c": lambda rng, _: PowerOfTwoChoices(InFlight(), rng),
            "p2c-peak-ewma": lambda rng, tau: PowerOfTwoChoices(PeakEwma(tau=tau), rng),
        },
    ),
    Entry(
        "strategy",
        LeastLoad,
        "a load",
        "O(n)",
        "Few nodes and one client, or requests so long that the best place is worth a scan.",
        {
            "least-load": lambda rng, _: LeastLoad(InFlight(), rng),
            "least-load-peak-ewma": lambda rng, tau: LeastLoad(PeakEwma(tau=tau), rng),
        },
    ),
    Entry(
        "strategy",
        ConsistentHash,
        "hash_key of the request",
        "O(1)",
        "A key must stay on its node (caches, sessions); few keys move when nodes change. "
        "A weight is heeded.",
        {"consistent-hash": lambda _, __: ConsistentHash()},
    ),
    Entry(
        "strategy",
        Maglev,
        "hash_key of the request",
        "O(1)",
        "As ConsistentHash, with shares even to 1 %; a few keys more move when nodes change.",
        {"maglev": lambda _, __: Maglev()},
    ),
    Entry(
        "strategy",
        Rendezvous,
        "hash_key of the request",
        "O(n)",
        "As ConsistentHash, for few nodes: shares exactly by weight, and no key moves in vain.",
        {"rendezvous": lambda _, __: Rendezvous()},
    ),
    Entry(
        "strategy",
        JumpHash,
        "hash_key of the request, numbered ids",
        "O(log n)",
        "Shards that are numbered, and added at the end: the most even shares, without a table.",
        {"jump-hash": lambda _, __: JumpHash()},
    ),
    Entry(
        "strategy",
        BoundedLoads,
        "hash_key of the request",
        "as the strategy inside",
        "Keys stay on their nodes, and some are so popular that they must spill over to the next.",
        {"bounded-loads": lambda _, __: BoundedLoads(ConsistentHash())},
    ),
    Entry(
        "strategy",
        MostAvailable,
        "remaining()",
        "O(n)",
        "Several budgets (API keys, token allowances) are to be spent evenly.",
        {"most-available": lambda rng, _: MostAvailable(rng=rng)},
    ),
    Entry(
        "strategy",
        PrefixAffinity,
        "prompt of the request",
        "O(n)",
        "Language models: each prompt where most of it is cached and the wait is short.",
        {"prefix-affinity": lambda rng, _: PrefixAffinity(rng=rng)},
        _LLM,
    ),
    Entry(
        "strategy",
        DualMap,
        "prompt of the request",
        "O(n)",
        "As PrefixAffinity, where many clients share nothing: two nodes for each beginning.",
        {"dualmap": lambda rng, _: DualMap(rng=rng)},
        _LLM,
    ),
    Entry(
        "strategy",
        LMetric,
        "prompt of the request",
        "O(n)",
        "To compare PrefixAffinity with: the fewest new tokens times requests in flight.",
        {"lmetric": lambda rng, _: LMetric(rng=rng)},
        _LLM,
    ),
    Entry(
        "strategy",
        CacheAware,
        "prompt of the request",
        "O(n)",
        "To compare PrefixAffinity with: the policy of SGLang's router.",
        {"cache-aware": lambda rng, _: CacheAware(rng=rng)},
        _LLM,
    ),
    Entry(
        "strategy",
        ScoredPrefix,
        "prompt of the request",
        "O(n)",
        "To compare PrefixAffinity with: the weighted scores of llm-d.",
        {"scored-prefix": lambda rng, _: ScoredPrefix(rng=rng)},
        _LLM,
    ),
    Entry(
        "combinator",
        Sticky,
        "as the strategy inside",
        "O(1), or as the strategy inside",
        "Sessions that cost more to move than an uneven load does: a key keeps its first node.",
    ),
    Entry(
        "combinator",
        Filtered,
        "as the strategy inside",
        "as the strategy inside",
        "A strategy may see only some nodes: one zone, one tier, the healthy ones. O(n) more when "
        "health or quotas have changed, and at each pick with a function of a node.",
    ),
    Entry(
        "combinator",
        WithFallback,
        "as the strategies inside",
        "as those asked",
        "One strategy first, another when the first has nothing to offer.",
    ),
    Entry(
        "combinator",
        FallbackChain,
        "as the strategies inside",
        "as those asked",
        "A chain of tiers: the best that has a node left, in any number.",
    ),
    Entry(
        "combinator",
        Tiers,
        "priority",
        "O(1) and that of the strategy inside",
        "Failover: the next priority takes what the nodes of the first that are up cannot bear.",
    ),
    Entry(
        "combinator",
        Zones,
        "zone",
        "O(1) and that of the strategy inside",
        "Requests stay in the local zone as far as its nodes are up; or zones by weight.",
    ),
    Entry(
        "combinator",
        Split,
        "a function of it",
        "O(1) and that of the strategy inside",
        "A canary, two versions: shares of groups that hold when nodes are down.",
    ),
    Entry(
        "load",
        InFlight,
        "nothing",
        "O(1)",
        "Requests cost about the same on every node: counts those under way.",
    ),
    Entry(
        "load",
        PeakEwma,
        "nothing",
        "O(1)",
        "Nodes or requests differ in speed: recent latency, peaks at once, times those under way.",
    ),
    Entry(
        "load",
        PendingTokens,
        "prompt of the request",
        "O(1)",
        "Language models without a cache of prefixes: the tokens that wait for their first byte.",
        home=_LLM,
    ),
)
"""All strategies, combinators and load measures, in the order of the lists."""

STRATEGIES: Mapping[str, Maker] = MappingProxyType(
    {name: make for entry in CATALOGUE for name, make in entry.makers.items()}
)
"""Makers of strategies by the names that commands and scenarios call them by."""


def known_name(text: str) -> str | None:
    """Return the name that is meant by one in any spelling; ``None`` for no other.

    A class's name means the first that it has here.

    Example:
        >>> known_name("PowerOfTwoChoices"), known_name("least_load"), known_name("best")
        ('p2c', 'least-load', None)
    """
    plain = {_plain(entry.name): next(iter(entry.makers), None) for entry in CATALOGUE}
    plain |= {_plain(known): known for known in STRATEGIES}
    return plain.get(_plain(text))


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()
