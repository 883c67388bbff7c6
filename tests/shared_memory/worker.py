"""A process with a balancer that shares a host's picture; it does what it is told line by line."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from contextlib import suppress
from threading import Thread
from typing import Any

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    HealthTracker,
    InFlight,
    NodeSet,
    NoNodeAvailable,
    Outcome,
    OutlierDetection,
    PeakEwma,
    PowerOfTwoChoices,
    SlowStart,
)
from loadwise.balancer import Lease
from loadwise.llm import PrefixAffinity
from loadwise.shared_memory import HostState
from loadwise.strategies import ViewStrategy


def crowd(balancer: Balancer[str], seconds: float, pause: float) -> dict[str, int]:
    """Take and end leases in 4 threads; tell how many, and the most seen in flight at a node."""
    end, done = time.monotonic() + seconds, Counter[str]()

    def work() -> None:
        while time.monotonic() < end:
            with suppress(NoNodeAvailable), balancer.acquire(timeout=0.5) as lease:
                done["most"] = max(done["most"], *(each.in_flight for each in balancer.status()))
                time.sleep(pause)
                lease.success()
                done["leases"] += 1

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return dict(done)


def main() -> None:  # noqa: C901 - one branch for each command
    """Answer each line, a list of a command and its arguments, by a line."""
    path, measure, interval, limit, more, *nodes = sys.argv[1:]
    host = HostState(path)
    load = PeakEwma() if measure == "ewma" else InFlight()
    strategy: ViewStrategy[str] = PowerOfTwoChoices(load=load)
    if measure == "prompts":
        strategy = PrefixAffinity()
    policy = ConsecutiveFailurePolicy(failure_threshold=1, probe_interval=float(interval))
    health = HealthTracker(policy)
    detection = OutlierDetection()
    balancer = Balancer(
        nodes,
        strategy,
        health=health,
        host=host,
        max_in_flight=int(limit) or None,
        outliers=detection if more == "outliers" else None,
        slow_start=SlowStart(window=1000.0, min_weight=1e-6) if more == "slow" else None,
    )
    leases: list[Lease[str]] = []

    def eject(node: str) -> None:
        for outcome, others in ((Outcome.SUCCESS, nodes), (Outcome.FAILURE, [node])):
            for each in others * 5:
                balancer.report(each, outcome)

    def held(node: str) -> Lease[str]:
        return leases.pop(next(i for i, lease in enumerate(leases) if lease.node == node))

    def prompt(command: str, *arguments: str) -> object:
        if command == "send":
            leases.append(balancer.acquire(prompt=arguments[0]))
            return leases[-1].node
        if command == "begin":
            next(lease for lease in leases if lease.node == arguments[0]).first_byte()
        balancer.explain()  # so that it has heard of all
        return {name: [*values] for name, values in strategy.facts(NodeSet(nodes)).items()}

    def do(command: str, *arguments: Any) -> object:  # noqa: C901, PLR0911 - as above
        if command == "acquire":
            leases.extend(balancer.acquire() for _ in range(arguments[0]))
        elif command in ("send", "begin", "facts"):
            return prompt(command, *arguments)
        elif command == "fail":
            held(arguments[0]).failure("it broke")
        elif command == "succeed":
            held(arguments[0]).success()
        elif command == "healths":
            balancer.pick()
            return {each.id: str(each.health.name) for each in balancer.status()}
        elif command == "eject":
            eject(*arguments)
            return list(detection.ejections)
        elif command == "add":
            balancer.add(*arguments)
        elif command == "starts":
            balancer.pick()
            return {each.id: each.slow_start for each in balancer.status()}
        elif command == "hasten":
            health.hasten_probes(arguments)
        elif command == "crowd":
            return crowd(balancer, *arguments)
        elif command == "shared":
            return host.is_shared
        return {each.id: each.in_flight for each in balancer.status()}

    print(json.dumps(do("status")), flush=True)
    for line in sys.stdin:
        print(json.dumps(do(*json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
