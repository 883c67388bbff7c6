"""A server of a language model's engine, alone, and those who ask it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from loadwise.simulation.scenario import LlmTable
from loadwise.simulation.world.attempt import SimulatedAttempt, SimulatedRequest
from loadwise.simulation.world.llm_engine import LlmEngine
from loadwise.simulation.world.loop import Loop
from loadwise.simulation.world.prompts import SimulatedPrompt

__all__ = ["Asked", "Caller", "Serving"]

Asked = tuple[float, int, int, tuple[int, ...]]
"""When it comes, tokens of the prompt and of the answer, and the prompt's blocks."""


class Caller:
    """Notes when the first token and the last one come, by number of the request."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.numbers: dict[int, int] = {}
        self.first: dict[int, float] = {}
        self.last: dict[int, float] = {}

    def began(self, attempt: SimulatedAttempt[Any]) -> None:
        self.first[self.numbers[id(attempt)]] = self.loop.now

    def done(self, attempt: SimulatedAttempt[Any]) -> None:
        self.last[self.numbers[id(attempt)]] = self.loop.now


class Serving:
    """An engine in virtual time, to which requests come."""

    def __init__(self, table: LlmTable, pace: float = 1.0) -> None:
        self.loop = Loop()
        self.engine = LlmEngine(self.loop, table, pace)
        self.caller = Caller(self.loop)
        self.attempts: list[SimulatedAttempt[Any]] = []

    def ask(self, requests: Sequence[Asked]) -> Caller:
        """Have requests come, whose blocks may be left out, and return what became of them."""
        for at, tokens, output, blocks in requests:
            request: SimulatedRequest[Any] = SimulatedRequest(at, 0.0, None)
            request.prompt = SimulatedPrompt(tokens, output, blocks)
            attempt = SimulatedAttempt(cast("Any", self.caller), request, cast("Any", None))
            self.caller.numbers[id(attempt)] = len(self.attempts)
            self.attempts.append(attempt)
            self.loop.at(at, self.engine.accept, attempt)
        return self.caller
