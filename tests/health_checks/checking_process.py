"""A process that checks nodes where it leads; it says how they are, and ends with its input.

Arguments: the kind of checker, the lock file or the server's port, the prefix, and a directory. In
that, "journal" is told the process's id at each probe, and nodes are down whose file is there.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import redis

from loadwise import Balancer, ConsecutiveFailurePolicy, HealthTracker
from loadwise.health_checks import AsyncHealthChecker, HealthChecker
from loadwise.integrations.redis import SharedHealth, SharedLeader


class Told(HealthTracker):
    """Passes for one that tells others."""


def say(line: str) -> None:
    """Write a line to the output."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(kind: str, where: str, prefix: str, directory: Path) -> None:
    """Check, and answer each line by the states of the nodes."""
    journal = os.open(directory / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    policy = ConsecutiveFailurePolicy(1, 1)
    leader: Any = where
    health: HealthTracker = Told(policy)
    if where.isdecimal():
        client = redis.Redis(port=int(where))
        leader = SharedLeader(client, prefix, ttl=6.0, timeout=5.0)
        health = SharedHealth(client, prefix, policy, timeout=5.0)
    balancer = Balancer(["a", "b"], health=health)

    def probe(node: str) -> bool:
        os.write(journal, f"{os.getpid()}\n".encode())
        return not (directory / node).exists()

    async def async_probe(node: str) -> bool:
        return probe(node)

    def answer() -> None:
        for _ in sys.stdin:
            say(json.dumps({each.id: each.health.name for each in balancer.status()}))

    async def serve() -> None:
        async with AsyncHealthChecker(balancer, async_probe, interval=0.02, leader=leader):
            say("ready")
            await asyncio.to_thread(answer)

    if kind == "asyncio":
        asyncio.run(serve())
    else:
        with HealthChecker(balancer, probe, interval=0.02, leader=leader):
            say("ready")
            answer()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]))
