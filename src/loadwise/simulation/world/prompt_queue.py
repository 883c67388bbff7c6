"""Prompts that a server of a language model has to compute, in their order."""

from __future__ import annotations

from collections import deque
from typing import Any

from loadwise.simulation.world.attempt import SimulatedAttempt
from loadwise.simulation.world.kv_cache import KvCache
from loadwise.simulation.world.prompts import SimulatedPrompt

__all__ = ["Attempt", "Part", "Parts", "Prefill", "PromptQueue"]

Attempt = SimulatedAttempt[Any]  # on whatever servers


class Prefill:
    """One prompt to compute.

    Attributes:
        attempt: The attempt that it came with.
        prompt: The prompt.
        left: Tokens that are yet to be computed, once it has begun.
    """

    __slots__ = ("attempt", "left", "prompt")

    def __init__(self, attempt: Attempt, prompt: SimulatedPrompt) -> None:
        self.attempt = attempt
        self.prompt = prompt
        self.left = prompt.tokens


Part = tuple[Prefill, int]
"""A prompt, and how many of its tokens a step computes."""

Parts = tuple[list[Part], int]
"""All that a step computes, and how many of those prompts begin with it."""


class PromptQueue:
    """Queue of prompts, first come, first served, with the cache of those that were computed.

    What is cached of a prompt is looked up when its computation begins. What is computed is cached
    at the end of each step; the last token is always computed, because the answer follows from it.

    Args:
        cache: Blocks of computed prompts.
        block_tokens: Tokens of a block.
        whole: Whether each step computes one prompt, whole.

    Attributes:
        prompt_tokens: Tokens of the prompts that began.
        cached_tokens: Those of them that were cached.
    """

    def __init__(self, cache: KvCache, block_tokens: int, *, whole: bool) -> None:
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self._cache = cache
        self._block_tokens = block_tokens
        self._whole = whole
        self._waiting: deque[Prefill] = deque()
        self._begun: deque[Prefill] = deque()

    @property
    def waiting(self) -> int:
        """Prompts that have not begun."""
        return len(self._waiting)

    @property
    def begun(self) -> int:
        """Prompts that have begun and are not complete."""
        return len(self._begun)

    def add(self, attempt: Attempt, prompt: SimulatedPrompt) -> None:
        """Take a prompt that has come."""
        self._waiting.append(Prefill(attempt, prompt))

    def drop(self, attempt: Attempt) -> None:
        """Forget a prompt, unless it has begun. O(waiting)."""
        for prefill in self._waiting:
            if prefill.attempt is attempt:
                self._waiting.remove(prefill)
                return

    def step(self, room: int, budget: int) -> Parts:
        """Return what the next step computes.

        Args:
            room: So many more prompts may begin.
            budget: So many tokens fit into it, unless prompts are computed whole.
        """
        if self._whole:
            return ([self._first_part()], 1) if room > 0 and self._waiting else ([], 0)
        parts: list[Part] = []
        for prefill in self._begun:
            if budget <= 0:
                return parts, 0
            tokens = min(prefill.left, budget)
            parts.append((prefill, tokens))
            budget -= tokens
        begun = 0
        while budget > 0 and begun < room and self._waiting:
            prefill, whole = self._first_part()
            tokens = min(whole, budget)
            parts.append((prefill, tokens))
            budget -= tokens
            begun += 1
        return parts, begun

    def _first_part(self) -> Part:
        """Begin the first prompt of those that wait."""
        prefill = self._waiting.popleft()
        prompt = prefill.prompt
        hits = self._cache.matched(prompt.blocks) * self._block_tokens
        cached = min(hits, prompt.tokens - 1)
        self.prompt_tokens += prompt.tokens
        self.cached_tokens += cached
        prefill.left -= cached
        self._begun.append(prefill)
        return prefill, prefill.left

    def computed(self, parts: list[Part]) -> list[Prefill]:
        """Record that a step has ended; return the prompts that are complete."""
        complete: list[Prefill] = []
        for prefill, tokens in parts:
            prefill.left -= tokens
            prompt = prefill.prompt
            if prefill.left:
                full = (prompt.tokens - prefill.left) // self._block_tokens
                self._cache.keep(prompt.blocks[:full])
            else:
                self._cache.keep(prompt.blocks)
                complete.append(prefill)
                self._begun.remove(prefill)
        return complete

    def lose_all(self) -> None:
        """Forget all prompts, and what is cached."""
        self._waiting.clear()
        self._begun.clear()
        self._cache.clear()

    def held(self) -> list[Attempt]:
        """Return the attempts that are here."""
        return [prefill.attempt for prefill in (*self._waiting, *self._begun)]
