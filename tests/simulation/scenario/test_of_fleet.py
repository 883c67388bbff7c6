"""Scenarios of fleets that run: what is simulated is what their files say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loadwise.config import ConfigError
from loadwise.simulation import load_scenario, simulate
from loadwise.simulation.errors import ScenarioError
from loadwise.simulation.report.toml_text import toml_of
from loadwise.simulation.scenario import (
    Callers,
    Health,
    LimitTable,
    Outliers,
    Quota,
    Scenario,
    SlowStartTable,
)
from loadwise.simulation.scenario.fleet import ids_of, server_groups

BASE: dict[str, Any] = {
    "name": "base",
    "about": "",
    "requests": 500,
    "servers": {"count": 9, "parallelism": 4, "zone": "gone", "weight": 5},
    "strategies": ["random", "p2c"],
    "health": {"failure_threshold": 9},
    "callers": {"timeout": 7.0, "attempts": 9},
    "clients": {"keys": 50},
    "load": 0.5,
}
FLEET: dict[str, Any] = {
    "strategy": "p2c",
    "tau": 3.0,
    "nodes": ["a:1", {"id": "b:1", "weight": 2, "zone": "eu", "priority": 1}, "c:1"],
    "health": {"recovery_successes": 4},
    "callers": {"attempts": 3, "budget": 0.5},
    "clients": {"count": 2, "zone": "eu"},
    "outliers": {"interval": 5.0},
    "limits": {"max_in_flight": 6, "max_waiting": 9},
    "quotas": [{"name": "rpm", "limit": 900}],
}


def test_what_a_fleet_says_is_simulated(tmp_path: Path) -> None:
    """And of the rest, what the scenario says."""
    scenario = load_scenario(BASE, fleet=FLEET)
    groups = server_groups(scenario)
    told = [(ids_of(each), each.count, each.weight, each.zone, each.priority) for each in groups]
    assert told == [(("a:1", "c:1"), 2, 1, None, 0), (("b:1",), 1, 2, "eu", 1)]
    assert [each.parallelism for each in groups] == [4, 4]
    assert scenario.strategies == ("p2c/outliers",)
    assert scenario.health == Health(recovery_successes=4)
    assert scenario.callers == Callers(attempts=3, budget=0.5, timeout=7.0)
    assert (scenario.clients.count, scenario.clients.zones, scenario.clients.keys) == (
        2,
        ("eu",),
        50,
    )
    assert (scenario.tau, scenario.load) == (3.0, 0.5)
    assert scenario.outliers == Outliers(interval=5.0)
    assert scenario.slow_start == SlowStartTable()
    assert scenario.limits == LimitTable(max_in_flight=6)
    assert scenario.quotas == (Quota(name="rpm", limit=900.0),)
    path = tmp_path / "written.toml"
    path.write_text(toml_of(scenario))
    assert load_scenario(path) == scenario


def test_it_runs_and_faults_hit_its_nodes() -> None:
    """Servers have the ids of nodes, in results and in faults; settings come after the fleet."""
    fault = '{kind="crash", at="20%", servers=["b:1"]}'
    scenario = load_scenario(
        BASE, [f"faults=[{fault}]", "servers.groups.0.speed=2"], fleet={**FLEET, "quotas": []}
    )
    assert [each.speed for each in server_groups(scenario)] == [2.0, 1.0]
    result = simulate(scenario, scenario.strategies[0])
    assert set(result.share) == {"a:1", "b:1", "c:1"}
    assert result.arrived == result.completed + result.failed + result.dropped + result.in_flight
    assert simulate(scenario, "tiers/outliers").completed > 0


def test_limits_hold_in_a_simulation() -> None:
    """No node has more in flight than its limit; who finds all of them full is turned away."""
    crowd = {**BASE, "load": 3.0, "servers": {"count": 2, "parallelism": 8}, "callers": {}}
    free = simulate(load_scenario(crowd), "p2c")
    full = simulate(load_scenario(crowd, ["limits.max_in_flight=2"]), "p2c")
    assert (free.dropped, full.failed) == (0, 0)
    assert full.dropped > 100


def test_the_split_of_a_fleet() -> None:
    """Groups by tag become groups of servers with their shares."""
    nodes: list[dict[str, Any]] = [
        {"id": f"n{i}", "tags": {"v": "new" if i == 3 else "old"}} for i in range(4)
    ]
    split = {"tag": "v", "shares": {"old": 90, "new": 10}}
    fleet = {"strategy": "split", "nodes": nodes, "split": split}
    groups = server_groups(load_scenario(BASE, fleet=fleet))
    assert [(each.name, each.count, each.share) for each in groups] == [
        ("old", 3, 90),
        ("new", 1, 10),
    ]
    nodes[0] |= {"weight": 3}
    assert "the nodes of group 'old' differ in weight" in refusal(fleet)
    nodes[0] |= {"weight": 1}
    for node in nodes:
        node["tags"] = {"v": "1.0"}
    assert "the group '1.0' cannot be simulated" in refusal(
        {**fleet, "split": {**split, "shares": {"1.0": 1}}}
    )


def refusal(fleet: dict[str, Any], *settings: str) -> str:
    """Return what is said of a fleet that cannot be simulated."""
    with pytest.raises(ScenarioError) as caught:
        load_scenario(BASE, settings, fleet=fleet)
    return str(caught.value)


def test_what_cannot_be_simulated() -> None:
    """Quotas of some nodes, and faults of servers that the fleet has not."""
    some = {**FLEET, "quotas": [{"name": "rpm", "limit": 9, "nodes": ["a:1"]}]}
    assert refusal(some).startswith("the fleet: quotas[0].nodes names some nodes, but in a ")
    fault = 'faults=[{kind="crash", at=1, servers=["server-1"]}]'
    said = refusal(FLEET, fault)
    assert said.startswith("the scenario with the fleet: faults[0].servers: 'server-1' is neither")
    assert said.endswith("(the groups are nodes-1, nodes-2; servers are called a:1 and so on)")
    with pytest.raises(ConfigError, match="tua"):
        load_scenario(BASE, fleet={**FLEET, "tua": 1})


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ([{"name": "a", "ids": ["x", "x"]}], "a server called 'x' is there twice"),
        (
            [{"name": "a", "ids": ["x"]}, {"name": "b", "ids": ["x"]}],
            "a server called 'x' is there",
        ),
        ([{"name": "a", "ids": ["x", "y"], "count": 3}], "group 'a' has a count of 3 and 2 ids"),
        ([{"name": "a", "ids": ["b"]}, {"name": "b"}], "group 'b' has the name of a server of"),
    ],
)
def test_ids_of_groups(groups: list[dict[str, Any]], said: str) -> None:
    """They are unique, and as many as are counted."""
    with pytest.raises(ScenarioError, match=said):
        load_scenario({"name": "x", "about": "", "servers": {"groups": groups}})


def test_ids_can_be_written_by_hand() -> None:
    """A group with ids needs no count."""
    groups = [{"name": "a", "ids": ["x", "y"]}, {"name": "b", "count": 2}]
    scenario: Scenario = load_scenario({"name": "x", "about": "", "servers": {"groups": groups}})
    assert [ids_of(group) for group in server_groups(scenario)] == [("x", "y"), ("b-1", "b-2")]
