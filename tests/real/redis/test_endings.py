"""Ends of processes that close nothing: what they lease is given back, what they know is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.real.redis.observer import Observer
from tests.real.redis.support import DEADLINE, PATIENCE, Valkey, until

ENDER = Path(__file__).with_name("ender.py")
# Silent about what Python 3.12 thinks of forking while there are threads, which is the test.
PYTHON = [sys.executable, "-W", "ignore::DeprecationWarning"]


@pytest.mark.parametrize(
    ("way", "status"), [("return", 0), ("at the end", 0), ("exit", 3), ("error", 1), ("handler", 0)]
)
def test_ordinary_ends(
    valkey: Valkey, prefix: str, observer: Observer, way: str, status: int
) -> None:
    """Of the half of a limit that is leased all but the one unit used is given back.

    And the node that was found down at the very end is known to be down by others.
    """
    run = subprocess.run(
        [*PYTHON, str(ENDER), way, str(valkey.port), prefix],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert run.returncode == status
    assert ("Traceback" in run.stderr) is (way == "error")
    assert observer.used() == 1
    observer.sees_down("down")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing(
    valkey: Valkey, prefix: str, observer: Observer, method: str
) -> None:
    """Parent, child and the worker of a pool use one unit each; the rest is given back.

    The child of a fork is served at its first request, though what the parent holds is not its own.
    """
    run = subprocess.run(
        [*PYTHON, str(ENDER), method, str(valkey.port), prefix],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert observer.used() == 3
    observer.sees_down("down before", "down")


@pytest.mark.parametrize("way", ["dropped", "collected", "asyncio, dropped"])
def test_dropped_without_close(valkey: Valkey, prefix: str, observer: Observer, way: str) -> None:
    """An object that is dropped unclosed gives back what it leased, while its process goes on.

    So it does where it is part of a circle, which is left to the collector.
    """
    process = subprocess.Popen(
        [*PYTHON, str(ENDER), way, str(valkey.port), prefix],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: observer.used() == 1 or process.poll() is not None)
        if "asyncio" not in way:
            observer.sees_down("down")
        _, errors = process.communicate("\n", DEADLINE)
    finally:
        process.kill()
        process.wait(DEADLINE)
    assert (process.returncode, errors) == (-signal.SIGKILL, "")
    assert observer.used() == 1


def test_the_end_of_an_event_loop(valkey: Valkey, prefix: str, observer: Observer) -> None:
    """The end of `asyncio.run` gives back what nobody closed."""
    subprocess.run(
        [*PYTHON, str(ENDER), "asyncio", str(valkey.port), prefix], check=True, timeout=60
    )
    assert observer.used() == 1


def test_a_process_that_is_killed_loses_one_slice(
    valkey: Valkey, prefix: str, observer: Observer
) -> None:
    """What was leased to a process that was killed counts until it lapses; no more than that."""
    run = subprocess.run(
        [*PYTHON, str(ENDER), "killed", str(valkey.port), prefix], check=False, timeout=60
    )
    assert run.returncode == -signal.SIGKILL
    assert observer.used() == 50


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform does not fork")
def test_threads_begin_with_the_first_use(valkey: Valkey, prefix: str) -> None:
    """A program that is only being loaded has no threads, so it may be forked.

    Its children have theirs from their first request on, and nothing that the parent did is theirs.
    """
    program = f"""
import os, threading, redis
from loadwise import Balancer, QuotaConfig, QuotaDimension
from loadwise.integrations.redis import SharedHealth, SharedQuota

client = redis.Redis(port={valkey.port})
quota = SharedQuota(client, {prefix!r}, "leased", timeout={PATIENCE})
quota.register("node", QuotaConfig([QuotaDimension("rpm", limit=100)]))
health = SharedHealth(client, {prefix!r}, timeout={PATIENCE})
balancers = [Balancer(["node"], quota=quota, health=health) for _ in range(3)]
print(threading.active_count())
for _ in range(2):
    child = os.fork()
    if child == 0:
        before = threading.active_count()
        balancers[0].acquire().success()
        print(before, threading.active_count(), health.connected, quota.connected, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
print(threading.active_count())
"""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    child = "1 4 True True\n"
    assert (run.stdout, run.stderr) == ("1\n" + 2 * child + "1\n", "")
