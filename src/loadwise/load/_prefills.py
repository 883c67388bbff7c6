"""Prompts on their way to one node, whose answers have not begun."""

from __future__ import annotations

from collections.abc import Hashable
from threading import RLock
from typing import Protocol
from weakref import ReferenceType

from loadwise._native import mypyc_attr
from loadwise._prefix_index import PrefixIndex
from loadwise._prompt import LEAST_TOKENS
from loadwise.load._measure import Cell
from loadwise.load._pace import Pace

__all__ = ["Followers", "Prefills", "PromptLoad", "TokenCell"]

Followers = list["ReferenceType[PrefixIndex]"]


class PromptLoad(Protocol):
    """Load of one node by its prompts, as strategies read it."""

    turn: int
    """Number of the last prompt sent there, of all that a measure was told of; 0 for none."""
    pace: Pace
    """Learns how quick the node is."""

    @property
    def pending(self) -> float:
        """Uncached tokens of the prompts whose first byte has not come."""
        ...

    @property
    def waiting(self) -> int:
        """Number of those prompts."""
        ...

    @property
    def held(self) -> float:
        """Tokens of all prompts, until their requests end."""
        ...


class Prefills:
    """Prompts of the requests in flight on one node, by the tokens of their leases.

    Attributes:
        pending: Uncached tokens of the prompts whose first byte has not come.
        held: Tokens of all prompts, until their requests end.
        turn: Number of the last prompt sent here, of all that a measure was told of; 0 for none.
        pace: Learns how quick the node is.

    Thread-safety: a lock, held for a moment. Ctrl-C strikes after calls, and finds all of a change
    done or nothing.
    """

    __slots__ = ("_held", "_lock", "_open", "held", "pace", "pending", "turn")

    def __init__(self) -> None:
        # Re-entrant: the collector may strike while it is held, and end a lease.
        self._lock = RLock()
        self._open: dict[int, float] = {}
        self._held: dict[int, float] = {}
        self.pending = 0.0
        self.held = 0.0
        self.turn = 0
        self.pace = Pace()

    @property
    def waiting(self) -> int:
        """Number of prompts whose first byte has not come."""
        return len(self._open)

    def is_idle(self) -> bool:
        """Tell whether the node has no prompt to compute. Called under the lock."""
        return not self._open

    def begin(self, token: int, new: float, tokens: float, now: float) -> None:
        """Count a prompt of so many tokens, of which so many are new to the node."""
        most = max(new, LEAST_TOKENS)
        with self._lock:
            self.pace.begin(now, idle=self.is_idle())
            self._open[token] = most
            self.pending += most
            self._held[token] = tokens
            self.held += tokens

    def first_byte(self, token: int, now: float) -> None:
        """Uncount a prompt whose answer has begun. It may be said again."""
        if token not in self._open:
            return
        with self._lock:
            try:
                tokens = self._open[token]
            except KeyError:  # another thread was quicker
                return
            del self._open[token]
            # Fourths of a token are exact in floats, so nothing is left in the end.
            self.pending -= tokens
            self.pace.first_byte(tokens, now, self.turn, idle=self.is_idle())

    def pop(self, token: int, _: None) -> None:
        """Uncount a prompt whose request has ended. It may be called again."""
        if token not in self._held:
            return
        with self._lock:
            if token in self._open:
                tokens = self._open[token]
                del self._open[token]
                self.pending -= tokens
                self.pace.spoil()
            if token in self._held:
                tokens = self._held[token]
                del self._held[token]
                self.held -= tokens


@mypyc_attr(native_class=False)  # as a subclass of list must be
class TokenCell(Cell):
    """A counter with the prompts of its node beside it.

    When nobody holds it any more, its node has left, and indexes are told so.

    Attributes:
        own: What is counted here.
        prefills: What strategies go by: the same, unless others count, too.
    """

    __slots__ = ("_followers", "_id", "own", "prefills")

    def __init__(self, node_id: Hashable, followers: Followers) -> None:
        super().__init__()
        self.own = Prefills()
        self.prefills: PromptLoad = self.own
        self._id = node_id
        self._followers = followers

    def forget(self) -> None:
        """Have the indexes forget the node. It takes no lock."""
        for follower in self._followers:
            index = follower()
            if index is not None:
                index.leave(self._id)

    def __del__(self) -> None:
        self.forget()
