"""A router over several API keys, each with limits on requests and tokens per minute.

Every prompt reserves what it may use at most, and settles when the answer tells what it did use.
When no key can afford a prompt, the router waits for exactly as long as it must. One key has a
smaller limit than we were told: its 429 is believed, and it is on cooldown for its Retry-After.

The provider is simulated, and so is time, so that minutes pass at once. In a program, leave out
``clock=`` and sleep where this one advances the clock.

    python examples/llm_router_with_quotas.py
"""

from __future__ import annotations

import random
from collections import Counter, deque

from loadwise import (
    Balancer,
    InFlight,
    NoNodeAvailable,
    PowerOfTwoChoices,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
)
from loadwise.testing import ManualClock

PROMPTS = 60
MAX_TOKENS = 600
MINUTE = 60.0
# A little more than a minute, for requests do not arrive at the moment they are sent.
WINDOW = MINUTE + 1.0
MOST_WAITS = 20


class RateLimited(Exception):  # noqa: N818 - a refusal, not a fault in the program
    """Status 429, with the Retry-After header in seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"429, retry after {retry_after:.1f} s")
        self.retry_after = retry_after


class Provider:
    """Stands for the HTTP API: it counts the tokens of each key over the last minute."""

    def __init__(self, limits: dict[str, int], clock: ManualClock) -> None:
        self.limits = limits
        self.clock = clock
        self.rng = random.Random(42)
        self.answered: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._used: dict[str, deque[tuple[float, int]]] = {key: deque() for key in limits}

    def complete(self, key: str, prompt_tokens: int) -> int:
        """Answer a prompt and return the tokens used, or refuse it."""
        used, now = self._used[key], self.clock()
        while used and used[0][0] + MINUTE <= now:
            used.popleft()
        tokens = prompt_tokens + self.rng.randint(MAX_TOKENS // 4, MAX_TOKENS)
        if tokens + sum(amount for _, amount in used) > self.limits[key]:
            self.refused[key] += 1
            raise RateLimited(used[0][0] + MINUTE - now)
        used.append((now, tokens))
        self.answered[key] += 1
        self.clock.advance(0.5)
        return tokens


class Router:
    """Has prompts answered by whichever key can afford them."""

    def __init__(self, promised: dict[str, int], provider: Provider, clock: ManualClock) -> None:
        self.clock = clock
        self.provider = provider
        quota = QuotaTracker(clock)
        for key, tokens in promised.items():
            rpm = QuotaDimension("rpm", limit=20, window=WINDOW)
            tpm = QuotaDimension("tpm", limit=tokens, window=WINDOW, default_cost=0)
            quota.register(key, QuotaConfig([rpm, tpm]))
        strategy: PowerOfTwoChoices[str] = PowerOfTwoChoices(InFlight(), rng=random.Random(7))
        self.balancer = Balancer(promised, strategy, quota=quota, name="llm")

    def answer(self, prompt_tokens: int) -> int:
        """Have a prompt answered, waiting for quota where need be; return the tokens used."""
        for _ in range(MOST_WAITS):
            try:
                return self._answer_now(prompt_tokens)
            except (NoNodeAvailable, RateLimited) as error:
                if error.retry_after is None:  # no waiting will help
                    raise
                self.clock.advance(error.retry_after)
        raise TimeoutError(f"no quota after {MOST_WAITS} waits")

    def _answer_now(self, prompt_tokens: int) -> int:
        most = {"tpm": prompt_tokens + MAX_TOKENS}  # rpm is charged by default
        for attempt in self.balancer.attempts(3, retry_on=RateLimited, cost=most):
            with attempt as lease:
                try:
                    used = self.provider.complete(lease.node, prompt_tokens)
                except RateLimited as error:
                    lease.rate_limited(error.retry_after)
                    lease.settle({"tpm": 0})  # a refused prompt uses no tokens
                    raise
                lease.settle({"tpm": used})
        return used


def main() -> None:
    """Send prompts, and show what each key was used for."""
    clock = ManualClock()
    provider = Provider({"key-a": 4_000, "key-b": 8_000, "key-c": 2_000}, clock)
    router = Router({"key-a": 4_000, "key-b": 8_000, "key-c": 8_000}, provider, clock)
    rng = random.Random(7)
    used = [router.answer(rng.randint(50, 800)) for _ in range(PROMPTS)]

    print(f"{len(used)} of {PROMPTS} prompts were answered in {clock():.0f} s")
    print(f"{sum(used)} tokens, {sum(used) / clock() * MINUTE:.0f} a minute")
    for key in ("key-a", "key-b", "key-c"):
        print(f"  {key}: {provider.answered[key]:2} answered, {provider.refused[key]} refused")


if __name__ == "__main__":
    main()
