"""Messages about a scenario that does not validate: the value, the place, the remedy.

msgspec says where it stopped; what stands there and what may stand there is looked up.
"""

from __future__ import annotations

import json
import re

from loadwise.errors import nearest
from loadwise.simulation.scenario.schema import (
    Place,
    Raw,
    child,
    described,
    fields_of,
    is_table,
    kinds_of,
    root,
    table_of,
)

__all__ = ["Route", "explained", "path_in"]

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


def explained(scenario: Raw, path: Route, message: str) -> str:
    """Return what is wrong at a place of a scenario.

    Args:
        scenario: What its file holds.
        path: The place.
        message: What msgspec says, for want of something better.
    """
    value, place = scenario, root()
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
    where = _written(path) or "the scenario"
    if is_table(value) and (kinds_of(place) or table_of(place, value)):
        return _fault_of_table(value, place, where) or message
    return f"{where} is {_shown(value)}; it must be {described(place)}"


def _fault_of_table(value: dict[str, Raw], place: Place, where: str) -> str | None:
    kinds = kinds_of(place)
    if kinds and "kind" not in value:
        return f"{where} needs a kind: {', '.join(sorted(kinds))}"
    table = table_of(place, value)
    if table is None:
        return f"{where} is a table; it must be {described(place)}"
    fields = fields_of(table)
    kind = f" of kind {table.tag!r}" if kinds else ""
    for key in value:
        if key not in fields and not (kinds and key == "kind"):
            known = ", ".join(fields)
            return f"{where}{kind} has no key {key!r}{nearest(key, fields)} (there is {known})"
    missing = [
        f"{key!r}, {described(field.type)}"
        for key, field in fields.items()
        if field.required and key not in value
    ]
    return f"{where}{kind} needs {' and '.join(missing)}" if missing else None


def _written(path: Route) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")


def _shown(value: Raw) -> str:
    """Return a value as TOML would have it, nearly, and not too much of it."""
    if value is None:
        return "none"
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 - fits a line
