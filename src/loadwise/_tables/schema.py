"""The layout of a file of tables, to find one's way in it and to say what belongs where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeGuard, cast

from msgspec import Struct, inspect

__all__ = [
    "FileLayout",
    "Place",
    "Raw",
    "child",
    "described",
    "fields_of",
    "is_list",
    "is_share",
    "is_table",
    "kinds_of",
    "named_values",
    "table_of",
]

Place = inspect.Type
"""Type of the value at some place of a file."""

Raw = Any
"""Content of a TOML file, before it has been validated."""

_NUMBERS = {2: "two", 3: "three"}


def is_table(value: Raw) -> TypeGuard[dict[str, Raw]]:
    """Tell whether a value is a table."""
    return isinstance(value, dict)


def is_list(value: Raw) -> TypeGuard[list[Raw]]:
    """Tell whether a value is a list."""
    return isinstance(value, list)


@dataclass(frozen=True, slots=True)
class FileLayout:
    """FileLayout of one kind of file.

    Attributes:
        record: The record that such a file becomes.
        noun: What messages call one, such as ``"scenario"``.
    """

    record: type[Struct]
    noun: str

    @property
    def root(self) -> Place:
        """The place of the whole file."""
        return _type_info(self.record)


@cache
def _type_info(record: type[Struct]) -> Place:
    return inspect.type_info(record)


def fields_of(table: inspect.StructType) -> dict[str, inspect.Field]:
    """Return the keys of a table, by name."""
    return {field.encode_name: field for field in table.fields}


def kinds_of(place: Place) -> dict[str, inspect.StructType]:
    """Return the kinds of table that a place takes; none if it does not take several."""
    tables = [each for each in _choices(place) if isinstance(each, inspect.StructType)]
    return {str(table.tag): table for table in tables if table.tag is not None}


def table_of(place: Place, value: Raw) -> inspect.StructType | None:
    """Return the layout of a table at this place, by its kind where there are several."""
    if kinds := kinds_of(place):
        kind = value.get("kind") if is_table(value) else None
        return kinds.get(kind) if isinstance(kind, str) else None
    tables = [each for each in _choices(place) if isinstance(each, inspect.StructType)]
    return tables[0] if tables else None


def child(place: Place, value: Raw, key: str | int) -> Place | None:
    """Return the place of a table's key or a list's item, if there is one."""
    if isinstance(key, str):
        table = table_of(place, value)
        field = fields_of(table).get(key) if table else None
        return field.type if field else named_values(place)
    for each in _choices(place):
        if isinstance(each, inspect.VarTupleType):
            return each.item_type
        if isinstance(each, inspect.TupleType) and key < len(each.item_types):
            return each.item_types[key]
    return None


def named_values(place: Place) -> Place | None:
    """Return the place of the values of a table whose keys are free; ``None`` if they are not."""
    free = (each.value_type for each in _choices(place) if isinstance(each, inspect.DictType))
    return next(free, None)


def is_share(place: Place) -> bool:
    """Return whether a number at this place is a share of something.

    Example:
        >>> from loadwise._tables.records import Health
        >>> health = fields_of(table_of(FileLayout(Health, "health table").root, {}))
        >>> is_share(health["jitter"].type), is_share(health["probe_interval"].type)
        (True, False)
    """
    return any(
        isinstance(each, inspect.Metadata)
        and isinstance(each.type, inspect.FloatType)
        and _description(each).startswith("a share")
        for each in _choices(place, plain=False)
    )


def described(place: Place) -> str:
    """Return what may stand at a place, with its unit and its range, in words.

    Example:
        >>> from loadwise._tables.records import Health
        >>> health = table_of(FileLayout(Health, "health table").root, {})
        >>> print(described(fields_of(health)["failure_threshold"].type))
        a whole number from 1 to 1,000
    """
    if kinds := kinds_of(place):
        names = " or ".join(f'"{kind}"' for kind in sorted(kinds))
        return f"a table whose kind is {names}"
    return ", or ".join(_described(each) for each in _choices(place, plain=False))


def _choices(place: Place, *, plain: bool = True) -> Iterable[Place]:
    if isinstance(place, inspect.UnionType):
        for each in place.types:
            if not isinstance(each, inspect.NoneType):
                yield from _choices(each, plain=plain)
    elif isinstance(place, inspect.Metadata) and plain:
        yield from _choices(place.type)
    else:
        yield place


def _described(place: Place) -> str:
    if isinstance(place, inspect.Metadata):
        return " ".join(filter(None, (_description(place), _range(place.type))))
    if isinstance(place, inspect.StrType):
        return "a text in quotes"
    return "true or false" if isinstance(place, inspect.BoolType) else _described_container(place)


def _described_container(place: Place) -> str:
    match place:
        case inspect.VarTupleType():
            return f"a list, each item {described(place.item_type)}"
        case inspect.TupleType():
            count = _NUMBERS.get(len(place.item_types), len(place.item_types))
            return f"a list of {count}, each {described(place.item_types[0])}"
        case inspect.DictType():
            return f"a table, each value {described(place.value_type)}"
        case _:
            return "a table"


def _description(place: inspect.Metadata) -> str:
    # What msgspec calls a dict is one of texts here.
    schema = cast("dict[str, str]", place.extra_json_schema)  # pyright: ignore[reportUnknownMemberType]
    return schema.get("description", "")


def _range(place: Place) -> str:
    if not isinstance(place, inspect.FloatType | inspect.IntType):
        return ""
    if place.le is not None and place.le == place.ge:
        return f"({place.le:g})"
    least = f"from {place.ge:g}" if place.ge is not None else f"above {place.gt:g}"
    if place.le is None:
        return f"{least} on"
    most = f"{place.le:,.15g}"
    return f"{least} to {most}" if place.ge is not None else f"{least} and at most {most}"
