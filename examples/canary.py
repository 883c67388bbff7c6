"""A canary: a twentieth of the requests goes to the new version, and it stops itself if it fails.

`Split` keeps the shares of the versions, however many nodes each has. A tester asks for the canary
by name. When the canary fails three times in a row, health takes it out and its requests go to the
stable nodes, so no caller notices.

    python examples/canary.py
"""

from __future__ import annotations

import random
from collections import Counter

from loadwise import Balancer, Endpoint, HealthTracker, Split, by_tag

NODES = [
    *(Endpoint(f"stable-{number}", tags={"version": "stable"}) for number in range(3)),
    Endpoint("canary-0", tags={"version": "canary"}),
]


def version_of(node: Endpoint) -> str:
    """Return the version that a node runs."""
    return node.tags["version"]


def rollout(percent: float, health: HealthTracker) -> Balancer[Endpoint]:
    """Return a balancer that sends so many per cent to the canary.

    For the next step make another; what is known of the nodes is in the health tracker.
    """
    shares = {"stable": 100 - percent, "canary": percent}
    split: Split[Endpoint] = Split(shares, by=version_of, rng=random.Random(1))
    return Balancer(NODES, split, health=health, name=f"shop, canary at {percent} %")


class Service:
    """Stands for your servers; the new version may have a bug."""

    def __init__(self) -> None:
        self.bug = False
        self.served: Counter[str] = Counter()

    def ask(self, node: Endpoint) -> str:
        """Answer, or fail."""
        if self.bug and version_of(node) == "canary":
            raise ConnectionError("reset by the new version")
        self.served[version_of(node)] += 1
        return str(node.id)

    def send(self, balancer: Balancer[Endpoint]) -> str:
        """Send 2,000 requests, and tell the canary's share of the answers."""
        self.served.clear()
        for _ in range(2000):
            balancer.call(self.ask)
        total = self.served.total()
        return f"{total} answers, {self.served['canary'] / total:.0%} of them by the canary"


def main() -> None:
    """Roll out, find a bug, mend it, and go on."""
    service, health = Service(), HealthTracker()
    balancer = rollout(5, health)
    print("5 %:", service.send(balancer))
    print("a tester is sent to", balancer.call(service.ask, where=by_tag(version="canary")))

    service.bug = True
    print("with a bug:", service.send(balancer))
    canary = balancer.status()[-1]
    print(f"{canary.id} is {canary.health.name}: {canary.health_reason}")

    service.bug = False
    health.remove("canary-0")  # it was deployed again, so what is known of it is out of date
    print("50 %:", service.send(rollout(50, health)))


if __name__ == "__main__":
    main()
