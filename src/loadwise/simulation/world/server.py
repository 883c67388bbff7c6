"""A server of the simulated fleet: some requests in work, the others waiting in line."""

from __future__ import annotations

from collections import OrderedDict, deque
from math import prod
from random import Random
from typing import Protocol

from loadwise.quota import QuotaTracker
from loadwise.simulation.scenario import Fail, Group, Slow
from loadwise.simulation.world.attempt import SimulatedAttempt
from loadwise.simulation.world.loop import Loop

__all__ = ["Engine", "Server"]


class Engine(Protocol):
    """A way to work that a server has instead of its queue: that of a language model."""

    @property
    def size(self) -> int:
        """Requests here, waiting or in work."""
        ...

    @property
    def room(self) -> int:
        """Requests that it could work on besides; below 0 where some wait."""
        ...

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompts that began since the counts were reset."""
        ...

    @property
    def cached_tokens(self) -> int:
        """Those of them that were cached."""
        ...

    def reset_counts(self) -> None:
        """Count from here on."""

    def accept(self, attempt: SimulatedAttempt[Server]) -> None:
        """Take a request that arrives here."""

    def drop(self, attempt: SimulatedAttempt[Server]) -> None:
        """Drop a request, unless it is in work already."""

    def change_pace(self, pace: float) -> None:
        """Take so many seconds for a second of the work that begins from now on."""

    def crash(self) -> list[SimulatedAttempt[Server]]:
        """Lose all requests, which are returned, and all that is cached."""
        ...

    def hang(self) -> None:
        """Stand still."""

    def resume(self) -> None:
        """Go on where it stood still."""

    def held(self) -> list[SimulatedAttempt[Server]]:
        """Return the requests that are here."""
        ...


class Server:
    """Works on requests first come, first served; a node with weight, zone and priority.

    Args:
        id: Its id as a node.
        group: What it is like, everything filled in.
        loop: Virtual time.
        cache: Keys that it keeps at hand.
        cached: Service time of a request whose key is at hand, as a share of the full one.
        limits: The quotas that it enforces, if any.
        rng: Chance, for failures.
        engine: Works on the requests, where they are not worked on one by one.

    Attributes:
        engine: As given.
        group: Name of its group.
        pace: Seconds that a second of work takes at present.
        troubled: Whether it is down, hanging or failing.
        picks: Attempts sent here since the counts were reset.
        troubled_picks: Those of them that were sent while it was troubled.
        hits: Requests that found their key at hand since then.
        served: Requests that it began since then, if it has a cache.
    """

    __slots__ = (
        "_cache",
        "_cache_size",
        "_cached",
        "_down",
        "_earlier_picks",
        "_failing",
        "_finish",
        "_free",
        "_hung",
        "_knocking",
        "_loop",
        "_parallelism",
        "_queue_limit",
        "_random",
        "_slow",
        "_special",
        "_still",
        "_usual_pace",
        "_waiting",
        "engine",
        "group",
        "hits",
        "id",
        "limits",
        "pace",
        "picks",
        "priority",
        "served",
        "troubled",
        "troubled_picks",
        "weight",
        "zone",
    )

    def __init__(
        self,
        id: str,  # noqa: A002 - the name of the thing everywhere else
        group: Group,
        loop: Loop,
        cache: int,
        cached: float,
        limits: QuotaTracker | None,
        rng: Random,
        *,
        engine: Engine | None = None,
    ) -> None:
        self.id = id
        self.weight = 1.0 if group.weight is None else group.weight
        self.zone = group.zone
        self.priority = group.priority or 0
        self.group = group.name
        self.limits = limits
        self.pace = self._usual_pace = 1.0 / (group.speed or 1.0)
        self.picks = 0
        self.troubled_picks = 0
        self.hits = 0
        self.served = 0
        self.troubled = False
        self._earlier_picks = 0
        self._failing: list[Fail] = []
        self._slow: list[Slow] = []
        self._loop = loop
        self._parallelism = self._free = group.parallelism or 1
        self._queue_limit = group.queue_limit
        self._waiting: deque[SimulatedAttempt[Server]] = deque()
        self._cache: OrderedDict[str, None] = OrderedDict()
        self._cache_size = cache
        self._cached = cached
        self._random = rng.random
        self._down = 0
        self._hung = 0
        # What was in work when it came to a standstill, with the seconds left.
        self._still: list[tuple[float, SimulatedAttempt[Server]]] = []
        # What came since: it has yet to be taken on, or turned away.
        self._knocking: deque[SimulatedAttempt[Server]] = deque()
        self._finish = self.finish
        self.engine = engine
        # Whether a request that arrives may take any but the plain way.
        self._special = limits is not None or engine is not None

    @property
    def size(self) -> int:
        """Requests here, waiting or in work."""
        if self.engine is not None:
            return self.engine.size + len(self._knocking)
        return self._parallelism - self._free + len(self._waiting) + len(self._knocking)

    @property
    def all_picks(self) -> int:
        """Attempts sent here since the beginning."""
        return self._earlier_picks + self.picks

    def reset_counts(self) -> None:
        """Count from here on."""
        self._earlier_picks += self.picks
        self.picks = self.troubled_picks = self.hits = self.served = 0
        if self.engine is not None:
            self.engine.reset_counts()

    def remaining(self) -> float:
        """Return what is left of its first quota, or else how many more it could work on."""
        if self.limits is not None:
            return next(iter(self.limits.remaining_by_dimension(self.id).values()))
        return self._parallelism - self.size if self.engine is None else self.engine.room

    def accept(self, attempt: SimulatedAttempt[Server]) -> None:
        """Take a request on, or turn it away."""
        if self._special and self._dealt_with(attempt):
            return
        if self._free:
            self._free -= 1
            self._begin(attempt)
        elif self._queue_limit is not None and len(self._waiting) >= self._queue_limit:
            attempt.client.rejected(attempt)
        else:
            self._waiting.append(attempt)

    def finish(self, attempt: SimulatedAttempt[Server]) -> None:
        """Hand a request back, done, and go on with the next one."""
        if self._waiting:
            self._begin(self._waiting.popleft())
        else:
            self._free += 1
        attempt.client.done(attempt)

    def call_off(self, attempt: SimulatedAttempt[Server]) -> None:
        """Drop a request that its caller waits for no longer, unless it is in work already."""
        for line in (self._waiting, self._knocking):
            if attempt in line:
                line.remove(attempt)
        if self.engine is not None:
            self.engine.drop(attempt)

    def _begin(self, attempt: SimulatedAttempt[Server]) -> None:
        request = attempt.request
        seconds = request.work * self.pace
        if self._cache_size and request.key is not None:
            seconds *= self._look_up(request.key)
        loop = self._loop
        loop.at(loop.now + seconds, self._finish, attempt)

    def _look_up(self, key: str) -> float:
        self.served += 1
        cache = self._cache
        if key in cache:
            cache.move_to_end(key)
            self.hits += 1
            return self._cached
        cache[key] = None
        if len(cache) > self._cache_size:
            cache.popitem(last=False)
        return 1.0

    def _dealt_with(self, attempt: SimulatedAttempt[Server]) -> bool:
        """Turn a request away, or hand it to the engine; return whether either was done."""
        if self._turned_away(attempt):
            return True
        engine = self.engine
        if engine is None:
            return False
        if self._queue_limit is not None and engine.room <= -self._queue_limit:
            attempt.client.rejected(attempt)
        else:
            engine.accept(attempt)
        return True

    def _turned_away(self, attempt: SimulatedAttempt[Server]) -> bool:
        if self._down:
            attempt.client.broke(attempt)
            return True
        if self._hung:
            self._knocking.append(attempt)
            return True
        for fail in self._failing:
            if self._random() < fail.probability:
                loop = self._loop
                loop.at(loop.now + fail.after, attempt.client.broke, attempt)
                return True
        if self.limits is None:
            return False
        amounts = attempt.request.true_cost
        if self.limits.try_acquire(self.id, amounts) is not None:
            return False
        free_at = self.limits.available_at(self.id, amounts)
        attempt.client.limited(attempt, max(0.0, free_at - self._loop.now))
        return True

    def crash(self) -> None:
        """Die: all that is here breaks, and what comes is refused."""
        self._down += 1
        self._update()
        broken = [attempt for _, attempt in self._loop.withdraw(self._finish)]
        broken += [attempt for _, attempt in self._still]
        broken += [*self._waiting, *self._knocking]
        if self.engine is not None:
            broken += self.engine.crash()
        self._still.clear()
        self._waiting.clear()
        self._knocking.clear()
        self._cache.clear()
        self._free = self._parallelism
        for attempt in broken:
            attempt.client.broke(attempt)

    def restart(self) -> None:
        """Come back from a crash, empty."""
        self._down -= 1
        self._update()

    def hang(self) -> None:
        """Stand still: what is here stays, what comes waits."""
        self._hung += 1
        self._update()
        if self.engine is not None and self._hung == 1:
            self.engine.hang()
        now = self._loop.now
        self._still += [(time - now, left) for time, left in self._loop.withdraw(self._finish)]

    def resume(self) -> None:
        """Go on where it stood still."""
        self._hung -= 1
        self._update()
        if self._hung:
            return
        if self.engine is not None:
            self.engine.resume()
        now = self._loop.now
        for seconds, attempt in self._still:
            self._loop.at(now + seconds, self._finish, attempt)
        self._still.clear()
        came, self._knocking = self._knocking, deque()
        for attempt in came:
            self.accept(attempt)

    def fail(self, fault: Fail) -> None:
        """Begin to answer with errors."""
        self._failing = [*self._failing, fault]
        self._update()

    def recover(self, fault: Fail) -> None:
        """Stop answering with errors."""
        self._failing = [other for other in self._failing if other is not fault]
        self._update()

    def slow_down(self, fault: Slow) -> None:
        """Take so many times as long for what begins from now on."""
        self._slow = [*self._slow, fault]
        self._update_pace()

    def speed_up(self, fault: Slow) -> None:
        """Be slow no longer."""
        self._slow = [other for other in self._slow if other is not fault]
        self._update_pace()

    def _update_pace(self) -> None:
        # From the speed each time: to multiply and divide again would not lead back to the same
        # number.
        self.pace = prod((fault.factor for fault in self._slow), start=self._usual_pace)
        if self.engine is not None:
            self.engine.change_pace(self.pace)

    def _update(self) -> None:
        self.troubled = bool(self._down or self._hung or self._failing)
        self._special = self.troubled or self.limits is not None or self.engine is not None

    def held(self) -> list[SimulatedAttempt[Server]]:
        """Return the requests that are here but not on the loop: waiting, or in a standstill."""
        queued = [*self._waiting, *self._knocking, *(attempt for _, attempt in self._still)]
        return queued if self.engine is None else queued + self.engine.held()
