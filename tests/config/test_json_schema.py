"""The JSON Schema of fleet files: editors take what `load_balancer` takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.config.fleets import FULL, PLAIN

from loadwise.config.json_schema import fleet_schema
from loadwise.config.records import FleetTable

jsonschema = pytest.importorskip("jsonschema")


@pytest.fixture(scope="module")
def validator() -> Any:
    """The validator of fleets; the schema itself is checked first."""
    schema = json.loads(json.dumps(fleet_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize(
    "fleet",
    [
        PLAIN,
        FULL,
        PLAIN | {"strategy": "PowerOfTwoChoices/no-health"},
        PLAIN | {"health": {"panic_threshold": "40%"}, "outliers": {"significance": "none"}},
        {"source": {"kind": "file", "path": "nodes.toml", "cache": "cache.json"}},
        {"source": {"kind": "dns", "name": "x", "port": 80, "timeout": 0}},
        {"source": {"kind": "kubernetes", "service": "x", "port": "web"}},
        {"source": {"kind": "consul", "service": "x"}},
        PLAIN | {"split": {"tag": "v", "shares": {"a": "95%", "b": 5}}},
    ],
)
def test_what_is_right_is_valid(validator: Any, fleet: dict[str, Any]) -> None:
    """Percentages and ``"none"`` included."""
    validator.validate(fleet)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"tua": 3}, []),
        ({"health": {"jitter": "80"}}, ["health", "jitter"]),
        ({"health": {"jitter": 2}}, ["health", "jitter"]),
        ({"health": {"panic_threshold": "noneZ"}}, ["health", "panic_threshold"]),
        ({"tau": "80%"}, ["tau"]),
        ({"nodes": [{"id": "a", "zoen": "x"}]}, ["nodes", 0]),
        ({"quotas": [{"name": "x"}]}, ["quotas", 0]),
        ({"quotas": [{"name": "x", "limit": 1, "counts": "bytes"}]}, ["quotas", 0, "counts"]),
        ({"callers": None}, ["callers"]),
        ({"source": {"kind": "consul", "service": "x"}}, []),
    ],
)
def test_what_is_wrong_is_not(validator: Any, change: dict[str, Any], place: list[Any]) -> None:
    """The place is found."""
    [error] = validator.iter_errors({**PLAIN, **change})
    assert list(error.absolute_path)[: len(place)] == place
    assert list(validator.iter_errors({"strategy": "p2c"}))


def test_every_key_has_a_meaning() -> None:
    """It is what an editor shows."""
    schema = fleet_schema()
    assert list(schema["properties"]) == list(FleetTable.__struct_fields__)
    for table in (schema, *schema["$defs"].values()):
        for key, found in table["properties"].items():
            assert found["description"].endswith("."), key
    assert (
        "Z" not in schema["$defs"]["Health"]["properties"]["panic_threshold"]["anyOf"][1]["pattern"]
    )
