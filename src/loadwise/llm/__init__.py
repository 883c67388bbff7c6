"""Routing of prompts to language models by the prefixes that nodes have cached. No I/O."""

from loadwise._prefix_index import PrefixIndex
from loadwise._prompt import Prompt
from loadwise.load.pending_tokens import PendingTokens
from loadwise.strategies.cache_aware import CacheAware
from loadwise.strategies.dual_map import DualMap
from loadwise.strategies.lmetric import LMetric
from loadwise.strategies.prefix_affinity import PrefixAffinity
from loadwise.strategies.scored_prefix import ScoredPrefix

__all__ = [
    "CacheAware",
    "DualMap",
    "LMetric",
    "PendingTokens",
    "PrefixAffinity",
    "PrefixIndex",
    "Prompt",
    "ScoredPrefix",
]
