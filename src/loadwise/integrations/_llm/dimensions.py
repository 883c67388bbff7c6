"""The quota dimensions in which requests to language models are counted."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["MOST_TOKENS", "Dimensions"]

MOST_TOKENS = 1_000_000_000
"""No request uses more; a number above it is a mistake or a lie."""


class Dimensions(NamedTuple):
    """Names of quota dimensions; ``None`` for what is not limited.

    Attributes:
        requests: Of requests.
        tokens: Of tokens, those of prompts and of answers together.
        input: Of tokens of prompts.
        output: Of tokens of answers.
    """

    requests: str | None
    tokens: str | None
    input: str | None
    output: str | None

    def named(self, prompt: int, answer: int, total: int) -> dict[str, float]:
        """Return amounts of tokens by dimension."""
        told = ((self.tokens, total), (self.input, prompt), (self.output, answer))
        return {name: min(amount, MOST_TOKENS) for name, amount in told if name is not None}

    @property
    def count_tokens(self) -> bool:
        """True if tokens are limited in any way."""
        return not self.tokens is self.input is self.output is None
