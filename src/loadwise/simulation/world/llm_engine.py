"""Engine of a server of a language model: it computes prompts and writes answers."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from loadwise.simulation.scenario import LlmTable
from loadwise.simulation.world.answers import Answers, FlowingAnswers
from loadwise.simulation.world.kv_cache import KvCache
from loadwise.simulation.world.loop import Loop
from loadwise.simulation.world.prompt_queue import Attempt, Part, PromptQueue

__all__ = ["LlmEngine"]

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class _EngineStep:
    """One step of the engine, or several alike that only write answers.

    Attributes:
        parts: Prompts that it computes.
        count: How many steps.
        begin: When the first began.
        seconds: How long each takes.
    """

    parts: list[Part]
    count: int
    begin: float
    seconds: float

    @property
    def end(self) -> float:
        """When the last one ends."""
        return self.begin + self.count * self.seconds


class LlmEngine:
    """Computes prompts step by step, and writes answers beside or within the steps.

    Args:
        loop: Virtual time.
        table: How it works.
        pace: Seconds that a second of work takes.

    The first token of an answer is there when its prompt is computed. Requests beyond the batch
    wait.

    Cost: O(log n) per request and step; steps that only write answers count as one.

    Source: the steps are those of the scheduler of vLLM with chunked prefill: tokens of answers
    first, and the rest for prompts in the order in which they came (Agrawal et al., "Taming
    throughput-latency tradeoff in LLM inference with Sarathi-Serve", OSDI 2024).
    """

    def __init__(self, loop: Loop, table: LlmTable, pace: float) -> None:
        self._loop = loop
        self._table = table
        self._pace = pace
        self._prompts = PromptQueue(
            KvCache(table.blocks), table.block_tokens, whole=table.prefill == "whole"
        )
        # Within the steps, or beside them; one of the two stays empty.
        self._coupled = Answers()
        self._flowing = FlowingAnswers(loop, self._token_seconds, self._complete)
        self._writes_in_steps = table.prefill == "coupled"
        self._step: _EngineStep | None = None
        self._stands_still_since: float | None = None

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompts that began since the counts were reset."""
        return self._prompts.prompt_tokens

    @property
    def cached_tokens(self) -> int:
        """Those of them that were cached."""
        return self._prompts.cached_tokens

    @property
    def room(self) -> int:
        """Requests that fit into the batch besides; below 0 where some wait."""
        return self._table.batch - self.size

    @property
    def size(self) -> int:
        """Requests here, waiting or in work."""
        return self._prompts.waiting + self._in_work

    @property
    def _in_work(self) -> int:
        return self._prompts.begun + len(self._coupled) + len(self._flowing)

    def reset_counts(self) -> None:
        """Count from here on."""
        self._prompts.prompt_tokens = self._prompts.cached_tokens = 0

    def accept(self, attempt: Attempt) -> None:
        """Take a request that arrives here.

        Raises:
            TypeError: It has no prompt.
        """
        prompt = attempt.request.prompt
        if prompt is None:
            raise TypeError("a server of a language model was sent a request without a prompt")
        self._prompts.add(attempt, prompt)
        self._heed_change()

    def drop(self, attempt: Attempt) -> None:
        """Drop a request that nobody waits for, unless it is in work already."""
        self._prompts.drop(attempt)

    def change_pace(self, pace: float) -> None:
        """Take so many seconds for a second of the work that begins from now on."""
        still = self._stands_still_since is not None
        if not still:
            self._flowing.pause()
        self._pace = pace
        if not still:
            self._flowing.go_on()
            self._heed_change()

    def crash(self) -> list[Attempt]:
        """Lose all requests, which are returned, and all that is cached."""
        broken = self.held()
        self._step = None
        self._prompts.lose_all()
        self._coupled.lose_all()
        self._flowing.lose_all()
        return broken

    def hang(self) -> None:
        """Stand still."""
        self._stands_still_since = self._loop.now
        self._flowing.pause()

    def resume(self) -> None:
        """Go on where it stood still."""
        since = self._stands_still_since
        if since is None:
            return
        self._stands_still_since = None
        self._flowing.go_on()
        step = self._step
        if step is not None:
            begin = step.begin + self._loop.now - since
            self._carry_out(_EngineStep(step.parts, step.count, begin, step.seconds))
        self._begin()

    def held(self) -> list[Attempt]:
        """Return the requests that are here."""
        return [*self._prompts.held(), *self._coupled.held(), *self._flowing.held()]

    def _token_seconds(self, answers: int) -> float:
        table = self._table
        return self._pace * (table.decode_base + table.decode_each * (answers - 1))

    def _begin(self) -> None:
        """Begin the next step, if there is none and anything to do in one."""
        if self._step is not None or self._stands_still_since is not None:
            return
        table, answers = self._table, len(self._coupled)
        parts, begun = self._prompts.step(table.batch - self._in_work, table.step_tokens - answers)
        if not parts and not answers:
            return
        tokens = sum([tokens for _, tokens in parts])
        seconds = table.prefill_base * begun + tokens / table.prefill_rate
        if answers:
            # The model's weights are read once, for prompts and answers alike.
            seconds = max(seconds, table.decode_base) + table.decode_each * (answers - 1)
        count = 1 if parts else round(self._coupled.left())
        self._carry_out(_EngineStep(parts, count, self._loop.now, self._pace * seconds))

    def _carry_out(self, step: _EngineStep) -> None:
        self._step = step
        self._loop.at(step.end, self._end, step)

    def _heed_change(self) -> None:
        """Begin the next step, at the end of the one under way where that was to be repeated."""
        step = self._step
        if step is None:
            self._begin()
        elif step.count > 1 and self._stands_still_since is None:
            done = (self._loop.now - step.begin) / step.seconds
            count = max(1, ceil(done - _ROUNDING))
            if count < step.count:
                self._carry_out(_EngineStep(step.parts, count, step.begin, step.seconds))

    def _end(self, step: _EngineStep) -> None:
        if step is not self._step or self._stands_still_since is not None:
            return  # it was cut short, or went on later, or all was lost
        self._step = None
        written = self._coupled.write(step.count) if self._writes_in_steps else ()
        for prefill in self._prompts.computed(step.parts):
            attempt, tokens = prefill.attempt, prefill.prompt.output - 1
            attempt.client.began(attempt)
            if not tokens:
                attempt.client.done(attempt)
            elif self._writes_in_steps:
                self._coupled.add(attempt, tokens)
            else:
                self._flowing.add(attempt, tokens)
        for attempt in written:
            attempt.client.done(attempt)
        self._begin()

    def _complete(self, attempt: Attempt) -> None:
        """Hand an answer back that was written beside the steps."""
        attempt.client.done(attempt)
        self._begin()
