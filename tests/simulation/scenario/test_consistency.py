"""What single values cannot say: whether a scenario's values go together."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from tests.simulation.support import fleet

from loadwise.simulation import compare, simulate
from loadwise.simulation.errors import ScenarioError
from loadwise.simulation.scenario import (
    Add,
    Callers,
    Clients,
    Constant,
    Crash,
    Drain,
    Flap,
    Group,
    Network,
    Outliers,
    Pair,
    Poisson,
    Quota,
    RestartClients,
    Scenario,
    Servers,
    Slow,
    SlowStartTable,
    Tokens,
    Trace,
)
from loadwise.simulation.scenario.consistency import check, check_strategy, validated

RATE = Constant(rate=100.0)  # 50,000 requests: 500 s
TRACE = Trace(file="a.csv", time="t")
NEW = Add(at="40%", group=Group(name="new", count=2))


def groups(*names: str, **settings: Any) -> Servers:
    """Return servers in groups of these names."""
    return Servers(groups=tuple(Group(name=name, **settings) for name in names))


def crash(*servers: str, at: float | str = "50%", **settings: Any) -> Crash:
    """Return a crash of these servers."""
    return Crash(servers=servers, at=at, **settings)


def flap(down: float | str, up: float | str) -> Flap:
    """Return one server that flaps."""
    return Flap(servers=("server-1",), at="10%", down=down, up=up)


GOOD: list[dict[str, Any]] = [
    {},
    {"servers": groups("a", "b")},
    {"servers": Servers(groups=(Group(name="a", weight=0), Group(name="b")))},
    {"strategies": ("p2c", "p2c/no-health", "PowerOfTwoChoices/no-health")[:2]},
    {"strategies": ("consistent-hash",), "clients": Clients(keys=10)},
    {"servers": Servers(count=2, cache=3), "clients": Clients(keys=10)},
    {"faults": (crash("server-1", "server"), RestartClients(at=1.0), NEW)},
    {"faults": (crash("new", at="41%"), NEW)},
    {"faults": (NEW, Drain(servers=("new-2",), at="40%"))},
    {"faults": (NEW, crash("new", at=300.0)), "arrivals": RATE},
    {"faults": (NEW, crash("new", at=1.0)), "arrivals": TRACE},
    {"faults": (crash("server-1", at=500.0, lasts=1e6),), "arrivals": RATE},
    {"faults": (crash("server-1", at=1e9),), "arrivals": TRACE},
    {"faults": (crash("server-1", at="0%", lasts="100%"),)},
    {"faults": (flap(1.0, "1%"),), "arrivals": RATE},
    {"faults": (flap(1e-9, 1e-9),), "arrivals": TRACE},
    {"service": Tokens(), "quotas": (Quota(name="tpm", limit=5, counts="tokens"),)},
    {"service": Tokens(), "arrivals": Trace(file="a", time="t", cost=("x", "y"))},
    {"arrivals": TRACE},
    {"arrivals": Trace(file="a", time="t", cost=("x",))},
    {"callers": Callers(timeout=1.0, hedge=0.5)},
    {"callers": Callers(hedge=0.5)},
    {
        "servers": Servers(count=2, zone="b"),
        "clients": Clients(zones=("a", "c")),
        "network": Network(
            pairs=(Pair(zones=("a", "b"), delay=0.1), Pair(zones=("a", "a"), delay=0))
        ),
    },
]


@pytest.mark.parametrize("settings", GOOD, ids=str)
def test_what_goes_together(settings: dict[str, Any]) -> None:
    """Nothing is said."""
    check(fleet(**settings))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"servers": Servers()}, "servers has neither a count nor groups: set servers.count"),
    (
        {"servers": Servers(count=9, groups=(Group(name="a"),))},
        "servers.count is 9, but there are groups, and each has a count of its own: set servers.gr",
    ),
    ({"servers": groups("a", "b", "a")}, "a group called 'a' is there twice"),
    ({"faults": (Add(at=1.0, group=Group(name="server")),)}, "a group called 'server' is there tw"),
    (
        {"servers": groups("a", "a-1")},
        "group 'a-1' has the name of a server of group 'a': call one of them something else",
    ),
    ({"servers": groups("a", "b", weight=0)}, "all servers have weight 0"),
    ({"servers": Servers(count=2, weight=0), "faults": (NEW,)}, "all servers have weight 0"),
    (
        {"clients": Clients(count=12, per_host=8)},
        "clients.per_host is 8, which does not divide clients.count, 12: set clients.coun",
    ),
    (
        {"clients": Clients(per_host=8)},
        "clients.per_host is 8, which does not divide clients.count, 1",
    ),
    ({"load": 1e-310}, "requests arrive for inf s, and a run has no more than 1e+15 s"),
    ({"load": 5e-324, "servers": Servers(count=1, speed=0.1)}, "requests arrive for inf s"),
    ({"arrivals": Poisson(rate=1e-9), "requests": 20_000_000}, "requests arrive for 2e+16 s"),
    ({"strategies": ()}, "strategies is empty: name one, such as p2c"),
    ({"strategies": ("p2c", "p3c")}, "strategies[1]: 'p3c' is not a strategy; did you mean 'p2c'?"),
    (
        {"strategies": ("p2c/no-helth",)},
        "strategies[0]: 'p2c/no-helth' has an unknown option, 'no-helth'; did you mean 'no-health",
    ),
    (
        {"strategies": ("p2c/outliers/slow-start", "p2c/slow-start/outliers")},
        "a strategy called 'p2c/outliers/slow-start' is there twice",
    ),
    (
        {"strategies": ("zones",)},
        "strategies[0]: 'zones' needs servers with zones: 'server' has no",
    ),
    (
        {"strategies": ("zones",), "servers": Servers(count=2, zone="a")},
        "strategies[0]: 'zones' needs clients with zones: set clients.zones",
    ),
    (
        {
            "strategies": ("zones/no-health",),
            "servers": Servers(count=2, zone="eu"),
            "clients": Clients(count=2, zones=("eu", "ue")),
        },
        "strategies[0]: 'zones/no-health' needs a server in each client's zone, and there is none",
    ),
    (
        {"strategies": ("split",), "servers": groups("a", "b")},
        "strategies[0]: 'split' needs a share for each group, and 'a' has none: set share",
    ),
    (
        {"strategies": ("split",), "servers": groups("a", "b", share=0)},
        "strategies[0]: 'split' needs a group with a share above 0",
    ),
    (
        {"outliers": Outliers(interval=5.0)},
        "outliers is set, but no strategy is run with it: name one with the option /outliers",
    ),
    (
        {"slow_start": SlowStartTable(window=5.0)},
        "slow_start is set, but no strategy is run with it: name one with the option /slow-start",
    ),
    (
        {"outliers": Outliers(base_ejection=400.0), "strategies": ("p2c/outliers",)},
        "outliers.max_ejection is 300 s, below outliers.base_ejection, which is 400 s",
    ),
    ({"strategies": ("p2c", "P2C")}, "a strategy called 'p2c' is there twice"),
    (
        {"strategies": ("ConsistentHash/no-health",)},
        "strategies[0]: 'consistent-hash/no-health' needs requests with keys: set clients.keys",
    ),
    ({"servers": Servers(count=2, cache=3)}, "servers.cache is 3, but requests have no keys: set"),
    (
        {"callers": Callers(timeout=1.0, hedge=1.0)},
        "callers.hedge is 1 s, but an attempt is given up after 1 s: set it below callers.timeout",
    ),
    ({"faults": (crash(),)}, "faults[0].servers is empty: name servers or groups"),
    (
        {"faults": (crash("server-1"), crash("sevrer-1"))},
        "faults[1].servers: 'sevrer-1' is neither a server nor a group; did you mean 'server-1'?",
    ),
    ({"faults": (crash("server-5"),)}, "faults[0].servers: 'server-5' is neither"),
    (
        {"faults": (NEW, crash("new-2", at="39%"))},
        "faults[1] hits 'new-2' before it joins by faults[0]: set a later faults[1].at",
    ),
    ({"faults": (crash("new", at="40%"), NEW)}, "faults[0] hits 'new-1' before it joins by faults"),
    ({"faults": (NEW, crash("new", at=199.0)), "arrivals": RATE}, "faults[1] hits 'new-1' before"),
    ({"faults": (crash("server", at="101%"),)}, "faults[0].at is 101%; a run has no more than 100"),
    ({"faults": (crash("server", lasts="100.5%"),)}, "faults[0].lasts is 100.5%; a run has no"),
    (
        {"faults": (crash("server", at=501.0),), "arrivals": RATE},
        "faults[0].at is 501.0 s, but requests arrive for 500 s only: set an earlier moment, or a ",
    ),
    ({"faults": (RestartClients(at=501.0),), "arrivals": RATE}, "faults[0].at is 501.0 s"),
    ({"faults": (Slow(servers=("server",), at="200%"),)}, "faults[0].at is 200%"),
    ({"faults": (flap(0.0, 1.0),)}, "faults[0].down is 0.0; it must be more than nothing"),
    ({"faults": (flap("1%", "0%"),)}, "faults[0].up is 0%; it must be more than nothing"),
    ({"faults": (flap("1%", "130%"),)}, "faults[0].up is 130%; a run has no more than 100%"),
    (
        {"faults": (flap(0.001, 0.001),), "arrivals": RATE},
        "faults[0] goes down and up in 0.002 s, more than 100,000 times in the 500 s of the run",
    ),
    (
        {"quotas": (Quota(name="tpm", limit=5, counts="tokens"),)},
        "quotas[0].counts is 'tokens', but service of kind 'exponential' has none: set service.kin",
    ),
    ({"quotas": (Quota(name="q", limit=5),) * 2}, "a quota called 'q' is there twice"),
    (
        {"service": Tokens(), "arrivals": TRACE},
        "arrivals.cost names 0 columns; service of kind 'tokens' takes two: tokens read and",
    ),
    (
        {"arrivals": Trace(file="a", time="t", cost=("x", "y"))},
        "arrivals.cost names 2 columns; service of kind 'exponential' takes one",
    ),
    (
        {
            "servers": Servers(count=1, zone="north"),
            "network": Network(pairs=(Pair(zones=("north", "nort"), delay=1.0),)),
        },
        "network.pairs[0].zones: nobody is in 'nort'; did you mean 'north'? (the zones are north)",
    ),
    (
        {"network": Network(pairs=(Pair(zones=("a", "b"), delay=1.0),))},
        "network.pairs[0].zones: nobody is in 'a' (the zones are none; set servers.zone",
    ),
    (
        {
            "clients": Clients(zones=("a", "b")),
            "network": Network(
                pairs=(Pair(zones=("a", "b"), delay=1.0), Pair(zones=("b", "a"), delay=2.0))
            ),
        },
        "network.pairs[1].zones: these two have been given a delay before",
    ),
]


@pytest.mark.parametrize(("settings", "said"), BAD, ids=[said[:60] for _, said in BAD])
def test_what_does_not_go_together(settings: dict[str, Any], said: str) -> None:
    """The message has the place and the remedy."""
    with pytest.raises(ScenarioError) as caught:
        check(fleet(**settings))
    assert str(caught.value).startswith(said)


def test_a_strategy_that_was_asked_for() -> None:
    """One that is not among those of the scenario is checked in the same way."""
    check_strategy(fleet(), "random")
    with pytest.raises(ScenarioError, match=r"set clients\.keys"):
        check_strategy(fleet(), "consistent_hash")
    with pytest.raises(ScenarioError, match="did you mean 'random'"):
        check_strategy(fleet(), "randon")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"load": "0.5"}, 'load is "0.5"'),
        ({"load": -1}, "load is -1"),
        ({"load": True}, "load is true"),
        ({"load": 1j}, "a value is 1j; it must be a number"),
        ({"requests": 300.5}, "requests is 300.5"),
        ({"servers": Servers(count=0)}, "servers.count is 0"),
        ({"callers": Callers(timeout=Fraction(-1))}, "callers.timeout is -1"),  # type: ignore[arg-type]
    ],
)
def test_a_scenario_made_by_a_program_is_checked_as_a_file_is(
    values: dict[str, Any], message: str
) -> None:
    """A value of the wrong kind is refused with its place, not used until it breaks something."""
    made = Scenario(**{"name": "", "about": "", "servers": Servers(count=2), **values})
    run: list[Callable[[], object]] = [
        lambda: simulate(made),
        lambda: compare(made, ["p2c"], seeds=1),
    ]
    for each in run:
        with pytest.raises(ScenarioError, match=re.escape(message)):
            each()


def test_numbers_of_other_kinds_will_do() -> None:
    """They become what a file would have held, and the run is the same."""
    plain = Scenario(name="", about="", servers=Servers(count=2), requests=200, load=0.5)
    two: Any = np.int64(2)
    odd: dict[str, Any] = {
        "servers": Servers(count=two),
        "requests": np.int64(200),
        "load": Decimal("0.5"),
        "callers": Callers(budget=Fraction(1, 5)),  # type: ignore[arg-type]
    }
    assert validated(Scenario(name="", about="", **odd)) == plain
    assert simulate(Scenario(name="", about="", **odd), seed=two).latency == (
        simulate(plain, seed=2).latency
    )
