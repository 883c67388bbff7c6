"""Nodes written down in a file: a list of ids, or of tables, read as `Endpoint` objects.

The rules are those of the ``nodes`` of every TOML or JSON file that loadwise reads, and the errors
name the file, the place, the value and what may stand there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, cast

from loadwise._numbers import number, shown
from loadwise._text import visible
from loadwise._turns import in_turns
from loadwise.errors import LoadwiseError, nearest
from loadwise.nodes import Endpoint

__all__ = ["LONGEST_TEXT", "NODE_KEYS", "NodeListError", "nodes_in", "text_fault"]

NODE_KEYS: Final = ("id", "weight", "zone", "priority", "tags")
"""Keys that the table of a node may have."""
LONGEST_TEXT: Final = 1000
"""Most characters of an id, a zone or a tag; a name of DNS has 253 at most."""


class NodeListError(LoadwiseError, ValueError):
    """A list of nodes is not as it must be; the message says where and what."""


def nodes_in(value: object, *, origin: str = "", place: str = "nodes") -> tuple[Endpoint, ...]:
    """Return the nodes that a list names.

    An entry is an id, such as ``"10.0.0.1:8080"``, or a table with the ``id`` and any of
    ``weight`` (a number, 0 for drained, 1 by default), ``zone``, ``priority`` (a whole number, 0
    first and by default) and ``tags`` (texts by name).

    Args:
        value: The list, as ``tomllib`` or ``json`` reads it. It may be empty.
        origin: The file, or whatever names it in messages; none by default.
        place: Where in the file the list stands.

    Returns:
        One `Endpoint` for each entry, in order.

    Raises:
        NodeListError: It is no list, or an entry is wrong or has the id of another.

    Thread-safety: it shares nothing.

    Cost: O(n).

    Example:
        >>> nodes_in(["a:80", {"id": "b:80", "weight": 2, "zone": "eu-1"}])[1].weight
        2
        >>> nodes_in([{"id": "b:80", "wieght": 2}], origin="fleet.toml")
        Traceback (most recent call last):
        ...
        loadwise.node_list.NodeListError: fleet.toml: nodes[0] has no key 'wieght'; did you mean \
'weight'? (the keys are id, weight, zone, priority, tags)
    """
    try:
        return _read(value, place)
    except NodeListError as error:
        if not origin:
            raise
        raise NodeListError(f"{origin}: {error}") from None


def text_fault(text: str) -> str | None:
    """Return what is wrong with a text as an id, a zone or a tag; ``None`` if nothing is.

    Example:
        >>> text_fault("10.0.0.1:80"), text_fault("a b")
        (None, "has ' ' at position 1, and may have neither spaces nor control characters")
    """
    if not text:
        return "is empty"
    if len(text) > LONGEST_TEXT:
        return f"has {len(text)} characters, and may have {LONGEST_TEXT} at most"
    if text.isprintable() and " " not in text:
        return None
    for position, character in enumerate(text):
        if character.isspace() or visible(character) != character:
            return (
                f"has {character!r} at position {position}, and may have neither spaces nor "
                f"control characters"
            )
    return None


def _read(value: object, place: str) -> tuple[Endpoint, ...]:
    if not isinstance(value, (list, tuple)):
        raise NodeListError(
            f"{place} is {shown(value)}; it must be a list of ids, such as "
            f'["10.0.0.1:8080", "10.0.0.2:8080"], or of tables with an id'
        )
    places: dict[object, int] = {}
    nodes: list[Endpoint] = []
    for index, entry in enumerate(in_turns(cast("Sequence[object]", value))):
        node = _node(entry, f"{place}[{index}]")
        first = places.setdefault(node.id, index)
        if first != index:
            raise NodeListError(
                f"{place}[{index}] has the id {node.id!r}, as {place}[{first}] has; each node "
                f"needs an id of its own"
            )
        nodes.append(node)
    return tuple(nodes)


def _node(entry: object, place: str) -> Endpoint:
    if isinstance(entry, str):
        return Endpoint(_text(entry, place))
    if not isinstance(entry, Mapping):
        raise NodeListError(
            f'{place} is {shown(entry)}; it must be an id in quotes, such as "10.0.0.1:8080", or '
            f"a table with an id"
        )
    table = cast("Mapping[object, object]", entry)
    for key in table:
        if key not in NODE_KEYS:
            raise NodeListError(
                f"{place} has no key {shown(key)}{nearest(key, NODE_KEYS)} (the keys are "
                f"{', '.join(NODE_KEYS)})"
            )
    if "id" not in table:
        raise NodeListError(f'{place} has no id; give it one, such as id = "10.0.0.1:8080"')
    zone = table.get("zone")
    return Endpoint(
        _text(table["id"], f"{place}.id"),
        weight=_weight(table.get("weight", 1), f"{place}.weight"),
        zone=None if zone is None else _text(zone, f"{place}.zone"),
        priority=_priority(table.get("priority", 0), f"{place}.priority"),
        tags=_tags(table.get("tags", {}), f"{place}.tags"),
    )


def _text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise NodeListError(f'{place} is {shown(value)}; it must be text in quotes, such as "a-1"')
    fault = text_fault(value)
    if fault is not None:
        raise NodeListError(f"{place} is {shown(value)}, which {fault}")
    return value


def _weight(value: object, place: str) -> float:
    try:
        weight = number(place, value)
    except (TypeError, ValueError):
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise NodeListError(
            f"{place} is {shown(value)}; it must be a finite number, at least 0 (0 means drained)"
        )
    return weight


def _priority(value: object, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise NodeListError(
            f"{place} is {shown(value)}; it must be a whole number, at least 0 (0 is first)"
        )
    return value


def _tags(value: object, place: str) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise NodeListError(
            f'{place} is {shown(value)}; it must be a table of texts, such as {{rack = "r1"}}'
        )
    tags: dict[str, str] = {}
    for key, text in cast("Mapping[object, object]", value).items():
        if not isinstance(key, str) or not key:
            raise NodeListError(f"{place} has the name {shown(key)}; a tag's name must be text")
        if not isinstance(text, str):
            raise NodeListError(
                f"{place}.{key} is {shown(text)}; it must be text, so put it in quotes"
            )
        for part in (key, text):
            if visible(part) != part or len(part) > LONGEST_TEXT:
                raise NodeListError(
                    f"{place} has the tag {shown(part)}; a tag may have neither control "
                    f"characters nor more than {LONGEST_TEXT} characters"
                )
        tags[key] = text
    return tags
