"""Zones: requests stay in the caller's zone as long as it can bear them, and leave it gently.

A node is taken to bear 1.4 times its share. So a zone that has lost one of four nodes keeps all
requests, one that has lost two keeps 70 %, and one that is down gives all to the others.

    python examples/zone_aware.py
"""

from __future__ import annotations

import random
from collections import Counter

from loadwise import Balancer, Endpoint, Zones
from loadwise.testing import ManualClock

REQUESTS = 2000
NODES = [Endpoint(f"{zone}-{number}", zone=zone) for zone in "abc" for number in range(4)]


def main() -> None:
    """Lose the nodes of the own zone one after another, and get them back."""
    clock = ManualClock()  # so that the example need not wait for the probes
    near: Zones[Endpoint] = Zones(local="a", rng=random.Random(1))
    balancer = Balancer(NODES, near, clock=clock, name="shop")
    down: set[str] = set()

    def ask(node: Endpoint) -> str:
        if node.id in down:
            raise ConnectionError(f"{node.id} refused")
        return str(node.zone)

    def serve(when: str) -> None:
        answers = Counter(balancer.call(ask) for _ in range(REQUESTS))
        shares = (f"{zone} {answers[zone] / REQUESTS:.0%}" for zone in sorted(answers))
        print(f"{when}: {', '.join(shares)}")

    def find_out() -> None:
        for _ in range(500):  # three failures in a row take a node out
            balancer.call(ask)

    serve("all is well")
    for lost in (["a-0"], ["a-1"], ["a-2", "a-3"]):
        down.update(lost)
        find_out()
        serve(f"{len(down)} of 4 are down in zone a")
    down.clear()
    clock.advance(10.0)  # the probe interval of the default policy
    find_out()
    serve("all are back")


if __name__ == "__main__":
    main()
