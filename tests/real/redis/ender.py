"""Leases quota, finds a node down, and ends in the way it is told, closing nothing."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import sys
import weakref
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import redis
import redis.asyncio

from loadwise import ConsecutiveFailurePolicy, QuotaConfig, QuotaDimension
from loadwise.integrations.redis import AsyncSharedQuota, SharedHealth, SharedQuota

LIMITS = QuotaConfig([QuotaDimension("rpm", limit=100)])
# With answers: a busy machine is no outage.
PATIENCE = 5.0


class Shared:
    """A leased quota and health, as a program makes them while it is loaded."""

    def __init__(self, port: int, prefix: str) -> None:
        client = redis.Redis(port=port)
        self.quota = SharedQuota(client, prefix, "leased", slice_share=0.5, timeout=PATIENCE)
        self.quota.register("node", LIMITS)
        policy = ConsecutiveFailurePolicy(failure_threshold=1)
        self.health = SharedHealth(client, prefix, policy, timeout=PATIENCE)

    def use(self, node_id: str) -> None:
        """Use one unit of 100, of which more are leased, and find a node down."""
        if self.quota.try_acquire("node") is None:
            raise SystemExit("the first request was refused")
        self.health.report_failure(node_id)


def work(port: int, prefix: str) -> None:
    """Do all in a process of its own that is made afresh."""
    Shared(port, prefix).use("down")


def in_child(method: str, port: int, prefix: str) -> None:
    """Use what is shared here, and in children of `multiprocessing`."""
    context: Any = multiprocessing.get_context(method)
    shared = Shared(port, prefix)
    shared.use("down before")
    if method == "fork":
        child = context.Process(target=shared.use, args=("down",))
    else:
        child = context.Process(target=work, args=(port, prefix))
    child.start()
    child.join()
    if child.exitcode:
        raise SystemExit(f"the child ended with {child.exitcode}")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        pool.submit(work, port, prefix).result()


async def in_event_loop(port: int, prefix: str) -> None:
    """Use a quota of asyncio."""
    quota = AsyncSharedQuota(
        redis.asyncio.Redis(port=port), prefix, "leased", slice_share=0.5, timeout=PATIENCE
    )
    await quota.register("node", LIMITS)
    if await quota.try_acquire("node") is None:
        raise SystemExit("the first request was refused")


def main(way: str, port: int, prefix: str) -> None:  # noqa: C901 - a list of ways
    """End in one way."""
    match way:
        case "return":
            work(port, prefix)
        case "at the end":
            shared = Shared(port, prefix)
            shared.use("down")
        case "exit":
            shared = Shared(port, prefix)
            shared.use("down")
            sys.exit(3)
        case "error":
            shared = Shared(port, prefix)
            shared.use("down")
            raise ValueError(way)
        case "handler":
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            shared = Shared(port, prefix)
            shared.use("down")
            os.kill(os.getpid(), signal.SIGTERM)
        case "dropped":
            work(port, prefix)
            sys.stdin.readline()  # goes on until it is told to be killed
            os.kill(os.getpid(), signal.SIGKILL)
        case "collected":
            shared = Shared(port, prefix)
            shared.use("down")
            shared.quota.circle = shared.health.circle = shared  # type: ignore[attr-defined]  # for the collector to find
            left = weakref.ref(shared)
            del shared
            while left() is not None:  # a thread in the midst of its work holds it till then
                gc.collect()
            sys.stdin.readline()
            os.kill(os.getpid(), signal.SIGKILL)
        case "asyncio":
            asyncio.run(in_event_loop(port, prefix))
        case "asyncio, dropped":

            async def run() -> None:
                await in_event_loop(port, prefix)
                await asyncio.to_thread(sys.stdin.readline)
                os.kill(os.getpid(), signal.SIGKILL)

            asyncio.run(run())
        case "killed":
            shared = Shared(port, prefix)
            shared.use("down")
            os.kill(os.getpid(), signal.SIGKILL)
        case _:
            in_child(way, port, prefix)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
