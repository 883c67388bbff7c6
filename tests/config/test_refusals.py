"""Fleet files that are refused: the place, the value, and what may stand there."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.config.fleets import FULL, PLAIN, refusal

from loadwise import LoadwiseError
from loadwise.config import ConfigError, load_balancer
from loadwise.config.records import FleetTable

ZONED = {"nodes": [{"id": "a", "zone": "eu-1"}, {"id": "b", "zone": "eu-2"}]}
TAGGED = {
    "nodes": [{"id": "a", "tags": {"v": "1"}}, {"id": "b", "tags": {"v": "2"}}],
    "strategy": "split",
}


def quota(**values: Any) -> dict[str, Any]:
    """Return a change by one quota."""
    return {"quotas": [{"name": "rpm", "limit": 5, **values}]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tua": 3}, "the fleet has no key 'tua'; did you mean 'tau'? (there is nodes, "),
        ({"health": {"jiter": 0}}, "health has no key 'jiter'; did you mean 'jitter'? (there is "),
        ({"health": 3}, "health is 3; it must be a table"),
        ({"health": {"jitter": 2}}, "health.jitter is 2; it must be a share from 0 to 1"),
        ({"health": {"jitter": "200%"}}, "health.jitter is 2.0; it must be a share from 0 to 1"),
        ({"health": {"jitter": float("nan")}}, "health.jitter is NaN; it must be a share"),
        ({"health": {"enabled": 1}}, "health.enabled is 1; it must be true or false"),
        (
            {"health": {"panic_threshold": "never"}},
            'health.panic_threshold is "never"; it must be a',
        ),
        ({"tau": 0}, "tau is 0; it must be a number of seconds above 0"),
        ({"tau": "5%"}, 'tau is "5%"; it must be a number of seconds'),
        ({"schema": 2}, "schema is 2; it must be the version of the layout (1)"),
        ({"strategy": "p2d"}, "strategy: 'p2d' is not a strategy; did you mean 'p2c'? (the "),
        ({"strategy": "p2c/fast"}, "strategy: 'p2c/fast' has an unknown option, 'fast'"),
        ({"strategy": "most-available"}, "strategy 'most-available' asks each node what it has"),
        ({"strategy": ["p2c"]}, 'strategy is ["p2c"]; it must be a text in quotes'),
        ({"name": ""}, 'name is ""; it must be a text in quotes of 1 to 1000 characters'),
        ({"strategy": "jump-hash"}, "JumpHash needs numbered nodes, but one has the id 'a:1'"),
        ({"limits": {"max_in_flight": 0}}, "limits.max_in_flight is 0; it must be a whole number"),
        ({"limits": {"max_waiting": -1}}, "limits.max_waiting is -1; it must be a whole number"),
        ({"callers": {"attempts": 0}}, "callers.attempts is 0; it must be a whole number"),
        ({"callers": {"timeout": 3}}, "callers has no key 'timeout'"),
        (
            {"outliers": {"max_ejection": 5}},
            "outliers.max_ejection is 5 s, below outliers.base_ejection, which is 30 s",
        ),
        (quota(limit=0), "quotas[0].limit is 0; it must be an amount above 0"),
        (quota(counts="bytes"), 'quotas[0].counts is "bytes"; it must be "requests" or "tokens"'),
        (
            quota(nodes=["a:2"]),
            "quotas[0].nodes[0]: there is no node 'a:2'; did you mean 'a:1'? (the nodes are a:1, ",
        ),
        ({"quotas": quota()["quotas"] * 2}, "quotas[1]: a quota called 'rpm' is there twice"),
        (
            {"quotas": [*quota()["quotas"], *quota(nodes=["b:1"])["quotas"]]},
            "quotas[1]: a quota called 'rpm' is there twice",
        ),
        (
            {"quotas": quota(nodes=["b:1"])["quotas"] * 2},
            "quotas[1]: a quota called 'rpm' is there twice for node 'b:1'",
        ),
        (
            {**quota(), "clients": {"count": 6}},
            "quotas[0].limit is 5 for 6 clients, less than one request for each: set a longer",
        ),
        ({"split": {"tag": "v", "shares": {"a": 1}}}, "split is set, but the strategy is 'p2c'"),
        ({"nodes": []}, "nodes is empty: name one, such as nodes = "),
        ({"nodes": "a"}, 'nodes is "a"; it must be a list, each item a text in quotes'),
        ({"nodes": ["a", 7]}, "nodes[1] is 7; it must be a text in quotes of 1 to 1000 characters"),
        ({"nodes": ["a", {"weight": 1}]}, "nodes[1] needs 'id', a text in quotes"),
        ({"nodes": [{"id": "a", "zoen": 1}]}, "nodes[0] has no key 'zoen'; did you mean 'zone'?"),
        ({"nodes": [{"id": "a", "weight": -1}]}, "nodes[0].weight is -1; it must be a weight"),
        ({"nodes": [{"id": "a", "tags": {"v": 1}}]}, "nodes[0].tags.v is 1; it must be a text"),
        ({"nodes": ["a", "b", "a"]}, "nodes[2] has the id 'a', as nodes[0] has"),
        ({"nodes": ["a b"]}, "nodes[0] is 'a b', which has ' ' at position 1"),
        ({"nodes": [{"id": "a", "weight": 0}]}, "all nodes have weight 0, so that none may be"),
        (
            {"strategy": "zones", **ZONED},
            "strategy 'zones' needs to know where this program stands",
        ),
        (
            {"strategy": "zones", "clients": {"zone": "eu1"}, **ZONED},
            "clients.zone is 'eu1', and no node is there; did you mean 'eu-1'? (the nodes' zones",
        ),
        (
            {"strategy": "zones", "clients": {"zone": "eu-1"}, "nodes": [*ZONED["nodes"], "c"]},
            "strategy 'zones' needs nodes with zones: nodes[2], 'c', has none",
        ),
        (TAGGED, "strategy 'split' needs groups and their shares: add a table [split]"),
        (
            {**TAGGED, "split": {"tag": "v"}},
            "split needs 'shares', a table, each value a share, in",
        ),
        (
            {**TAGGED, "split": {"tag": "v", "shares": {"1": 1, "2": "x"}}},
            'split.shares.2 is "x"; it must be a share, in any unit',
        ),
        (
            {**TAGGED, "split": {"tag": "v", "shares": {"1": 1, "3": 1}}},
            "nodes[1].tags.v is '2', a group without a share (split.shares has 1, 3)",
        ),
        (
            {**TAGGED, "split": {"tag": "v", "shares": {"1": 0, "2": 0}}},
            "split.shares needs a group with a share above 0",
        ),
        (
            {
                **TAGGED,
                "nodes": [*TAGGED["nodes"], "c"],
                "split": {"tag": "v", "shares": {"1": 1, "2": 1}},
            },
            "strategy 'split' goes by tag 'v': nodes[2], 'c', has none",
        ),
    ],
)
def test_one_error_each(change: dict[str, Any], said: str) -> None:
    """It names the place and the value or the nearest name, and what may stand there."""
    [problem] = refusal({**PLAIN, **change})
    assert problem.startswith(said)


def test_neither_nodes_nor_a_source() -> None:
    """A fleet of nobody is refused."""
    [problem] = refusal({"strategy": "p2c"})
    assert problem.startswith("there are neither nodes nor a source")


def test_all_errors_are_told_at_once() -> None:
    """Those of values, of keys, of nodes and of the strategy; with the setting that brought one."""
    fleet = {
        "nodes": ["a", "a"],
        "strategy": "p2d",
        "health": {"jiter": 0, "enabled": 1},
        "quotas": [{"limit": 3}, {"name": "x", "limit": 1, "window": 0}],
    }
    problems = refusal(fleet, "limits.max_in_flight=0")
    assert [problem.partition("; ")[0].partition(" (")[0] for problem in problems] == [
        "health has no key 'jiter'",
        "health.enabled is 1",
        "--set limits.max_in_flight=0: limits.max_in_flight is 0",
        "quotas[0] needs 'name', a text in quotes",
        "quotas[1].window is 0",
        "nodes[1] has the id 'a', as nodes[0] has",
        "strategy: 'p2d' is not a strategy",
    ]
    with pytest.raises(ConfigError) as caught:
        load_balancer(fleet)
    lines = str(caught.value).split("\n")
    assert lines[0] == "the fleet has 6 problems:"
    assert [line.strip() for line in lines[1:]] == [*caught.value.problems]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("tua=3", "--set tua=3: a fleet has no 'tua'; did you mean 'tau'?"),
        ("tau", "--set tau: a setting is a key, = and a value"),
        (
            "nodes.7.weight=3",
            "--set nodes.7.weight=3: there is no item '7': nodes has the items 0, 1",
        ),
        ("tau=-1", "--set tau=-1: tau is -1; it must be a number of seconds above 0"),
        (
            "outliers.intervall=3",
            "--set outliers.intervall=3: outliers has no 'intervall'; did you",
        ),
    ],
)
def test_settings_that_are_refused(setting: str, said: str) -> None:
    """They are named as they were given."""
    [problem] = refusal(PLAIN, setting)
    assert problem.startswith(said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"nodes = [\n\n]]", "line 3, column 2: this is not TOML: "),
        (b'nodes = ["a"]\nname = "\xff"', "line 2: this is not UTF-8"),
        (b"nodes = " + b"[" * 5000, "its lists are nested too deeply"),
        (b'nodes = ["a"]\nnodes = ["b"]', "this is not TOML: Cannot overwrite a value"),
        (b"", "there are neither nodes nor a source"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes, said: str) -> None:
    """The error has the file and the place."""
    path = tmp_path / "fleet.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_balancer(path)
    assert str(caught.value).startswith(f"{path}: {said}")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """No file, a folder, and a name that no file can have."""
    assert refusal(tmp_path / "none.toml") == ("it cannot be read: No such file or directory",)
    assert refusal(str(tmp_path)) == ("it cannot be read: Is a directory",)
    assert refusal("a\0b")[0].startswith("it cannot be read: ")


def test_the_error_itself() -> None:
    """It has one root, is a ValueError, and comes back from a copy and a pickle."""
    error = ConfigError("fleet\x1b.toml", ["tau is 0", "name is \u202e"])
    assert isinstance(error, LoadwiseError)
    assert isinstance(error, ValueError)
    assert str(error) == "fleet\\x1b.toml has 2 problems:\n  tau is 0\n  name is \\u202e"
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - our own
        assert (str(twin), twin.problems, twin.origin) == (str(error), error.problems, error.origin)


TEXTS = st.text(st.characters(), max_size=8)  # halves of characters included
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner),
    max_leaves=6,
)
KEYS = st.sampled_from([*FleetTable.__struct_fields__, "kind", "tua"])


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the ways to all values of a fleet."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, each in inner:
        found.append((*path, key))
        if isinstance(each, dict | list):
            found += paths_in(each, (*path, key))
    return found


def with_value(fleet: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a fleet with another value at a place."""
    made = copy.deepcopy(fleet)
    holder = made
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return made


