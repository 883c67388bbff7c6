"""Settings that override a file's values: ``load=0.9``, ``servers.groups.1.speed=0.5``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from typing import cast

import msgspec
from msgspec import inspect, json

from loadwise._numbers import shown
from loadwise._tables.messages import Route
from loadwise._tables.schema import (
    FileLayout,
    Place,
    Raw,
    child,
    fields_of,
    is_list,
    kinds_of,
    named_values,
    table_of,
)
from loadwise.errors import nearest

__all__ = ["apply_setting", "as_settings", "check_text", "is_to_blame"]


def as_settings(settings: object) -> list[str]:
    """Return settings as a list.

    Raises:
        TypeError: They are no list of texts.
    """
    if isinstance(settings, str | bytes) or not isinstance(settings, Iterable):
        raise TypeError(
            f"settings is {shown(settings)}; it must be a list of texts, such as ['name=search']"
        )
    found = list(cast("Iterable[object]", settings))
    for each in found:
        if not isinstance(each, str):
            raise TypeError(
                f"settings has {shown(each)}; each must be a text, such as 'name=search'"
            )
    return cast("list[str]", found)


def apply_setting(raw: dict[str, Raw], layout: FileLayout, setting: str) -> str:
    """Change a file that has not been validated yet, and return the key that was set.

    Tables and lists that the file leaves out are filled in with what they are by default, so
    that one value in them can be set. A new ``kind`` keeps what it has in common with the old one.

    Args:
        raw: What the file holds; it is changed.
        layout: The layout of such files.
        setting: Dotted keys, ``=``, and a TOML value or plain text. ``none`` takes a value back
            that may be missing.

    Raises:
        ValueError: There is no such key.
    """
    check_text(setting)
    dotted, equals, text = setting.partition("=")
    dotted = dotted.strip()
    try:
        if not equals:
            raise ValueError("a setting is a key, = and a value, such as load=0.9")  # noqa: TRY301
        *path, last = dotted.split(".")
        holder, place = _descend(raw, layout, path)
        where = ".".join(path) or f"a {layout.noun}"
        key = _key(holder, place, last, where)
        target = child(place, holder, key)
        if key == "kind" and kinds_of(place):
            _change_kind(holder, place, text.strip())
        else:
            holder[key] = _value(text.strip(), target)
    except ValueError as error:
        raise ValueError(f"--set {setting}: {error}") from None
    return dotted


def is_to_blame(dotted: str, path: Route) -> bool:
    """Tell whether a setting, or a lack of its kind's keys, is what is wrong at a path.

    Args:
        dotted: The key that was set.
        path: The place that is wrong.
    """
    wrong = ".".join(map(str, path))
    return f"{wrong}.".startswith(f"{dotted}.") or dotted == f"{wrong}.kind"


def check_text(text: str) -> None:
    """Check that a text can be written, which one with half a character cannot.

    Raises:
        ValueError: It cannot.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{text!r} is no text: {error.reason}") from None


def _descend(raw: dict[str, Raw], layout: FileLayout, path: list[str]) -> tuple[Raw, Place]:
    """Return the table or list that a path leads to, making it where it is missing."""
    holder: Raw = raw
    place = layout.root
    for depth, part in enumerate(path):
        key = _key(holder, place, part, ".".join(path[:depth]) or f"a {layout.noun}")
        inner = child(place, holder, key)
        if isinstance(key, str) and key not in holder:
            holder[key] = _default(table_of(place, holder), key)
            if holder[key] is None and inner and (kinds_of(inner) or table_of(inner, {})):
                holder[key] = {}
        if inner is None or not isinstance(holder[key], dict | list):
            raise ValueError(f"{'.'.join(path[: depth + 1])} has no keys of its own")
        holder, place = holder[key], inner
    return holder, place


def _key(holder: Raw, place: Place, part: str, where: str) -> str | int:
    """Return the key or the index that is meant by a part of a path."""
    if is_list(holder):
        indices = [str(index) for index in range(len(holder))]
        if part not in indices:
            known = f"has the items {', '.join(indices)[:60]}" if indices else "is empty"
            raise ValueError(f"there is no item {part!r}: {where} {known}")
        return int(part)
    if part == "kind" and kinds_of(place):
        return part
    if named_values(place):
        return part
    table = table_of(place, holder)
    if table is None:
        kinds = ", ".join(sorted(kinds_of(place)))
        raise ValueError(f"{where} has no known kind: set {where}.kind first (there is {kinds})")
    known_keys = [*fields_of(table), *(["kind"] if kinds_of(place) else [])]
    if part not in known_keys:
        kind = f" of kind {table.tag!r}" if table.tag else ""
        raise ValueError(
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
