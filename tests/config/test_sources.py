"""Fleets whose nodes come from a source: followed, forked, closed, and refused."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from tests.config.fleets import PLAIN, refusal
from typer.testing import CliRunner

from loadwise.cli.app import app
from loadwise.config import ConfigError, ConfiguredBalancer, load_balancer
from loadwise.simulation import load_scenario
from loadwise.simulation.scenario.fleet import ids_of, server_groups

FLEET = """
strategy = "p2c"
[source]
kind = "file"
path = "nodes.toml"
interval = 0.02
debounce = 0
[[quotas]]
name = "rpm"
limit = 5
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A fleet file, and a file of two nodes beside it."""
    made = tmp_path / "fleet.toml"
    made.write_text(FLEET)
    put(made, 'nodes = ["a:1", {id = "b:1", weight = 2, zone = "eu"}]')
    return made


def put(path: Path, text: str) -> None:
    """Put another file of nodes beside a fleet file."""
    new = path.with_name("new.toml")
    new.write_text(text)
    new.replace(path.with_name("nodes.toml"))


def ids(balancer: ConfiguredBalancer) -> list[object]:
    """Return the ids of a balancer's nodes."""
    return [node.id for node in balancer.nodes]


def wait_for(balancer: ConfiguredBalancer, wanted: list[object]) -> bool:
    """Wait until these are the nodes, for 20 seconds at most; tell whether they are."""
    until = time.monotonic() + 20.0
    while ids(balancer) != wanted and time.monotonic() < until:
        time.sleep(0.01)
    return ids(balancer) == wanted


def test_it_is_followed_until_it_is_closed(path: Path) -> None:
    """The nodes are there at once, those that join have their quotas, and the end is the end."""
    with load_balancer(path) as balancer:
        assert [(node.id, node.weight, node.zone) for node in balancer.nodes] == [
            ("a:1", 1, None),
            ("b:1", 2, "eu"),
        ]
        balancer.acquire(exclude=["b:1"]).success()
        put(path, 'nodes = ["a:1", "c:1"]')
        assert wait_for(balancer, ["a:1", "c:1"])
        left = {status.id: dict(status.quota_remaining) for status in balancer.status()}
        assert left == {"a:1": {"rpm": 4}, "c:1": {"rpm": 5}}
        assert balancer.watcher is not None
        assert balancer.watcher.running
    assert not balancer.watcher.running
    balancer.close()
    assert ids(balancer) == ["a:1", "c:1"]
    assert load_balancer(PLAIN).watcher is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_follows_it_by_itself(path: Path) -> None:
    """As workers do that a server forks after it has loaded the program."""
    with load_balancer(path) as balancer:
        child = os.fork()
        if not child:
            os._exit(0 if wait_for(balancer, ["d:1"]) else 1)
        put(path, 'nodes = ["d:1"]')
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert wait_for(balancer, ["d:1"])


def test_a_source_that_is_not_there_is_no_error(path: Path) -> None:
    """The balancer has no nodes yet, and gets them when it is."""
    nodes = path.with_name("nodes.toml")
    nodes.unlink()
    with load_balancer(path, ["source.timeout=20"]) as balancer:
        assert ids(balancer) == []
        put(path, 'nodes = ["a:1"]')
        assert wait_for(balancer, ["a:1"])


def test_dns() -> None:
    """Names of the system are found without dnspython, too."""
    fleet = {"source": {"kind": "dns", "name": "localhost", "type": "A", "port": 80}}
    with load_balancer(fleet) as balancer:
        assert wait_for(balancer, ["127.0.0.1:80"])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (3, "source is 3; it must be a table whose kind is"),
        ({"path": "x"}, "source needs a kind: consul, dns, file, kubernetes"),
        (
            {"kind": "fil"},
            "source.kind is \"fil\"; did you mean 'file'? (there is consul, dns, file",
        ),
        ({"kind": "file"}, "source of kind 'file' needs 'path', a text in quotes"),
        (
            {"kind": "file", "paht": "x"},
            "source of kind 'file' has no key 'paht'; did you",
        ),
        ({"kind": "file", "path": "x.yaml"}, "source: path is 'x.yaml', which is YAML"),
        (
            {"kind": "file", "path": "x", "interval": 0},
            "source.interval is 0; it must be a",
        ),
        (
            {"kind": "dns", "name": "x"},
            "source: port is missing: A and AAAA records of 'x' ",
        ),
        (
            {"kind": "dns", "name": "x", "type": "MX"},
            'source.type is "MX"; it must be "A"',
        ),
        (
            {"kind": "dns", "name": "x", "port": 0},
            "source.port is 0; it must be a whole",
        ),
        (
            {"kind": "consul", "service": "x", "wait": 601},
            "source.wait is 601; it must be a",
        ),
    ],
)
def test_refusals(source: Any, said: str) -> None:
    """The place, the value and the remedy, as everywhere."""
    assert refusal({"source": source})[0].startswith(said)


def test_both_nodes_and_a_source(path: Path) -> None:
    """One of them is too much."""
    with pytest.raises(ConfigError, match="there are both nodes and a source: leave one of them"):
        load_balancer(path, ['nodes=["a:1"]'])


def test_kubernetes_and_consul() -> None:
    """They are built as their tables say; their servers are asked in the background."""
    pytest.importorskip("httpx2")
    url = "http://127.0.0.1:9"
    for source, shown in (
        (
            {"kind": "kubernetes", "service": "s", "namespace": "n", "port": "web"},
            "KubernetesSource",
        ),
        ({"kind": "consul", "service": "s", "tag": "green", "datacenter": "d"}, "ConsulSource"),
    ):
        with load_balancer({"source": {**source, "url": url, "timeout": 0}}) as balancer:
            assert f"by {shown}('s'" in repr(balancer.watcher)
            assert ids(balancer) == []


def test_the_commands(path: Path, tmp_path: Path) -> None:
    """``check`` asks nobody; ``explain`` and a simulation ask once."""
    runner = CliRunner(env={"COLUMNS": "200"})
    checked = runner.invoke(app, ["check", str(path)])
    assert "nodes     as FileSource(" in checked.output
    assert checked.exit_code == 0
    explained = runner.invoke(app, ["explain", str(path), "--exclude", "a:1"])
    assert "would choose 'b:1'" in explained.output
    scenario = load_scenario({"name": "x", "about": "", "servers": {"count": 1}}, fleet=path)
    assert [ids_of(group) for group in server_groups(scenario)] == [("a:1",), ("b:1",)]
    path.with_name("nodes.toml").unlink()
    assert runner.invoke(app, ["check", str(path)]).exit_code == 0
    gone = runner.invoke(app, ["explain", str(path)])
    assert gone.exit_code == 1
    assert "cannot be asked: " in gone.output


def test_settings_put_a_source_in_the_place_of_nodes(path: Path) -> None:
    """By taking the nodes back."""
    settings = ["nodes=none", "source.kind=file", f"source.path={path.with_name('nodes.toml')}"]
    with load_balancer(PLAIN, settings) as balancer:
        assert ids(balancer) == ["a:1", "b:1"]
