"""Shares quotas and health, forks while all is in use, and says what became of it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from threading import Event, Thread

import redis

from loadwise import ConsecutiveFailurePolicy, HealthStatus, QuotaConfig, QuotaDimension
from loadwise.integrations.redis import SharedHealth, SharedQuota

LIMITS = QuotaConfig([QuotaDimension("rpm", limit=100)])
# With answers: a busy machine is no outage.
PATIENCE = 5.0


def until(condition: Callable[[], object], seconds: float = 10.0) -> bool:
    """Wait until something is true; tell whether it came to that."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def main(port: int, prefix: str) -> None:
    """Fork, and write what parent and child saw as JSON."""
    client = redis.Redis(port=port)
    strict = SharedQuota(client, prefix, timeout=PATIENCE)
    leased = SharedQuota(client, f"{prefix}-leased", "leased", slice_share=0.3, timeout=PATIENCE)
    health = SharedHealth(
        client, prefix, ConsecutiveFailurePolicy(failure_threshold=1), timeout=PATIENCE
    )
    for quota in (strict, leased):
        quota.register("node", LIMITS)
    mine = strict.try_acquire("node", {"rpm": 10})
    borrowed = leased.try_acquire("node", {"rpm": 1})
    assert mine is not None
    assert borrowed is not None

    # Others are in the midst of it while the process forks.
    done = Event()

    def keep_busy() -> None:
        while not done.is_set():
            other = strict.try_acquire("node", {"rpm": 0.001})
            if other is not None:
                other.cancel()
            health.report_failure("busy")
            health.report_success("busy")

    busy = Thread(target=keep_busy)
    busy.start()

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        slices = leased._nodes["node"].slices
        held = slices and slices.pools["rpm"].left(leased.clock())
        mine.settle({"rpm": 0})
        borrowed.cancel()
        seen = {
            "held after the fork": held,
            "leased": until(lambda: leased.try_acquire("node", {"rpm": 2})),
            "strict": strict.try_acquire("node", {"rpm": 5}) is not None,
            "heard": until(lambda: health.status("parent") is HealthStatus.UNHEALTHY),
        }
        health.report_failure("child")
        strict.close()
        leased.close()
        health.close()
        os.write(writer, json.dumps(seen).encode())
        os._exit(0)
    os.close(writer)
    health.report_failure("parent")
    seen = {"heard": until(lambda: health.status("child") is HealthStatus.UNHEALTHY)}
    with os.fdopen(reader) as pipe:
        seen["child"] = json.loads(pipe.read())
    os.waitpid(child, 0)
    done.set()
    busy.join()
    seen["works"] = until(lambda: leased.try_acquire("node"))
    for shared in (strict, leased, health):
        shared.close()
    for name in (prefix, f"{prefix}-leased"):
        with SharedQuota(client, name, timeout=PATIENCE) as quota:
            quota.register("node", LIMITS)
            seen[f"used of {name}"] = 100 - quota.remaining("node", "rpm")
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
