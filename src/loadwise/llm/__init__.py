"""Routing of prompts to language models by the prefixes that nodes have cached. No I/O."""

from loadwise._prefix_index import PrefixIndex

__all__ = ["PrefixIndex"]
