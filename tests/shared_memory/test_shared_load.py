"""Load that the processes of a host share: requests in flight, costs, ages; who lives and dies."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.shared_memory.workers import until, worker

from loadwise import (
    Balancer,
    Endpoint,
    InFlight,
    LeastLoad,
    PeakEwma,
    PowerOfTwoChoices,
    RoundRobin,
    Sticky,
    Tiers,
)
from loadwise.shared_memory import HostState

NODES = ("a", "b", "c", "d")


def in_flight(balancer: Balancer[str]) -> int:
    """Return how many requests a balancer knows to be in flight."""
    return sum(each.in_flight for each in balancer.status())


def test_requests_of_all_processes_count(path: Path) -> None:
    """What one process has in flight the other avoids, and sees in `status` and `explain`."""
    with worker(path, "a", "b") as other:
        balancer = Balancer(["a", "b", "c"], LeastLoad(load=InFlight()), host=HostState(path))
        theirs = other.tell("acquire", 6)
        assert {each.id: each.in_flight for each in balancer.status()} == {**theirs, "c": 0}
        assert balancer.explain().choice == "c"
        leases = [balancer.acquire() for _ in range(3)]
        assert [lease.node for lease in leases] == ["c"] * 3
        assert other.tell("status") == theirs  # it does not know c
        for lease in leases:
            lease.success()
        assert in_flight(balancer) == 6


def test_the_dead_count_no_more_and_the_frozen_do(path: Path) -> None:
    """The requests of a process that is stopped stay, those of one that is killed go."""
    balancer = Balancer(NODES, host=HostState(path))
    with worker(path, *NODES) as frozen, worker(path, *NODES) as killed:
        frozen.tell("acquire", 3)
        killed.tell("acquire", 5)
        frozen.signal(signal.SIGSTOP)
        assert in_flight(balancer) == 8
        killed.end()
        until(lambda: in_flight(balancer) == 3)
        with worker(path, *NODES) as another:  # so that all rows are looked at again
            another.tell("acquire", 2)
            assert in_flight(balancer) == 5
            another.end()
            until(lambda: in_flight(balancer) == 3)
        frozen.signal(signal.SIGCONT)
        assert sum(frozen.tell("acquire", 1).values()) == 4
    until(lambda: in_flight(balancer) == 0)


def test_costs_of_all_processes_count(path: Path) -> None:
    """A node that is slow for one process is slow for all; the highest cost counts."""
    measure = PeakEwma()
    balancer = Balancer(("a", "b"), LeastLoad(load=measure), host=HostState(path))
    with worker(path, "a", "b", measure="ewma") as other:
        other.tell("acquire", 2)
        for lease in [balancer.acquire() for _ in range(2)]:
            lease.success()
        time.sleep(0.2)
        other.tell("succeed", "a")
        other.tell("succeed", "b")
        seen = balancer.explain().seen
        assert 0.1 < seen["a"]["load"] < 10
        assert 0.1 < seen["b"]["load"] < 10


def test_the_age_of_requests_of_all_processes_counts(path: Path) -> None:
    """A node that does not answer one process is left alone by all."""
    balancer = Balancer(("a", "b"), LeastLoad(load=PeakEwma()), host=HostState(path))
    for lease in [balancer.acquire() for _ in range(2)]:
        lease.success()
    with worker(path, "a", measure="ewma") as other:
        other.tell("acquire", 1)
        time.sleep(0.1)
        for _ in range(20):
            with balancer.acquire() as lease:
                assert lease.node == "b"


def test_a_forked_child_has_a_row_of_its_own(path: Path) -> None:
    """The child counts from zero beside its parent, and what it ends of the parent's stays."""
    host = HostState(path)
    balancer = Balancer(NODES, host=host)
    lease = balancer.acquire()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            lease.success()
            mine = [balancer.acquire() for _ in range(2)]
            told = f"{in_flight(balancer)} {len(host.processes)} {len(mine)}"
            os.write(write, told.encode())
            os.read(0 if os.isatty(0) else read, 0)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 99) == b"3 2 2"
    os.close(read)
    os.close(write)
    until(lambda: in_flight(balancer) == 1)
    lease.success()
    assert in_flight(balancer) == 0


def test_balancers_of_one_process_share_a_row(path: Path) -> None:
    """Two balancers count together, whatever their measures are; and both with themselves."""
    one = Balancer(NODES, PowerOfTwoChoices(load=InFlight()), host=HostState(path))
    other = Balancer(NODES, PowerOfTwoChoices(load=PeakEwma()), host=HostState(path))
    leases = [one.acquire(), other.acquire(), other.acquire()]
    assert in_flight(one) == in_flight(other) == 3
    assert len(HostState(path).processes) == 1
    for lease in leases:
        lease.success()
    assert in_flight(one) == 0


def test_strategies_that_hold_measures_share_them(path: Path) -> None:
    """A strategy within another goes by the host's load, and so does one without a measure."""
    with worker(path, "a") as other:
        other.tell("acquire", 9)
        load = InFlight()
        strategies: list[Any] = [
            Tiers(lambda: LeastLoad(load=load)),
            Sticky(LeastLoad(load=InFlight())),
            Tiers(),
        ]
        for strategy in strategies:
            balancer = Balancer(map(Endpoint, ("a", "b")), strategy, host=HostState(path))
            picks = Counter(balancer.pick(hash_key=str(i)).id for i in range(20))
            assert picks == {"b": 20}
        assert in_flight(Balancer(("a", "b"), RoundRobin(), host=HostState(path))) == 9
