"""JSON Schema of fleet files, for editors."""

from __future__ import annotations

from typing import Any

import msgspec

from loadwise._tables.meanings import meaning_of, meanings_of_keys
from loadwise._tables.schema import is_list, is_table
from loadwise.config import records
from loadwise.config.consistency import FLEET_STRATEGIES
from loadwise.config.records import FleetTable

__all__ = ["fleet_schema"]

_ANNOTATIONS = {"default", "description"}

Schema = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PERCENTAGE = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%$"}


def fleet_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of fleet files.

    Whatever `load_balancer` takes is valid by it. It does not tell all that is wrong: what goes
    together, such as a quota and the nodes that it names, only `load_balancer` knows.

    Example:
        >>> schema = fleet_schema()
        >>> schema["properties"]["tau"]["description"]
        'Seconds in which peak EWMA forgets a peak.'
    """
    made = msgspec.json.schema(FleetTable)
    tables: dict[str, Schema] = made["$defs"]
    for name, table in tables.items():
        _adapt(table)
        _describe(table, getattr(records, name))
    fleet = tables.pop(FleetTable.__name__)
    strategy = fleet["properties"]["strategy"]
    del strategy["type"], strategy["minLength"], strategy["maxLength"]
    # The names are to be offered; other spellings and options are taken, too.
    strategy["anyOf"] = [{"enum": list(FLEET_STRATEGIES)}, {"type": "string", "minLength": 1}]
    fleet["oneOf"] = [{"required": ["nodes"]}, {"required": ["source"]}]
    return {"$schema": _DIALECT, "title": "A fleet of loadwise", **fleet, "$defs": tables}


def _describe(table: Schema, record: type) -> None:
    """Give a table and its keys their meanings."""
    del table["title"]
    table["description"] = meaning_of(record)
    keys = table["properties"]
    for key, meaning in meanings_of_keys(record).items():
        keys[key]["description"] = meaning
    if "kind" in keys:
        keys["kind"]["description"] = meaning_of(record)


def _adapt(schema: Schema) -> None:
    """Take out what is Python's own or cannot be said in TOML, and take percentages for shares."""
    for value in [*schema.values()]:
        for inner in value if is_list(value) else [value]:
            if is_table(inner):
                _adapt(inner)
    if "default" in schema and schema["default"] is None:
        del schema["default"]
    if is_list(schema.get("anyOf")):
        choices = [each for each in schema["anyOf"] if each != {"type": "null"}]
        if len(choices) == 1:
            del schema["anyOf"]
            schema |= choices[0]
        else:
            schema["anyOf"] = choices
    if isinstance(schema.get("pattern"), str):
        schema["pattern"] = schema["pattern"].replace(r"\Z", "$")
    if schema.get("type") == "number" and schema.get("description", "").startswith("a share"):
        number = {key: schema.pop(key) for key in [*schema] if key not in _ANNOTATIONS}
        schema["anyOf"] = [number, _PERCENTAGE]
