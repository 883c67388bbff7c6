"""Settings that override a scenario's values: ``load=0.9``, ``servers.groups.1.speed=0.5``."""

from __future__ import annotations

import re
import tomllib

import msgspec
from msgspec import inspect, json

from loadwise.errors import nearest
from loadwise.simulation.errors import ScenarioError
from loadwise.simulation.scenario.schema import (
    Place,
    Raw,
    child,
    fields_of,
    is_list,
    kinds_of,
    root,
    table_of,
)

__all__ = ["apply_setting", "check_text"]


def apply_setting(scenario: dict[str, Raw], setting: str) -> str:
    """Change a scenario that has not been validated yet, and return the key that was set.

    Tables and lists that the scenario leaves out are filled in with what they are by default, so
    that one value in them can be set. A new ``kind`` keeps what it has in common with the old one.

    Args:
        scenario: What its TOML file holds; it is changed.
        setting: Dotted keys, ``=``, and a TOML value or plain text. ``none`` takes a value back
            that may be missing.

    Raises:
        ScenarioError: There is no such key.
    """
    check_text(setting)
    dotted, equals, text = setting.partition("=")
    dotted = dotted.strip()
    try:
        if not equals:
            raise ScenarioError("a setting is a key, = and a value, such as load=0.9")  # noqa: TRY301
        *path, last = dotted.split(".")
        holder, place = _descend(scenario, path)
        where = ".".join(path) or "a scenario"
        key = _key(holder, place, last, where)
        target = child(place, holder, key)
        if key == "kind" and kinds_of(place):
            _change_kind(holder, place, text.strip())
        else:
            holder[key] = _value(text.strip(), target)
    except ScenarioError as error:
        raise ScenarioError(f"--set {setting}: {error}") from None
    return dotted


def check_text(text: str) -> None:
    """Check that a text can be written, which one with half a character cannot.

    Raises:
        ScenarioError: It cannot.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ScenarioError(f"{text!r} is no text: {error.reason}") from None


def _descend(scenario: dict[str, Raw], path: list[str]) -> tuple[Raw, Place]:
    """Return the table or list that a path leads to, making it where it is missing."""
    holder: Raw = scenario
    place = root()
    for depth, part in enumerate(path):
        key = _key(holder, place, part, ".".join(path[:depth]) or "a scenario")
        inner = child(place, holder, key)
        if isinstance(key, str) and key not in holder:
            table = table_of(place, holder)
            holder[key] = _default(table, key)
        if inner is None or not isinstance(holder[key], dict | list):
            raise ScenarioError(f"{'.'.join(path[: depth + 1])} has no keys of its own")
        holder, place = holder[key], inner
    return holder, place


def _key(holder: Raw, place: Place, part: str, where: str) -> str | int:
    """Return the key or the index that is meant by a part of a path."""
    if is_list(holder):
        indices = [str(index) for index in range(len(holder))]
        if part not in indices:
            known = f"has the items {', '.join(indices)[:60]}" if indices else "is empty"
            raise ScenarioError(f"there is no item {part!r}: {where} {known}")
        return int(part)
    if part == "kind" and kinds_of(place):
        return part
    table = table_of(place, holder)
    if table is None:
        raise ScenarioError(f"{where} has no known kind: set {where}.kind first")
    known_keys = [*fields_of(table), *(["kind"] if kinds_of(place) else [])]
    if part not in known_keys:
        kind = f" of kind {table.tag!r}" if table.tag else ""
        raise ScenarioError(
            f"{where}{kind} has no {part!r}{nearest(part, known_keys)} (it has "
            f"{', '.join(known_keys)})"
        )
    return part


def _default(table: inspect.StructType | None, key: str) -> Raw:
    default = fields_of(table)[key].default if table else msgspec.NODEFAULT
    # By way of JSON, which makes lists of tuples.
    return {} if default is msgspec.NODEFAULT else json.decode(json.encode(default))


def _change_kind(table: dict[str, Raw], place: Place, text: str) -> None:
    kind = _value(text, None)
    layout = table_of(place, {"kind": kind})
    if layout is not None:
        for key in set(table) - set(fields_of(layout)):
            del table[key]
    table["kind"] = kind


def _value(text: str, place: Place | None) -> Raw:
    """Return what a text means: a TOML value, or else itself."""
    if text == "none" and _may_be_missing(place):
        return None
    if re.match(r"[+-]?\.[0-9]", text):
        text = text.replace(".", "0.", 1)
    try:
        document = tomllib.loads(f"value = {text}")
    except (RecursionError, ValueError):
        return text
    # A text of several lines could hold other keys.
    return document["value"] if len(document) == 1 else text


def _may_be_missing(place: Place | None) -> bool:
    return isinstance(place, inspect.UnionType) and any(
        isinstance(each, inspect.NoneType) for each in place.types
    )
