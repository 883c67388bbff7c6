"""EndpointSlices of a service of Kubernetes, joined to one list of endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, cast

from loadwise._numbers import shown
from loadwise._turns import in_turns
from loadwise.discovery.addresses import Dropped, address
from loadwise.discovery.source import MOST_NODES, Found, SourceError
from loadwise.errors import nearest
from loadwise.node_list import text_fault
from loadwise.nodes import Endpoint

__all__ = ["Port", "joined"]

_Table = Mapping[str, Any]
Port = str | int | None
"""A port of a service by its name, a number, or ``None`` for the only one."""

_READY: Final = 2
_ENDING: Final = 1
_FAMILIES: Final = ("IPv4", "IPv6", "FQDN")


class _One(NamedTuple):
    """An endpoint of a slice.

    Attributes:
        standing: `_READY`, `_ENDING` if it still serves what it has, else 0.
        family: The kind of its address.
        pod: Tells one pod from another; ``None`` if nobody says.
        node: The endpoint.
    """

    standing: int
    family: str
    pod: str | None
    node: Endpoint


def joined(slices: Iterable[_Table], port: Port, service: str) -> Found[Endpoint]:
    """Return the nodes of a service: who is ready, and who is ending but was a node. O(n log n).

    An endpoint may stand in two slices for a while; the better of its standings counts. A pod
    with addresses of two families is one node, by its address of IPv4. If nobody is ready, those
    that are ending and still serve are asked, as kube-proxy does.

    Raises:
        SourceError: There are too many, or it is not clear which port is meant.
    """
    dropped = Dropped("endpoints")
    tables = [*slices]
    count = sum(len(_entries(table)) for table in tables)
    if count > MOST_NODES:
        raise SourceError(f"{service} has {count:,} endpoints; {MOST_NODES:,} are the most allowed")
    best: dict[str, _One] = {}
    for one in _all(tables, _Ports(tables, port, service), dropped):
        identity = str(one.node.id)
        known = best.get(identity)
        if known is None or one.standing > known.standing:
            best[identity] = one
    nodes = _one_per_pod(best)
    complaints = dropped.complaints()
    ready = [one.node for one in nodes if one.standing == _READY]
    ending = [one.node for one in nodes if one.standing == _ENDING]
    if not ready and ending:
        complaints["ending"] = f"none is ready, so {len(ending)} that are ending are asked"
        return Found(tuple(ending), complaints=complaints)
    ids = frozenset(node.id for node in ending)
    return Found((*ready, *ending), draining=ids, complaints=complaints)


def _one_per_pod(best: Mapping[str, _One]) -> list[_One]:
    """Return the endpoints by id, those of one pod once."""
    families: dict[tuple[str, int], str] = {}
    for one in best.values():
        if one.pod is not None:
            key = (one.pod, one.standing)
            rank = _FAMILIES.index(one.family)
            if rank < _FAMILIES.index(families.get(key, _FAMILIES[-1])):
                families[key] = one.family
    return [
        one
        for _, one in sorted(best.items())
        if one.pod is None or families.get((one.pod, one.standing), one.family) == one.family
    ]


def _all(slices: Iterable[_Table], ports: _Ports, dropped: Dropped) -> Iterator[_One]:
    for table in slices:
        family = table.get("addressType")
        if family not in _FAMILIES:
            dropped.add(f"a slice of the type {shown(family)}")
            continue
        port = ports.of(table)
        for entry in in_turns(_entries(table)):
            one = _one(entry, family, port)
            if one is None:
                dropped.add(_told(entry, port))
            elif one.standing:
                yield one


def _entries(table: _Table) -> list[object]:
    entries = table.get("endpoints")
    return cast("list[object]", entries) if isinstance(entries, list) else []


def _one(entry: object, family: str, port: object) -> _One | None:
    if not isinstance(entry, Mapping):
        return None
    table = cast("_Table", entry)
    addresses = table.get("addresses")
    first = (
        cast("list[object]", addresses)[0] if isinstance(addresses, list) and addresses else None
    )
    identity = address(first, port)
    if identity is None:
        return None
    conditions = _inner(table, "conditions")
    ready, serving = conditions.get("ready"), conditions.get("serving")
    ending = conditions.get("terminating") is True
    # What is not said counts as ready, and as serving what is ready, says the API. One that is
    # ending is ready only if the service publishes those that are not, and then it says so.
    if ready is True or (ready is None and not ending):
        standing = _READY
    else:
        serves = ready is not False if serving is None else serving is True
        standing = _ENDING if ending and serves else 0
    target = _inner(table, "targetRef")
    uid, name, host = target.get("uid"), target.get("name"), table.get("nodeName")
    told = {"pod": name, "node": host, "hostname": table.get("hostname")}
    tags = {key: str(value) for key, value in told.items() if _is_text(value)}
    zone = table.get("zone")
    node = Endpoint(identity, zone=str(zone) if _is_text(zone) else None, tags=tags)
    return _One(standing, family, uid if isinstance(uid, str) and uid else None, node)


class _Ports:
    """Choice of a port in each slice.

    Args:
        slices: All slices.
        port: What is wanted.
        service: The service, for errors.

    Raises:
        SourceError: No slice has it, or a slice has several and none is wanted.
    """

    def __init__(self, slices: Iterable[_Table], port: Port, service: str) -> None:
        self._port = port
        self._service = service
        if not isinstance(port, str):
            return
        names = {str(each.get("name") or "") for table in slices for each in _ports_in(table)}
        if names and port not in names:
            raise SourceError(
                f"{service} has no port {port!r}{nearest(port, names)} (the ports are "
                f"{', '.join(map(shown, sorted(names)))})"
            )

    def of(self, table: _Table) -> object:
        """Return the number of the port in a slice; whatever is none if there is none."""
        if isinstance(self._port, int):
            return self._port
        ports = _ports_in(table)
        if self._port is not None:
            return next((p.get("port") for p in ports if p.get("name") == self._port), None)
        if len(ports) > 1:
            names = ", ".join(shown(each.get("name") or each.get("port")) for each in ports)
            raise SourceError(f"{self._service} has the ports {names}: say which by port=")
        return ports[0].get("port") if ports else None


def _ports_in(table: _Table) -> list[_Table]:
    ports = table.get("ports")
    if not isinstance(ports, list):
        return []
    tables = [
        cast("_Table", each) for each in cast("list[object]", ports) if isinstance(each, Mapping)
    ]
    return [each for each in tables if each.get("protocol", "TCP") == "TCP"]


def _inner(table: _Table, key: str) -> _Table:
    inner = table.get(key)
    return cast("_Table", inner) if isinstance(inner, Mapping) else {}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and text_fault(value) is None


def _told(entry: object, port: object) -> str:
    addresses = cast("_Table", entry).get("addresses") if isinstance(entry, Mapping) else entry
    return f"{shown(addresses)} with port {shown(port)}"
