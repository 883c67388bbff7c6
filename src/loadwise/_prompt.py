"""Prompt of one request to a language model."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final

from loadwise._numbers import shown

__all__ = ["CHARACTERS_PER_TOKEN", "LEAST_TOKENS", "Prompt", "check_prompt"]

Sent = Callable[[Hashable, int, float], float]
Cached = Callable[[float], None]

CHARACTERS_PER_TOKEN: Final = 4
"""Characters that a token is taken for."""
LEAST_TOKENS: Final = 1.0
"""Tokens to compute of any prompt: the last one is, though all are cached."""


def check_prompt(prompt: object) -> None:
    """Raise ``TypeError`` unless ``prompt`` is text."""
    if not isinstance(prompt, str):
        raise TypeError(
            f"prompt is {shown(prompt)}; it must be a str: join the texts of a chat in their order"
        )


class Prompt:
    """Prompt of one request, with what strategies keep of it until it is on its way.

    Args:
        text: All that the model reads, in its order.

    Attributes:
        text: As given.
        hashes: Hashes of its blocks, by their number of characters.
        sent: Told of the node that is given the request, of the token of its lease (0 without
            one), and of the time; returns how many of its tokens the node has to compute. Set by
            the strategy that chose last.
        cached: Told which share of it was cached where it went last, if that wants to know.

    Raises:
        TypeError: It is no str.

    Not thread-safe: it belongs to one request.
    """

    __slots__ = ("cached", "hashes", "sent", "text")

    def __init__(self, text: str) -> None:
        check_prompt(text)
        self.text = text
        self.hashes: dict[int, list[int]] = {}
        self.sent: Sent | None = None
        self.cached: Cached | None = None

    @classmethod
    def of(cls, prompt: str | Prompt | None) -> Prompt | None:
        """Return a prompt in any form as one of this form."""
        return prompt if prompt is None or isinstance(prompt, Prompt) else cls(prompt)

    @property
    def tokens(self) -> float:
        """Its length, in tokens."""
        return len(self.text) / CHARACTERS_PER_TOKEN

    def tell_sent(self, node_id: Hashable, token: int, now: float) -> float | None:
        """Tell whoever chose that the request goes to a node.

        Returns:
            How many of its tokens the node has to compute; ``None`` if nobody wanted to be told.
        """
        return None if self.sent is None else self.sent(node_id, token, now)

    def tell_cached(self, share: float) -> None:
        """Tell whoever chose which share of it was cached, as the answer says: 0 to 1."""
        if self.cached is not None:
            self.cached(share)

    def __eq__(self, other: object) -> bool:
        return self.text == other.text if isinstance(other, Prompt) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"<Prompt of {len(self.text)} characters>"
