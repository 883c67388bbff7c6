"""A process with a balancer that shares a host's picture; it does what it is told line by line."""

from __future__ import annotations

import json
import sys
from typing import Any

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    HealthTracker,
    InFlight,
    PeakEwma,
    PowerOfTwoChoices,
)
from loadwise.balancer import Lease
from loadwise.shared_memory import HostState


def main() -> None:
    """Answer each line, a list of a command and its arguments, by a line."""
    path, measure, *nodes = sys.argv[1:]
    host = HostState(path)
    load = PeakEwma() if measure == "ewma" else InFlight()
    health = HealthTracker(ConsecutiveFailurePolicy(failure_threshold=1, probe_interval=0.2))
    balancer = Balancer(nodes, PowerOfTwoChoices(load=load), health=health, host=host)
    leases: list[Lease[str]] = []

    def held(node: str) -> Lease[str]:
        return leases.pop(next(i for i, lease in enumerate(leases) if lease.node == node))

    def do(command: str, *arguments: Any) -> object:
        if command == "acquire":
            leases.extend(balancer.acquire() for _ in range(arguments[0]))
        elif command == "fail":
            held(arguments[0]).failure("it broke")
        elif command == "succeed":
            held(arguments[0]).success()
        elif command == "healths":
            balancer.pick()
            return {each.id: str(each.health.name) for each in balancer.status()}
        elif command == "shared":
            return host.is_shared
        return {each.id: each.in_flight for each in balancer.status()}

    print(json.dumps(do("status")), flush=True)
    for line in sys.stdin:
        print(json.dumps(do(*json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
