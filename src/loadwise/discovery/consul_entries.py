"""Instances of a service, as Consul's ``/v1/health/service`` lists them, as endpoints."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

from loadwise._numbers import finite, shown
from loadwise._turns import in_turns
from loadwise.discovery.addresses import Dropped, address
from loadwise.discovery.source import MOST_NODES, SourceError
from loadwise.node_list import text_fault
from loadwise.nodes import Endpoint

__all__ = ["endpoints"]

_Table = Mapping[str, Any]


def endpoints(answer: object) -> tuple[tuple[Endpoint, ...], dict[str, str]]:
    """Return the nodes of an answer, by id, and what there is to complain about. O(n log n).

    Raises:
        SourceError: It is no list, or too long.

    Example:
        >>> entry = {"Node": {"Address": "10.0.0.1"}, "Service": {"Address": "", "Port": 80}}
        >>> endpoints([entry])[0][0].id
        '10.0.0.1:80'
    """
    if not isinstance(answer, list):
        raise SourceError(f"the answer is {shown(answer)}; it must be a list: is this Consul?")
    entries = cast("list[object]", answer)
    if len(entries) > MOST_NODES:
        raise SourceError(f"it lists {len(entries):,} instances; {MOST_NODES:,} are the most")
    dropped = Dropped("instances")
    found: dict[str, Endpoint] = {}
    for entry in in_turns(entries):
        service, host = _table(entry, "Service"), _table(entry, "Node")
        place = service.get("Address") or host.get("Address")
        identity = address(place, service.get("Port"))
        if identity is None:
            dropped.add(f"{shown(place)} with port {shown(service.get('Port'))}")
        else:
            found.setdefault(identity, _endpoint(identity, service, host))
    return tuple(found[identity] for identity in sorted(found)), dropped.complaints()


def _endpoint(identity: str, service: _Table, host: _Table) -> Endpoint:
    meta = dict(_texts(service.get("Meta")))
    tags = {**dict(_tags(service.get("Tags"))), **meta}
    zones = (
        _table(service, "Locality").get("Zone"),
        _table(host, "Locality").get("Zone"),
        meta.get("zone"),
        dict(_texts(host.get("Meta"))).get("zone"),
    )
    zone = next((each for each in zones if _is_text(each)), None)
    weights = (meta.get("weight"), _table(service, "Weights").get("Passing"))
    weight = next((each for each in map(_weight, weights) if each is not None), 1)
    return Endpoint(identity, weight=weight, zone=zone, tags=tags)


def _table(entry: object, key: str) -> _Table:
    inner = cast("_Table", entry).get(key) if isinstance(entry, Mapping) else None
    return cast("_Table", inner) if isinstance(inner, Mapping) else {}


def _texts(table: object) -> Iterator[tuple[str, str]]:
    if isinstance(table, Mapping):
        for key, value in cast("Mapping[object, object]", table).items():
            if isinstance(key, str) and isinstance(value, str):
                yield key, value


def _tags(tags: object) -> Iterator[tuple[str, str]]:
    if isinstance(tags, list):
        for tag in cast("list[object]", tags):
            if isinstance(tag, str):
                name, _, value = tag.partition("=")
                yield name, value


def _is_text(value: object) -> bool:
    return isinstance(value, str) and text_fault(value) is None


def _weight(given: object) -> float | None:
    """Return a weight, if it is one."""
    try:
        weight = finite("weight", float(given) if isinstance(given, str) else given)
    except (TypeError, ValueError):
        return None
    return weight if 0 <= weight < math.inf else None
