"""Limits by what all processes of a host have in flight."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.shared_memory.workers import until, worker

from loadwise import Balancer, NoNodeAvailable
from loadwise.shared_memory import HostState


def limited(path: Path, *nodes: str, limit: int) -> Balancer[str]:
    """Return a balancer that shares a host's picture."""
    return Balancer(nodes, host=HostState(path), max_in_flight=limit)


def test_requests_of_other_processes_count_against_a_limit(path: Path) -> None:
    """What others have in flight takes room, and gives it back without a word."""
    balancer = limited(path, "a", "b", limit=3)
    with worker(path, "a", limit=2) as other:
        other.tell("acquire", 2)
        mine = [balancer.acquire() for _ in range(4)]
        assert sorted(lease.node for lease in mine) == ["a", "b", "b", "b"]
        assert balancer.explain().ineligible == {"a": "full", "b": "full"}
        with pytest.raises(NoNodeAvailable, match="full"):
            balancer.acquire()
        with pytest.raises(NoNodeAvailable, match="full"):
            balancer.pick()
        other.tell("succeed", "a")
        mine.append(balancer.acquire(timeout=20.0))
        assert mine[-1].node == "a"
        with pytest.raises(NoNodeAvailable):
            balancer.acquire()
        for lease in mine:
            lease.success()


def test_who_waits_is_woken_by_what_another_process_ends(path: Path) -> None:
    """By the end of a request elsewhere, and by the death of a process, not of a frozen one."""
    balancer = limited(path, "a", limit=1)
    with worker(path, "a", limit=1) as other, ThreadPoolExecutor(1) as pool:
        other.tell("acquire", 1)
        waits = pool.submit(balancer.acquire, timeout=20.0)
        until(lambda: balancer.waiting == 1)
        other.tell("succeed", "a")
        waits.result().success()
        other.tell("acquire", 1)
        other.signal(signal.SIGSTOP)
        with pytest.raises(NoNodeAvailable):
            balancer.acquire(timeout=1.2)
        waits = pool.submit(balancer.acquire, timeout=20.0)
        other.end()
        waits.result().success()


def test_many_nodes_that_others_have_filled(path: Path) -> None:
    """Whichever of them has room again is found."""
    nodes = [f"n{number}" for number in range(60)]
    balancer = limited(path, *nodes, limit=1)
    with worker(path, *nodes, limit=1) as other:
        other.tell("acquire", 60)
        with pytest.raises(NoNodeAvailable):
            balancer.acquire()
        mine = []
        for node in ("n7", "n59", "n31"):
            other.tell("succeed", node)
            mine.append(balancer.acquire(timeout=20.0))
            assert mine[-1].node == node
        with pytest.raises(NoNodeAvailable):
            balancer.acquire()
        for lease in mine:
            lease.success()


def test_processes_at_their_limit_together(path: Path) -> None:
    """Never more than one too many for each other thread, and all get their share."""
    limit = 6
    balancer = limited(path, "a", limit=limit)
    with worker(path, "a", limit=limit) as one, worker(path, "a", limit=limit) as two:
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda each: each.tell("crowd", 0.6, 0.005), (one, two)))
        assert all(each["leases"] > 20 for each in found), found
        assert max(each["most"] for each in found) <= limit + 4, found
        assert [each.in_flight for each in balancer.status()] == [0]
    leases = [balancer.acquire() for _ in range(limit)]
    with pytest.raises(NoNodeAvailable):
        balancer.acquire(timeout=0.05)
    for lease in leases:
        lease.success()
