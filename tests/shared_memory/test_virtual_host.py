"""A virtual host: several balancers of one process share as processes do by a `HostState`."""

from __future__ import annotations

import pytest

from loadwise import Balancer, HealthStatus, HealthTracker, InFlight, LeastLoad, PeakEwma
from loadwise.shared_memory.virtual_host import VirtualHost
from loadwise.testing import ManualClock


class Pair:
    """Two processes of one host, each with a balancer and a tracker of the nodes a and b."""

    def __init__(self, *members: tuple[str, ...], ewma: bool = False) -> None:
        self.clock = ManualClock()
        self.host = VirtualHost(self.clock, processes=2, nodes=3)
        self.trackers = [HealthTracker(clock=self.clock) for _ in range(2)]
        self.strategies: list[LeastLoad[str]] = [
            LeastLoad(load=PeakEwma() if ewma else InFlight()) for _ in range(2)
        ]
        self.one, self.other = (
            Balancer(nodes, strategy, clock=self.clock, health=tracker, host=process)
            for nodes, strategy, tracker, process in zip(
                members or (("a", "b"), ("a", "b")),
                self.strategies,
                self.trackers,
                self.host.processes,
                strict=True,
            )
        )

    def fail(self) -> None:
        """Have the first process find node a down."""
        while self.trackers[0].status("a") is not HealthStatus.UNHEALTHY:
            with self.one.acquire(exclude=["b"]) as lease:
                lease.failure("refused")


def counts(balancer: Balancer[str]) -> dict[object, int]:
    """Return what a balancer says is in flight."""
    return {status.id: status.in_flight for status in balancer.status()}


def test_requests_of_both_count() -> None:
    """What one has in flight the other sees, and no more once it has ended."""
    pair = Pair()
    with pair.one.acquire() as first, pair.other.acquire() as second:
        assert {first.node, second.node} == {"a", "b"}
        assert counts(pair.one) == counts(pair.other) == {"a": 1, "b": 1}
    assert counts(pair.one) == counts(pair.other) == {"a": 0, "b": 0}


def test_members_may_differ() -> None:
    """What both have they share."""
    pair = Pair(("a", "b"), ("b", "c"))
    with pair.one.acquire(exclude=["a"]), pair.other.acquire() as other:
        assert other.node == "c"
        assert counts(pair.other) == {"b": 1, "c": 1}
        assert counts(pair.one) == {"a": 0, "b": 1}


def test_the_highest_cost_counts() -> None:
    """A node that is slow for one is so for both, until it is found down."""
    pair = Pair(ewma=True)
    for seconds, node in ((9.0, "b"), (1.0, "a")):
        with pair.one.acquire(exclude=[node]):
            pair.clock.advance(seconds)
    picks: list[str] = []
    for _ in range(3):
        with pair.other.acquire() as lease:
            picks.append(lease.node)
    assert picks == ["b", "b", "b"]
    pair.fail()
    [measure] = pair.strategies[1].measures
    assert isinstance(measure, PeakEwma)
    assert measure.cost(measure.cell("a")) is None
    assert measure.cost(measure.cell("b")) is not None


def test_who_is_down_for_one_is_down_for_both() -> None:
    """And up again for both; also where a node is known to the other later."""
    pair = Pair(("a", "b"), ("b",))
    pair.fail()
    pair.other.add("a")
    assert pair.trackers[1].status("a") is HealthStatus.UNHEALTHY
    with pair.other.acquire() as lease:
        assert lease.node == "b"
    pair.clock.advance(1e6)
    while pair.trackers[1].status("a") is not HealthStatus.HEALTHY:
        with pair.other.acquire(exclude=["b"]):
            pass
    assert pair.trackers[0].status("a") is HealthStatus.HEALTHY


def test_an_ejection_by_the_program_itself_is_not_told() -> None:
    """It concerns one tracker; those by outlier detection are told."""
    pair = Pair()
    pair.trackers[0].eject("a", "an outlier", until=100.0)
    assert pair.trackers[0].status("a") is HealthStatus.UNHEALTHY
    assert pair.trackers[1].status("a") is HealthStatus.HEALTHY


def test_another_clock_is_refused() -> None:
    """Costs and ages would not compare."""
    with pytest.raises(ValueError, match="but this host goes by"):
        Balancer(["a"], host=Pair().host.processes[0])
