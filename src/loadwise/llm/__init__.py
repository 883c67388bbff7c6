"""Routing of prompts to language models by the prefixes that nodes have cached. No I/O."""

from loadwise._prefix_index import PrefixIndex
from loadwise._prompt import Prompt
from loadwise.load.pending_tokens import PendingTokens
from loadwise.strategies.prefix_affinity import PrefixAffinity

__all__ = ["PendingTokens", "PrefixAffinity", "PrefixIndex", "Prompt"]
