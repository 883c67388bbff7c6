"""A canary: a twentieth of the requests goes to the new version, and it stops itself if it fails.

The share is by weight. A tester asks for the canary by name. When the canary fails three times in
a row, health takes it out and its requests go to the stable nodes, so no caller notices.

    python examples/canary.py
"""

from __future__ import annotations

import random
from collections import Counter

from loadwise import Balancer, Endpoint, WeightedRandom, by_tag

STABLE = [Endpoint(f"stable-{number}", weight=19, tags={"version": "1"}) for number in range(3)]
CANARY = [Endpoint("canary-0", weight=3, tags={"version": "2"})]  # 3 of 60: 5 %


class Service:
    """Stands for your servers; the new version may have a bug."""

    def __init__(self) -> None:
        self.bug = False
        self.served: Counter[str] = Counter()

    def ask(self, node: Endpoint) -> str:
        """Answer, or fail."""
        if self.bug and node.tags["version"] == "2":
            raise ConnectionError("reset by the new version")
        self.served[node.tags["version"]] += 1
        return str(node.id)


def main() -> None:
    """Roll out, find a bug, and roll out again."""
    service = Service()
    balancer = Balancer(STABLE + CANARY, WeightedRandom(rng=random.Random(1)), name="shop")

    for _ in range(2000):
        balancer.call(service.ask)
    share = service.served["2"] / service.served.total()
    print(f"the canary has {share:.0%} of the requests")

    tester = balancer.call(service.ask, where=by_tag(version="2"))
    print("a tester is sent to", tester)

    service.bug = True
    answered = sum(bool(balancer.call(service.ask)) for _ in range(2000))
    canary = balancer.status()[-1]
    print(f"with the bug {answered} of 2000 are answered; the canary is {canary.health.name}")

    # The bug is mended: a new node, with the weight of the next step.
    service.bug = False
    balancer.replace([*STABLE, Endpoint("canary-1", weight=57, tags={"version": "2"})])
    service.served.clear()
    for _ in range(2000):
        balancer.call(service.ask)
    share = service.served["2"] / service.served.total()
    print(f"after the next step it has {share:.0%}")


if __name__ == "__main__":
    main()
