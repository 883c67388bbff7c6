"""The requests of a run: when each arrives, what it costs and whose it is."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Iterator
from itertools import accumulate, islice, repeat, tee
from random import Random

from loadwise.simulation.scenario import (
    Clients,
    Conversations,
    PromptTrace,
    Scenario,
    Tokens,
    Trace,
)
from loadwise.simulation.scenario.fleet import capacity
from loadwise.simulation.world.arrivals import arrival_times
from loadwise.simulation.world.prompt_trace import read_prompts
from loadwise.simulation.world.prompts import SimulatedPrompt, conversations
from loadwise.simulation.world.service_times import service_times, token_counts
from loadwise.simulation.world.trace import read_trace

__all__ = ["Job", "Workload"]

Job = tuple[float, float, str | None, tuple[float, float] | None]
"""One request: seconds of its arrival, seconds of work at speed 1, hash key, tokens in and out."""


class Workload:
    """All requests of a run, the same for every strategy that is given the same seed.

    Args:
        scenario: What to simulate.
        seed: Seed of arrival times, service times and keys, each a stream of its own.

    Raises:
        ScenarioError: A recorded trace cannot be read.

    Attributes:
        requests: How many there are.
        rate: Mean requests per second.
        seconds: How long they go on arriving, nearly.
        prompts: The prompt of each in turn, for servers of a language model; ``None`` for others.
    """

    def __init__(self, scenario: Scenario, seed: int) -> None:
        arrivals, service = scenario.arrivals, scenario.service
        work_rng = Random(f"{seed}/service")
        self._keys = _keys(scenario.clients, Random(f"{seed}/keys"))
        self.prompts: Iterator[SimulatedPrompt] | None = None
        recorded: tuple[Iterable[float], ...] = ()
        if isinstance(arrivals, PromptTrace):
            block_tokens = scenario.servers.llm.block_tokens
            prompts = read_prompts(arrivals, block_tokens, scenario.requests)
            self.requests = len(prompts.prompts)
            self.seconds = prompts.seconds
            self.rate = self.requests / self.seconds if self.seconds else 1.0
            self._times: Iterable[float] = prompts.arrivals(Random(f"{seed}/arrivals"))
            self.prompts = iter(prompts.prompts)
        elif isinstance(arrivals, Trace):
            recording = read_trace(arrivals, scenario.requests)
            self.requests = len(recording.times)
            self.seconds = recording.times[-1]
            self.rate = self.requests / self.seconds if self.seconds else 1.0
            self._times = recording.times
            recorded = recording.costs
        else:
            self.requests = scenario.requests
            self.rate = arrivals.rate or scenario.load * capacity(scenario)
            self.seconds = self.requests / self.rate
            self._times = arrival_times(
                arrivals, self.rate, self.requests, Random(f"{seed}/arrivals")
            )
        self._tokens: Iterable[tuple[float, float] | None] = repeat(None)
        self._works: Iterable[float]
        if isinstance(service, Tokens):
            drawn = token_counts(service, work_rng)
            counts = zip(recorded[0], recorded[1], strict=True) if recorded else drawn
            # Both go on in step, so none is kept that has been drawn.
            pairs, self._tokens = tee(counts)
            self._works = (
                read / service.prefill + written / service.decode for read, written in pairs
            )
        elif isinstance(service, Conversations):
            self._works = repeat(0.0)
            if self.prompts is None:
                # Both go on in step, so that none is kept.
                self._times, arrived = tee(self._times)
                self.prompts = conversations(
                    service, scenario.servers.llm.block_tokens, arrived, work_rng
                )
        else:
            self._works = recorded[0] if recorded else service_times(service, work_rng)

    def __iter__(self) -> Iterator[Job]:
        jobs = zip(self._times, self._works, self._keys, self._tokens, strict=False)
        return islice(jobs, self.requests)


def _keys(clients: Clients, rng: Random) -> Iterator[str | None]:
    if not clients.keys:
        return repeat(None)
    if not clients.skew:
        return _even_keys(clients.keys, rng)
    return _skewed_keys(clients.keys, clients.skew, rng)


def _even_keys(keys: int, rng: Random) -> Iterator[str]:
    random = rng.random
    while True:
        yield f"key-{int(random() * keys)}"


def _skewed_keys(keys: int, skew: float, rng: Random) -> Iterator[str]:
    random = rng.random
    bounds = list(accumulate((rank + 1) ** -skew for rank in range(keys)))
    while True:
        yield f"key-{bisect(bounds, random() * bounds[-1])}"
