"""Search for all that is wrong with a file, where validation itself ends at the first."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from loadwise._tables.messages import Route, explained, faults_of_table
from loadwise._tables.schema import (
    FileLayout,
    Place,
    Raw,
    child,
    fields_of,
    is_list,
    is_table,
    kinds_of,
    named_values,
    table_of,
)

__all__ = ["problems_in"]


def problems_in(raw: dict[str, Raw], layout: FileLayout) -> Iterator[tuple[Route, str]]:
    """Yield all that is wrong with the values of a file: where, and what.

    Args:
        raw: What the file holds.
        layout: The layout of such files.

    Example:
        >>> from loadwise._tables.records import Health
        >>> health = {"enabled": 1, "jitter": 2, "jiter": 0.5}
        >>> for _, text in problems_in(health, FileLayout(Health, "health table")):
        ...     print(text[:59])
        the health table has no key 'jiter'; did you mean 'jitter'?
        enabled is 1; it must be true or false
        jitter is 2; it must be a share from 0 to 1
    """
    yield from _Search(raw, layout).problems()


class _Search:
    """A walk through all values of a file."""

    def __init__(self, raw: dict[str, Raw], layout: FileLayout) -> None:
        self._raw = raw
        self._layout = layout

    def problems(self) -> Iterator[tuple[Route, str]]:
        return self._in(self._raw, self._layout.root, self._layout.record, ())

    def _in(self, value: Raw, place: Place, kind: Any, path: Route) -> Iterator[tuple[Route, str]]:  # noqa: ANN401 - an annotation
        free, items = named_values(place), _item_of(kind)
        if is_table(value) and (kinds_of(place) or table_of(place, value)):
            yield from self._in_table(value, place, path)
        elif is_table(value) and free is not None:
            for key, each in value.items():
                yield from self._in(each, free, get_args(kind)[1], (*path, key))
        elif is_list(value) and items is not None and (item := child(place, value, 0)):
            for index, each in enumerate(value):
                yield from self._in(each, item, items, (*path, index))
        else:
            try:
                msgspec.convert(value, kind)
            except msgspec.ValidationError as error:
                yield path, explained(self._raw, self._layout, path, str(error))

    def _in_table(
        self, value: dict[str, Raw], place: Place, path: Route
    ) -> Iterator[tuple[Route, str]]:
        table = table_of(place, value)
        if table is None and "kind" in value:
            yield (*path, "kind"), explained(self._raw, self._layout, (*path, "kind"), "")
            return
        for text in faults_of_table(value, place, path, self._layout.noun):
            yield path, text
        if table is None:
            return
        annotations = _annotations(table.cls)
        for key, field in fields_of(table).items():
            if key in value:
                yield from self._in(value[key], field.type, annotations[key], (*path, key))


@cache
def _annotations(record: type) -> dict[str, Any]:
    return get_type_hints(record, include_extras=True)


def _item_of(kind: Any) -> Any:  # noqa: ANN401 - annotations
    """Return the annotation of a list's items, if a list of any length may stand there."""
    if get_origin(kind) is tuple and get_args(kind)[1:] == (...,):
        return get_args(kind)[0]
    for each in get_args(kind):
        item = _item_of(each)
        if item is not None:
            return item
    return None
