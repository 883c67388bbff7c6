"""Choice rules: given these nodes, which one? One strategy per module.

A strategy chooses and nothing else: loads are measured by `loadwise.load`, what may be chosen is
decided by health, quotas and filters, and a `Balancer` brings them together.
"""

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
from loadwise.strategies.protocols import KeyOrder, Strategy, ViewStrategy
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

__all__ = [
    "BoundedLoads",
    "CacheAware",
    "ConsistentHash",
    "DualMap",
    "FallbackChain",
    "Filtered",
    "JumpHash",
    "KeyOrder",
    "LMetric",
    "LeastLoad",
    "Maglev",
    "MostAvailable",
    "PowerOfTwoChoices",
    "PrefixAffinity",
    "Random",
    "Rendezvous",
    "RoundRobin",
    "ScoredPrefix",
    "Split",
    "Sticky",
    "Strategy",
    "Tiers",
    "ViewStrategy",
    "WeightedRandom",
    "WeightedRoundRobin",
    "WithFallback",
    "Zones",
]
