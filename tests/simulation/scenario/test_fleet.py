"""Who serves: ids, groups with everything filled in, and what a fleet can do."""

from __future__ import annotations

import math
from itertools import islice
from random import Random
from statistics import fmean

import pytest
from tests.simulation.support import fleet

from loadwise.simulation.errors import ScenarioError
from loadwise.simulation.scenario import (
    Add,
    Constant,
    Deterministic,
    Exponential,
    Group,
    Lognormal,
    Pareto,
    Servers,
    Tokens,
    Trace,
)
from loadwise.simulation.scenario.fleet import (
    added_groups,
    capacity,
    ids_of,
    mean_service,
    run_seconds,
    server_groups,
    targets,
)
from loadwise.simulation.world.service_times import Timed, service_times

MIXED = Servers(
    parallelism=2,
    speed=3.0,
    queue_limit=7,
    zone="a",
    weight=5.0,
    priority=3,
    groups=(
        Group(name="plain", count=2),
        Group(
            name="own", parallelism=1, speed=0.5, queue_limit=0, zone="b", weight=0.0, priority=0
        ),
    ),
)


def test_servers_without_groups_are_one_group() -> None:
    """A count alone is a group called ``server``, like ``[servers]`` in everything."""
    servers = Servers(count=3, parallelism=4, speed=2.0, queue_limit=5, zone="a", weight=0.5)
    assert server_groups(fleet(servers=servers)) == (
        Group(
            name="server",
            count=3,
            parallelism=4,
            speed=2.0,
            queue_limit=5,
            zone="a",
            weight=0.5,
            priority=0,
        ),
    )


def test_groups_are_filled_in() -> None:
    """What a group does not say is as in ``[servers]``; what it says holds, zeros included."""
    plain, own = server_groups(fleet(servers=MIXED))
    assert plain == Group(
        name="plain",
        count=2,
        parallelism=2,
        speed=3.0,
        queue_limit=7,
        zone="a",
        weight=5.0,
        priority=3,
    )
    assert own == MIXED.groups[1]


def test_groups_that_join_are_filled_in_too() -> None:
    """A group of an ``add`` fault is like ``[servers]`` in what it does not say."""
    faults = (Add(at=1.0, group=Group(name="new", weight=1.0)),)
    [new] = added_groups(fleet(servers=MIXED, faults=faults))
    assert (new.parallelism, new.speed, new.zone, new.weight) == (2, 3.0, "a", 1.0)


def test_ids_begin_at_one() -> None:
    """Also a group of one server has a number."""
    assert ids_of(Group(name="a")) == ("a-1",)
    assert ids_of(Group(name="a", count=3)) == ("a-1", "a-2", "a-3")


@pytest.mark.parametrize(
    ("servers", "remedy"),
    [
        (Servers(count=3, groups=(Group(name="a"),)), "set servers.groups.0.count"),
        (Servers(), "set servers.count"),
    ],
)
def test_a_count_or_groups(servers: Servers, remedy: str) -> None:
    """Both, or neither, is refused with what to set."""
    with pytest.raises(ScenarioError, match=remedy):
        server_groups(fleet(servers=servers))


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        ((), ()),
        (("own",), ("own-1",)),
        (("plain-2", "plain", "plain-2"), ("plain-2", "plain-1")),
        (("new", "own-1"), ("new-1", "new-2", "own-1")),
    ],
)
def test_targets(names: tuple[str, ...], meant: tuple[str, ...]) -> None:
    """Ids and names of groups, in the order named, each server once, also those that join."""
    faults = (Add(at=1.0, group=Group(name="new", count=2)),)
    assert targets(fleet(servers=MIXED, faults=faults), names) == meant


@pytest.mark.parametrize("name", ["plain-3", "plane", "", "PLAIN"])
def test_unknown_targets(name: str) -> None:
    """Neither a server nor a group: the message has the name and the groups."""
    with pytest.raises(ScenarioError, match=rf"'{name}' is neither .* groups are plain, own"):
        targets(fleet(servers=MIXED), ["own", name])


@pytest.mark.parametrize(
    "service",
    [
        Deterministic(mean=0.02),
        Exponential(mean=0.02),
        Lognormal(mean=0.02, sigma=0.5),
        Pareto(mean=0.02, alpha=2.5, bound=100.0),
        Tokens(prompt=200.0, output=50.0, prefill=5000.0, decode=100.0, sigma=0.5),
    ],
    ids=lambda service: type(service).__name__,
)
def test_mean_service_is_the_mean_of_what_is_drawn(service: Timed) -> None:
    """Over 100,000 draws, whose standard error is at most 0.4 %: 2 % are beyond 5 of them."""
    drawn = fmean(islice(service_times(service, Random(1)), 100_000))
    assert mean_service(service) == pytest.approx(drawn, rel=0.02)


def test_capacity() -> None:
    """Requests at a time, times speed, over the mean time of one."""
    service = Exponential(mean=0.1)
    assert capacity(fleet(servers=MIXED, service=service)) == pytest.approx(
        (2 * 2 * 3.0 + 1 * 1 * 0.5) / 0.1
    )


def test_run_seconds() -> None:
    """From the rate or the load; of a trace it is not known."""
    assert run_seconds(fleet(arrivals=Constant(rate=20.0), requests=100)) == 5.0
    by_load = fleet(load=0.5, requests=100, service=Deterministic(mean=0.1))
    assert run_seconds(by_load) == pytest.approx(100 / (0.5 * 4 / 0.1))
    assert run_seconds(fleet(arrivals=Trace(file="a.csv", time="t"))) is None
    assert math.isfinite(capacity(by_load))
