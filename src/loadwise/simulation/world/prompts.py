"""Prompts of simulated requests, and conversations that make them up."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from itertools import accumulate, count
from math import exp, log
from random import Random

from loadwise.simulation.scenario import Conversations

__all__ = ["CHARACTERS_PER_TOKEN", "SimulatedPrompt", "conversations"]

CHARACTERS_PER_TOKEN = 4
"""As strategies take it."""
_SPELLED = 16
"""Characters that a block's number is spelled in."""


class SimulatedPrompt:
    """Prompt of one request, as the numbers of its blocks.

    Attributes:
        tokens: How many it has, 1 or more.
        output: Tokens of the answer, 1 or more.
        blocks: Its blocks, the last one perhaps not full. Equal numbers mean equal prompts up to
            the end of that block.
    """

    __slots__ = ("blocks", "output", "tokens")

    def __init__(self, tokens: int, output: int, blocks: tuple[int, ...]) -> None:
        self.tokens = tokens
        self.output = output
        self.blocks = blocks

    def text(self, block_tokens: int) -> str:
        """Return a text of the same length that shares its beginning with others as the prompt.

        Args:
            block_tokens: Tokens of a block, 4 or more.

        Example:
            >>> SimulatedPrompt(5, 1, (7, 8)).text(4)
            '00000000000000070000'
        """
        size = block_tokens * CHARACTERS_PER_TOKEN
        times, rest = divmod(size, _SPELLED)
        if rest:
            spelled = "".join(
                [(f"{block:0{_SPELLED}x}" * (times + 1))[:size] for block in self.blocks]
            )
        else:
            spelled = "".join([f"{block:0{_SPELLED}x}" * times for block in self.blocks])
        return spelled[: self.tokens * CHARACTERS_PER_TOKEN]


class _Said:
    """A conversation as far as it has come: its full blocks, and all its tokens."""

    __slots__ = ("blocks", "tokens")

    def __init__(self, blocks: tuple[int, ...], tokens: int) -> None:
        self.blocks = blocks
        self.tokens = tokens


class _Writer:
    """Makes prompts of blocks, each new one with a number of its own."""

    def __init__(self, block_tokens: int) -> None:
        self._size = block_tokens
        self._unused = count()

    def prompt(self, said: _Said, message: int, output: int) -> SimulatedPrompt:
        """Return the prompt of a message after what was said, and of an answer of such a length."""
        tokens = said.tokens + message
        missing = -(-tokens // self._size) - len(said.blocks)
        added = (next(self._unused) for _ in range(missing))
        return SimulatedPrompt(tokens, output, (*said.blocks, *added))

    def longer(self, said: _Said, tokens: int) -> _Said:
        """Return what was said, with more tokens at its end."""
        total = said.tokens + tokens
        missing = total // self._size - len(said.blocks)
        return _Said((*said.blocks, *(next(self._unused) for _ in range(missing))), total)

    def answered(self, prompt: SimulatedPrompt) -> _Said:
        """Return what was said once a prompt has its answer."""
        full = prompt.blocks[: prompt.tokens // self._size]
        return self.longer(_Said(full, prompt.tokens), prompt.output)


def conversations(
    kind: Conversations, block_tokens: int, times: Iterable[float], rng: Random
) -> Iterator[SimulatedPrompt]:
    """Yield the prompts of requests that arrive at certain times.

    Args:
        kind: What they are like.
        block_tokens: Tokens of a block.
        times: When each arrives, rising.
        rng: The source of chance.
    """
    random, writer = rng.random, _Writer(block_tokens)
    systems = [writer.longer(_Said((), 0), kind.system) for _ in range(kind.systems)]
    bounds = list(accumulate((rank + 1) ** -kind.skew for rank in range(kind.systems)))
    length = _lengths(kind.sigma, rng)
    due: list[tuple[float, int, _Said]] = []
    order = count()
    said, left = systems[0], 0
    for now in times:
        first = not left
        if first:
            left = kind.branches
            if due and due[0][0] <= now:
                said = heappop(due)[2]
            else:
                said = systems[bisect(bounds, random() * bounds[-1])]
                if kind.document:
                    said = writer.longer(said, length(kind.document))
        left -= 1
        prompt = writer.prompt(said, length(kind.message), length(kind.output))
        yield prompt
        if first and random() * kind.turns >= 1.0:
            following = now - kind.think * log(1.0 - random())
            heappush(due, (following, next(order), writer.answered(prompt)))


def _lengths(sigma: float, rng: Random) -> Callable[[float], int]:
    """Return what draws a lognormal number of tokens, 1 or more, of a given mean."""
    gauss, shift = rng.gauss, sigma * sigma / 2.0
    return lambda mean: max(1, round(mean * exp(gauss(-shift, sigma))))