def builds_or_refuses(fleet: dict[str, Any]) -> bool:
    """Tell whether a fleet makes a balancer, or else an error that says why it does not."""
    try:
        balancer = load_balancer(fleet)
    except ConfigError as error:
        return len(error.problems) > 0 and all(map(len, error.problems))
    return len(balancer.nodes) > 0


@settings(max_examples=60)
@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_table_builds_or_is_refused(change: dict[str, Any]) -> None:
    """Whatever a file holds, nothing but `ConfigError` comes out of it."""
    assert builds_or_refuses(PLAIN | change)


@settings(max_examples=60)
@given(st.sampled_from(paths_in(FULL)), VALUES)
def test_any_value_anywhere_builds_or_is_refused(path: tuple[Any, ...], value: Any) -> None:
    """Nor does it when one value of a whole fleet is something else."""
    assert builds_or_refuses(with_value(FULL, path, value))


def test_the_place_of_a_wrong_value_is_told() -> None:
    """Of a value that may stand nowhere, wherever it stands."""
    for path in paths_in(FULL):
        problems = refusal(with_value(FULL, path, b"x"))
        dotted = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
        assert any(each.startswith(f"{dotted.lstrip('.')} is ") for each in problems), problems


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("tau=3", "settings is 'tau=3'; it must be a list of texts, such as ['name=search']"),
        (3, "settings is 3; it must be a list of texts"),
        (["tau=3", 3], "settings has 3; each must be a text"),
    ],
)
def test_settings_that_are_no_list_of_texts_are_refused(settings: Any, said: str) -> None:
    """One text would fall apart into settings of one character."""
    with pytest.raises(TypeError, match=re.escape(said)):
        load_balancer(PLAIN, settings)


def test_settings_that_are_wrong_are_all_told() -> None:
    """None of them leaves anything behind."""
    assert [
        each.partition(" (")[0] for each in refusal(PLAIN, "tua=3", "source.kin=x", "tau=0")
    ] == [
        "--set tua=3: a fleet has no 'tua'; did you mean 'tau'?",
        "--set source.kin=x: source has no known kind: set source.kind first",
        "--set tau=0: tau is 0; it must be a number of seconds above 0 and at most 1,000,000,000",
    ]
