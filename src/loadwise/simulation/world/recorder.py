"""Record of a run while it goes on: counts, latencies, and looks at the fleet in even steps."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Protocol

from loadwise.simulation.world.loop import Loop
from loadwise.simulation.world.timeline import HealthChange, Mark, Panicked, Timeline

__all__ = ["Observed", "Recorder"]

_STEPS = 200
_LONGEST = 1.5


class Observed(Protocol):
    """A server, as the recorder looks at it."""

    @property
    def size(self) -> int:
        """Requests here, waiting or in work."""
        ...

    @property
    def all_picks(self) -> int:
        """Attempts sent here since the beginning."""
        ...

    def reset_counts(self) -> None:
        """Count from here on."""


class Recorder:
    """Counts requests, keeps their latencies, and looks at the fleet in even steps.

    A latency takes 8 bytes, and nothing else grows with the number of requests (the last server
    of a key does with the keys), so the quantiles are exact.

    Args:
        loop: Virtual time.
        servers: All servers, by id; others may join.
        seconds: How long requests arrive, nearly.

    Attributes:
        latencies: Of the completed requests that arrived after the warm-up.
        first_tokens: Seconds to the first token of those that were answered token by token.
        token_seconds: Seconds from each token to the next, as the mean of a request, of all such
            requests with several tokens together.
        answers: How many those are.
        warm_at: When the warm-up ended.
        last_end: When the last request was completed.
    """

    def __init__(self, loop: Loop, servers: Mapping[str, Observed], seconds: float) -> None:
        self.failed = 0
        self.dropped = 0
        self.retries = 0
        self.hedges = 0
        self.timeouts = 0
        self.rate_limited = 0
        self.ejections = 0
        self.health: list[HealthChange] = []
        self.marks: list[Mark] = []
        self.panics: list[Panicked] = []
        self.latencies = array("d")
        self.early = array("d")
        self.first_tokens = array("d")
        self.token_seconds = 0.0
        self.answers = 0
        self.warm_at = float("inf")
        self.last_end = 0.0
        self.keyed_requests = 0
        self.keys_moved = 0
        self._loop = loop
        self._servers = servers
        self._step = max(seconds, 1e-9) / _STEPS
        self._last_tick = seconds * _LONGEST
        self._last_server: dict[str, str] = {}
        self._in_panic: dict[int, float] = {}
        self._times: list[float] = []
        self._queues: list[dict[str, int]] = []
        self._picks: list[dict[str, int]] = [{}]
        self._latency: list[float] = []
        self._failures: list[int] = []
        self._seen = (0, 0)
        self._seen_failures = 0
        loop.at(self._step, self._tick, None)

    @property
    def answered(self) -> int:
        """Requests completed, warm-up included."""
        return len(self.latencies) + len(self.early)

    def completed(self, arrived: float) -> None:
        """Record that a request has its answer now."""
        self.last_end = now = self._loop.now
        kept = self.latencies if arrived >= self.warm_at else self.early
        kept.append(now - arrived)

    def written(self, arrived: float, began: float, tokens: int) -> None:
        """Record that a request has an answer of so many tokens now, the first since a while."""
        if arrived < self.warm_at:
            return
        self.first_tokens.append(began - arrived)
        if tokens > 1:
            self.token_seconds += (self._loop.now - began) / (tokens - 1)
            self.answers += 1

    def keyed(self, key: str, server: str) -> None:
        """Record where a request with a key went first."""
        before = self._last_server.get(key)
        if before is not None and self._loop.now >= self.warm_at:
            self.keyed_requests += 1
            self.keys_moved += before != server
        self._last_server[key] = server

    def panic(self, client: int, *, entered: bool) -> None:
        """Record that a client's panic begins, or ends."""
        now = self._loop.now
        if entered:
            self._in_panic[client] = now
        elif client in self._in_panic:
            self.panics.append(Panicked(self._in_panic.pop(client), now, client))

    def calm(self, end: float) -> None:
        """End the panics that last, because their clients or the whole run are at their end."""
        self.panics += [
            Panicked(begin, end, client) for client, begin in self._in_panic.items() if begin < end
        ]
        self._in_panic.clear()

    def panic_share(self, clients: int, end: float) -> float:
        """Return the share of the time from the warm-up to the end in which clients panicked."""
        begin = min(self.warm_at, end)
        spent = sum(
            max(0.0, min(spell.end, end) - max(spell.begin, begin)) for spell in self.panics
        )
        return spent / (clients * (end - begin)) if end > begin else 0.0

    def warm(self) -> None:
        """End the warm-up: statistics begin here."""
        self.warm_at = self._loop.now
        for server in self._servers.values():
            server.reset_counts()

    def _tick(self, _: None) -> None:
        loop = self._loop
        self._times.append(loop.now)
        self._queues.append({id_: server.size for id_, server in self._servers.items()})
        self._picks.append({id_: server.all_picks for id_, server in self._servers.items()})
        early, measured = self._seen
        fresh = [*self.early[early:], *self.latencies[measured:]]
        self._seen = (len(self.early), len(self.latencies))
        self._latency.append(sum(fresh) / len(fresh) if fresh else float("nan"))
        failures = self.failed + self.dropped
        self._failures.append(failures - self._seen_failures)
        self._seen_failures = failures
        following = (len(self._times) + 1) * self._step
        if following <= self._last_tick:
            loop.at(following, self._tick, None)

    def timeline(self) -> Timeline:
        """Return how the run went."""
        step = self._step
        pairs = list(zip(self._picks, self._picks[1:], strict=False))
        return Timeline(
            times=tuple(self._times),
            queues={
                id_: tuple(queue.get(id_, 0) for queue in self._queues) for id_ in self._servers
            },
            loads={
                id_: tuple((new.get(id_, 0) - old.get(id_, 0)) / step for old, new in pairs)
                for id_ in self._servers
            },
            latency=tuple(self._latency),
            failures=tuple(self._failures),
            health=tuple(self.health),
            marks=tuple(self.marks),
            panics=tuple(self.panics),
        )
