"""Life of a client, as far as its requests have to know of it."""

from __future__ import annotations

__all__ = ["ClientLife"]


class ClientLife:
    """State that a client's requests share up to its closing; it may be used after that.

    Attributes:
        closed: Whether the client was closed after the request had begun.
    """

    __slots__ = ("closed",)

    def __init__(self) -> None:
        self.closed = False

    def end(self) -> ClientLife:
        """Tell the requests under way that they end by the client's own doing; return the next."""
        self.closed = True
        return ClientLife()
