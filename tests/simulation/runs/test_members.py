"""Parts of a client's balancer: what a scenario says is what they get."""

from __future__ import annotations

from random import Random

import pytest
from tests.simulation.support import fleet

from loadwise import FailureShare, SlowShare, SlowStart, SuccessRate
from loadwise._tables.contenders import contender
from loadwise.simulation.runs.members import (
    hosts_of,
    outlier_detection,
    seat_of,
    slow_start,
    subset,
)
from loadwise.simulation.scenario import Clients, Group, Outliers, Servers, SlowStartTable
from loadwise.testing import ManualClock

EJECTING, STARTING = contender("p2c/outliers"), contender("p2c/slow-start")
PLAIN = contender("p2c")
NUMBERS = ("interval", "base_ejection", "max_ejection", "jitter", "max_ejected")


def test_outliers() -> None:
    """Numbers are handed on; rules have those of the table that concern them."""
    table = Outliers(
        interval=1.0,
        base_ejection=2.0,
        max_ejection=3.0,
        jitter=0.5,
        max_ejected=0.4,
        consecutive_failures=7,
        stdev_factor=1.5,
        failure_share=0.6,
        slow_factor=4.0,
        min_nodes=3,
        min_requests=20,
        significance=0.01,
        probe=False,
    )
    made = outlier_detection(fleet(outliers=table), EJECTING, Random(1))
    assert made is not None
    assert [getattr(made, name) for name in NUMBERS] == [getattr(table, name) for name in NUMBERS]
    assert (made.consecutive_failures, made.significance, made.probe) == (7, 0.01, False)
    assert made.success_rate == SuccessRate(1.5, 3, 20)
    assert made.failure_share == FailureShare(0.6, 3, 20)
    assert made.slow_share == SlowShare(4.0)


def test_outliers_by_default() -> None:
    """The table left out is the library's own default, and ``"none"`` leaves a rule out."""
    made = outlier_detection(fleet(), EJECTING, Random(1))
    assert made is not None
    assert (made.success_rate, made.failure_share) == (SuccessRate(), FailureShare())
    assert (made.slow_share, made.significance, made.consecutive_failures) == (None, 0.001, 5)
    none = Outliers(
        consecutive_failures="none", stdev_factor="none", failure_share="none", significance="none"
    )
    made = outlier_detection(fleet(outliers=none), EJECTING, Random(1))
    assert made is not None
    assert (made.success_rate, made.failure_share, made.significance) == (None, None, None)
    assert made.consecutive_failures is None
    assert outlier_detection(fleet(outliers=none), PLAIN, Random(1)) is None


def test_slow_start() -> None:
    """It is for contenders with that option alone."""
    scenario = fleet(slow_start=SlowStartTable(window=5.0, aggression=2.0, min_weight=0.2))
    assert slow_start(scenario, STARTING) == SlowStart(5.0, 2.0, 0.2)
    assert slow_start(scenario, PLAIN) is None


@pytest.mark.parametrize("kind", ["aperture", "rendezvous"])
def test_subsets(kind: str) -> None:
    """Each client has its own part; without a kind it uses all."""
    scenario = fleet(clients=Clients(count=4, subset=kind, subset_size=3))
    nodes = [f"n{number}" for number in range(12)]
    parts = [subset(scenario, client) for client in range(4)]
    chosen = {tuple(part(nodes)) for part in parts if part is not None}  # type: ignore[arg-type]
    assert len(chosen) > 1
    assert {len(each) for each in chosen} == {3}
    assert subset(fleet(), 0) is None


def test_seats() -> None:
    """Clients stand in the zones in turn, and know the shares of all groups."""
    servers = Servers(groups=(Group(name="old", share=95.0), Group(name="new", share=5.0)))
    scenario = fleet(servers=servers, clients=Clients(count=3, zones=("a", "b")))
    seats = [seat_of(scenario, client, Random(1)) for client in range(3)]
    assert [seat.zone for seat in seats] == ["a", "b", "a"]
    assert seats[0].shares == {"old": 95.0, "new": 5.0}
    assert seat_of(fleet(), 0, Random(1)).zone is None


def test_hosts() -> None:
    """Clients of one host stand together, and have memory in common that others have not."""
    scenario = fleet(clients=Clients(count=6, per_host=2, zones=("a", "b")))
    zones = [seat_of(scenario, client, Random(1)).zone for client in range(6)]
    assert zones == ["a", "a", "b", "b", "a", "a"]
    seen: list[list[int]] = []
    hosts = hosts_of(scenario, ManualClock())
    for host in hosts:
        assert host is not None
        cell = host.cell("server-1")
        cell.append(None)
        cell.publish()
        seen.append(cell.seen.tolist())
    assert seen == [[1, 0], [1, 1]] * 3
    assert hosts_of(fleet(clients=Clients(count=2)), ManualClock()) == [None, None]
