"""Answers that a server of a language model writes together, token by token."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from loadwise.simulation.world.loop import Loop
from loadwise.simulation.world.prompt_queue import Attempt

__all__ = ["Answers", "FlowingAnswers", "TokenSeconds"]

TokenSeconds = Callable[[int], float]
"""Seconds that a token of each answer takes when so many are written."""


class Answers:
    """Answers, by the number of tokens after which each is complete.

    All get their tokens at the same time, so they are counted once, for all of them.

    Attributes:
        written: Tokens that an answer has got that was here all the time.
    """

    def __init__(self) -> None:
        self.written = 0.0
        self._ends: list[tuple[float, int, Attempt]] = []
        self._order = count()

    def __len__(self) -> int:
        """Return how many are written."""
        return len(self._ends)

    def add(self, attempt: Attempt, tokens: int) -> None:
        """Begin an answer of so many tokens. O(log n)."""
        heappush(self._ends, (self.written + tokens, next(self._order), attempt))

    def left(self) -> float:
        """Return the tokens until the next one is complete."""
        return self._ends[0][0] - self.written

    def write(self, tokens: float) -> list[Attempt]:
        """Write so many tokens of each; return those that are complete."""
        self.written += tokens
        complete: list[Attempt] = []
        while self._ends and self._ends[0][0] <= self.written:
            complete.append(heappop(self._ends)[2])
        return complete

    def lose_all(self) -> None:
        """Forget all of them."""
        self._ends.clear()

    def held(self) -> list[Attempt]:
        """Return the attempts that are here."""
        return [attempt for _, _, attempt in self._ends]


class FlowingAnswers:
    """Answers that are written beside all else, at a pace that depends on their number alone.

    Args:
        loop: Virtual time.
        token_seconds: How long a token takes.
        complete: Called with each attempt whose answer is complete.
    """

    def __init__(
        self, loop: Loop, token_seconds: TokenSeconds, complete: Callable[[Attempt], None]
    ) -> None:
        self._loop = loop
        self._token_seconds = token_seconds
        self._complete = complete
        self._answers = Answers()
        self._since = 0.0
        self._plan = 0
        self._stands_still = False

    def __len__(self) -> int:
        """Return how many are written."""
        return len(self._answers)

    def add(self, attempt: Attempt, tokens: int) -> None:
        """Begin an answer of so many tokens."""
        self.pause()
        self._answers.add(attempt, tokens)
        self.go_on()

    def pause(self) -> None:
        """Write what has been written by now, and stand still."""
        if not self._stands_still:
            self._stands_still = True
            now = self._loop.now
            if self._answers:
                tokens = (now - self._since) / self._token_seconds(len(self._answers))
                # The next one is complete when that is said, and not by rounding before.
                self._answers.written += min(tokens, self._answers.left())
            self._since = now

    def go_on(self) -> None:
        """Write on, at the pace of now."""
        self._stands_still = False
        self._since = self._loop.now
        self._plan += 1
        if self._answers:
            seconds = self._answers.left() * self._token_seconds(len(self._answers))
            self._loop.at(self._loop.now + seconds, self._due, self._plan)

    def _due(self, plan: int) -> None:
        if plan != self._plan or self._stands_still:
            return  # it was planned before something changed
        complete = self._answers.write(self._answers.left())
        self.go_on()
        for attempt in complete:
            self._complete(attempt)

    def lose_all(self) -> None:
        """Forget all of them."""
        self._answers.lose_all()
        self.go_on()

    def held(self) -> list[Attempt]:
        """Return the attempts that are here."""
        return self._answers.held()
