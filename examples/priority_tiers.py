"""Tiers: the cloud helps out only when no machine of one's own may be chosen.

The tiers are strategies, each filtered to its nodes, in a chain. Health, drains and retries count
before the tiers are asked, so a tier is left as soon as it has nobody to offer.

    python examples/priority_tiers.py
"""

from __future__ import annotations

from collections import Counter

from loadwise import Balancer, Endpoint, FallbackChain, Filtered, RoundRobin, by_priority
from loadwise.testing import ManualClock

PICKS = 12
PROBE_INTERVAL = 10.0  # that of the default policy


def main() -> None:
    """Lose the first tier, and get it back."""
    clock = ManualClock()  # so that the example need not wait for the probe
    tiers = FallbackChain([Filtered(RoundRobin(), by_priority(tier)) for tier in range(2)])
    nodes = [Endpoint("own-1"), Endpoint("own-2"), Endpoint("cloud", priority=1)]
    # That the spare node serves alone is as it should be, and no reason to panic.
    balancer = Balancer(nodes, tiers, clock=clock, panic_threshold=0.0)
    down: set[str] = set()

    def serve(when: str) -> None:
        answers: Counter[str] = Counter()
        for _ in range(PICKS):
            for attempt in balancer.attempts(len(nodes), retry_on=ConnectionError):
                with attempt as lease:
                    name = str(lease.node.id)
                    if name in down:
                        raise ConnectionError(f"{name} refused")
                    answers[name] += 1
        print(f"{when}: " + ", ".join(f"{name} {answers[name]}" for name in sorted(answers)))

    serve("all is well")
    down.add("own-1")
    serve("own-1 fails")
    down.add("own-2")
    serve("own-2 fails, too")
    down.clear()
    clock.advance(PROBE_INTERVAL)
    serve("both are back")


if __name__ == "__main__":
    main()
