"""Lists of nodes as files have them: what is read, and what every error says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadwise import Balancer, Endpoint, LoadwiseError, WeightedRoundRobin
from loadwise._text import visible_lines
from loadwise.node_list import NODE_KEYS, NodeListError, nodes_in


def test_ids_and_tables_are_endpoints() -> None:
    """Both kinds may stand side by side, and every key of a table is passed on."""
    full = {"id": "b:80", "weight": 2.5, "zone": "eu-1", "priority": 1, "tags": {"rack": "r1"}}
    assert nodes_in(["a:80", full, {"id": "http://c/v1"}]) == (
        Endpoint("a:80"),
        Endpoint("b:80", weight=2.5, zone="eu-1", priority=1, tags={"rack": "r1"}),
        Endpoint("http://c/v1"),
    )
    assert set(full) == set(NODE_KEYS)
    assert nodes_in([]) == ()


def test_nodes_are_what_strategies_need() -> None:
    """A plain id has a weight, too, so that one with a weight may stand beside it."""
    balancer = Balancer(nodes_in(["a", {"id": "b", "weight": 3}]), WeightedRoundRobin())
    picked = [balancer.pick().id for _ in range(8)]
    assert (picked.count("a"), picked.count("b")) == (2, 6)


WRONG: list[tuple[Any, str]] = [
    ("a:80", "nodes is 'a:80'; it must be a list of ids"),
    ({"a": 1}, "nodes is {'a': 1}; it must be a list of ids"),
    (None, "nodes is None; it must be a list of ids"),
    ([1], "nodes[0] is 1; it must be an id in quotes"),
    (["a", ["b"]], "nodes[1] is ['b']; it must be an id in quotes"),
    ([None], "nodes[0] is None; it must be an id in quotes"),
    ([""], "nodes[0] is '', which is empty"),
    (["a b"], "nodes[0] is 'a b', which has ' ' at position 1"),
    (["a\x1b[2J"], "nodes[0] is 'a\\x1b[2J', which has '\\x1b' at position 1"),
    (["a" * 1001], "which has 1001 characters, and may have 1000 at most"),
    ([{}], 'nodes[0] has no id; give it one, such as id = "10.0.0.1:8080"'),
    ([{"weight": 1}], "nodes[0] has no id"),
    ([{"id": 7}], "nodes[0].id is 7; it must be text in quotes"),
    (
        [{"id": "a", "wieght": 1}],
        (
            "nodes[0] has no key 'wieght'; did you mean 'weight'? (the keys are id, weight, zone, "
            "priority, tags)"
        ),
    ),
    ([{"id": "a", "\x1b": 1}], "nodes[0] has no key '\\x1b' (the keys are"),
    ([{"id": "a", "weight": -1}], "nodes[0].weight is -1; it must be a finite number, at least 0"),
    ([{"id": "a", "weight": "2"}], "nodes[0].weight is '2'; it must be a finite number"),
    ([{"id": "a", "weight": True}], "nodes[0].weight is True; it must be a finite number"),
    ([{"id": "a", "weight": float("nan")}], "nodes[0].weight is nan; it must be a finite number"),
    ([{"id": "a", "weight": float("inf")}], "nodes[0].weight is inf; it must be a finite number"),
    ([{"id": "a", "weight": 10**400}], "nodes[0].weight is 1000000000"),
    ([{"id": "a", "weight": None}], "nodes[0].weight is None; it must be a finite number"),
    ([{"id": "a", "zone": 3}], "nodes[0].zone is 3; it must be text in quotes"),
    ([{"id": "a", "zone": ""}], "nodes[0].zone is '', which is empty"),
    ([{"id": "a", "priority": 1.5}], "nodes[0].priority is 1.5; it must be a whole number"),
    ([{"id": "a", "priority": -1}], "nodes[0].priority is -1; it must be a whole number"),
    ([{"id": "a", "priority": True}], "nodes[0].priority is True; it must be a whole number"),
    ([{"id": "a", "tags": ["x"]}], "nodes[0].tags is ['x']; it must be a table of texts"),
    ([{"id": "a", "tags": {"n": 1}}], "nodes[0].tags.n is 1; it must be text, so put it in quotes"),
    ([{"id": "a", "tags": {"": "x"}}], "nodes[0].tags has the name ''; a tag's name must be text"),
    ([{"id": "a", "tags": {"n": "\x00"}}], "nodes[0].tags has the tag '\\x00'; a tag may have"),
    (
        ["a", "b", {"id": "a"}],
        "nodes[2] has the id 'a', as nodes[0] has; each node needs an id of its own",
    ),
]


@pytest.mark.parametrize(("value", "message"), WRONG)
def test_errors_name_place_value_and_remedy(value: Any, message: str) -> None:
    """With the file before it, if there is one."""
    with pytest.raises(NodeListError) as error:
        nodes_in(value)
    assert str(error.value).startswith(message) or message in str(error.value)
    assert isinstance(error.value, LoadwiseError)
    assert isinstance(error.value, ValueError)
    with pytest.raises(NodeListError) as named:
        nodes_in(value, origin="fleet.toml", place="nodes")
    assert str(named.value) == f"fleet.toml: {error.value}"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(NODE_KEYS) | st.text(), inner, max_size=5)
    ),
    max_leaves=20,
)


@settings(max_examples=50)
@given(anything | st.lists(anything))
def test_whatever_stands_there_is_read_or_refused(value: Any) -> None:
    """No other error comes of any value, and none puts raw text of the file into a log."""
    nodes, refusal = None, ""
    try:
        nodes = nodes_in(value)
    except NodeListError as error:
        refusal = str(error)
    if nodes is None:
        assert refusal.startswith("nodes")
        assert refusal == visible_lines(refusal)
    else:
        assert len({node.id for node in nodes}) == len(nodes) == len(value)


ids = st.text(st.sampled_from("abcé0.:-/"), min_size=1, max_size=9)
tables = st.fixed_dictionaries(
    {"id": ids},
    optional={
        "weight": st.integers(0, 9) | st.floats(0, 1e6),
        "zone": ids,
        "priority": st.integers(0, 9),
        "tags": st.dictionaries(ids, st.sampled_from(["", "a b"]) | ids, max_size=3),
    },
)


@settings(max_examples=30)
@given(st.lists(tables, unique_by=lambda table: str(table["id"])))
def test_good_lists_are_read_as_they_stand(tables: list[dict[str, Any]]) -> None:
    """Nothing is lost or made up, whether it comes from memory or through JSON."""
    nodes = nodes_in(tables)
    assert nodes == nodes_in(json.loads(json.dumps(tables)))
    for node, table in zip(nodes, tables, strict=True):
        assert all(getattr(node, key) == value for key, value in table.items())
