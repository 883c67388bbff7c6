"""A cache spread over four nodes, one of which goes down and comes back.

Consistent hashing keeps every key on its node. While a node is down, its keys alone move, each to
the next node along the ring, and they return with it; all other keys are found where they were.

    python examples/sticky_cache.py
"""

from __future__ import annotations

import time

from loadwise import Balancer, ConsecutiveFailurePolicy, ConsistentHash, HealthTracker

KEYS = [f"user-{number}" for number in range(1_000)]
PROBE_INTERVAL = 0.05


class Cache:
    """A cache node: a dict that can be down."""

    def __init__(self, name: str) -> None:
        self.id = name
        self.up = True
        self.entries: dict[str, str] = {}

    def get_or_fill(self, key: str) -> bool:
        """Return whether the key was there, and put it there."""
        if not self.up:
            raise ConnectionError(f"{self.id} refused")
        hit = key in self.entries
        self.entries[key] = f"the value of {key}"
        return hit


def look_up_all(balancer: Balancer[Cache]) -> int:
    """Look every key up once and return the number of hits."""
    hits = 0
    for key in KEYS:
        for attempt in balancer.attempts(2, retry_on=ConnectionError, hash_key=key):
            with attempt as lease:
                hits += lease.node.get_or_fill(key)
    return hits


def main() -> None:
    """Take a node down and up again, and count hits."""
    caches = [Cache(f"cache-{letter}") for letter in "abcd"]
    health = HealthTracker(
        ConsecutiveFailurePolicy(
            failure_threshold=3, recovery_successes=1, probe_interval=PROBE_INTERVAL
        )
    )
    balancer = Balancer(caches, ConsistentHash(), health=health)

    def report(when: str) -> None:
        print(f"{when:28} {look_up_all(balancer):5} hits of {len(KEYS)}")

    report("empty caches")
    report("filled")
    failing = caches[1]
    print(f"-- {failing.id} goes down; it holds {len(failing.entries)} keys")
    failing.up = False
    report("its keys move on")
    report("found at their new places")
    print(f"-- {failing.id} is back, with nothing in memory")
    failing.up = True
    failing.entries.clear()
    time.sleep(PROBE_INTERVAL)  # now a probe is due: the next request for one of its keys
    report("its keys return")
    report("all as before")


if __name__ == "__main__":
    main()
