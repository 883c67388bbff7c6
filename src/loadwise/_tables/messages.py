"""Messages about a file that does not validate: the value, the place, the remedy.

msgspec says where it stopped; what stands there and what may stand there is looked up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from loadwise._tables.schema import (
    FileLayout,
    Place,
    Raw,
    child,
    described,
    fields_of,
    is_table,
    kinds_of,
    table_of,
)
from loadwise.errors import nearest

__all__ = ["Route", "explained", "faults_of_table", "path_in"]

Route = tuple[str | int, ...]
"""The keys and indices that lead to a value."""


def path_in(message: str) -> Route:
    """Return the place that a message of msgspec names.

    Example:
        >>> path_in("Expected `float` >= 0.0 - at `$.faults[0].at`")
        ('faults', 0, 'at')
    """
    found = re.search(r" - at `\$([^`]*)`$", message)
    parts: list[tuple[str, str]] = re.findall(r"\.([^.\[]+)|\[(\d+)\]", found[1]) if found else []
    return tuple(int(index) if index else key for key, index in parts)


def explained(raw: Raw, layout: FileLayout, path: Route, message: str) -> str:
    """Return what is wrong at a place of a file.

    Args:
        raw: What the file holds.
        layout: The layout of such files.
        path: The place.
        message: What msgspec says, for want of something better.
    """
    value, place = raw, layout.root
    for key in path:
        kinds = kinds_of(place)
        inner = child(place, value, key)
        try:
            value = value[key]
        except LookupError:
            # Not a place but a part of a strange key that the message tells of.
            return message
        if key == "kind" and kinds:
            known = ", ".join(sorted(kinds))
            return f"{_written(path)} is {_shown(value)}{nearest(value, kinds)} (there is {known})"
        if inner is None:
            return message
        place = inner
    if is_table(value) and (kinds_of(place) or table_of(place, value)):
        return next(faults_of_table(value, place, path, layout.noun), message)
    where = _written(path) or f"the {layout.noun}"
    return f"{where} is {_shown(value)}; it must be {described(place)}"


def faults_of_table(value: dict[str, Raw], place: Place, path: Route, noun: str) -> Iterator[str]:
    """Yield what is wrong with the keys of a table: those that are strange, or are missing.

    Args:
        value: The table.
        place: The place where it stands.
        path: The way there.
        noun: What messages call the whole file.
    """
    where = _written(path) or f"the {noun}"
    kinds = kinds_of(place)
    if kinds and "kind" not in value:
        yield f"{where} needs a kind: {', '.join(sorted(kinds))}"
        return
    table = table_of(place, value)
    if table is None:
        yield f"{where} is a table; it must be {described(place)}"
        return
    fields = fields_of(table)
    kind = f" of kind {table.tag!r}" if kinds else ""
    for key in value:
        if key not in fields and not (kinds and key == "kind"):
            known = ", ".join(fields)
            yield f"{where}{kind} has no key {key!r}{nearest(key, fields)} (there is {known})"
    missing = [
        f"{key!r}, {described(field.type)}"
        for key, field in fields.items()
        if field.required and key not in value
    ]
    if missing:
        yield f"{where}{kind} needs {' and '.join(missing)}"


def _written(path: Route) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")


def _shown(value: Raw) -> str:
    """Return a value as TOML would have it, nearly, and not too much of it."""
    if value is None:
        return "none"
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 - fits a line
