"""Source that is a name of DNS: its addresses, or its servers with their ports and weights."""

from __future__ import annotations

import math
import socket
from importlib.util import find_spec
from typing import Any, Final, Protocol

from loadwise._callables import refuse_async_methods
from loadwise._numbers import shown
from loadwise.discovery.addresses import Dropped, as_port
from loadwise.discovery.dns_records import Record, endpoints
from loadwise.discovery.source import Feed, Found, SourceError
from loadwise.errors import nearest
from loadwise.node_list import text_fault
from loadwise.nodes import Endpoint

__all__ = ["DnsSource", "Resolver"]

_TYPES: Final = ("A", "AAAA", "SRV")
_LIFETIME: Final = 5.0
"""Seconds that a lookup may take."""
_UNKNOWN_TTL: Final = 5.0
"""Seconds until the next lookup where nobody says how long an answer holds."""
_LONGEST_TTL: Final = 86_400.0
_LEAST_TTL: Final = 1.0


class Resolver(Protocol):
    """Part of `dns.resolver.Resolver` that is used."""

    def resolve(self, qname: str, rdtype: str, /) -> Any:
        """Return the records of a name, with their TTL."""
        ...


class DnsSource:
    """Nodes that DNS lists under a name.

    Args:
        name: The name. One that begins with ``_``, such as ``_http._tcp.search.internal``, has SRV
            records: their targets and ports are the nodes, with their weights and priorities. Any
            other has A and AAAA records.
        type: ``"A"``, ``"AAAA"`` or ``"SRV"``; by default what the name says, A and AAAA together.
        port: The port of all nodes, 1 to 65,535, for A and AAAA, which have none. SRV records have
            their own.
        resolver: A `dns.resolver.Resolver` of dnspython, with nameservers and time limits of your
            own; by default one that does as the system is configured.

    Raises:
        ImportError: SRV records and ``resolver`` need dnspython, and it is missing.
        TypeError: An argument is of the wrong kind.
        ValueError: The name is none, or there is no port, or one too many.

    A node's id is ``host:port``: the address, or the target of the SRV record. Nodes are sorted by
    id, whatever order an answer has. It is asked again when its TTL is over, and up to a tenth of
    it later, so that not all clients ask at once; after a second at least.

    An SRV weight of 0 beside others gets a hundredth of the least of them, the "very small chance"
    of RFC 2782; where all are 0 they are equal.

    Needs dnspython: ``pip install 'loadwise[dns]'``. Without it, A and AAAA are asked of the
    system's resolver, which tells no TTL, so every 5 seconds; that also finds names of
    ``/etc/hosts``. With dnspython it is asked for names that DNS does not know.

    Thread-safety: immutable, and as thread-safe as the resolver.

    Source: RFC 1035 and RFC 2782.

    Example:
        >>> DnsSource("search.internal", port=8080)
        DnsSource('search.internal', port=8080)
        >>> DnsSource("search.internal")
        Traceback (most recent call last):
        ...
        ValueError: port is missing: A and AAAA records of 'search.internal' have no port; give \
port=8080, or a name that begins with _ for SRV
    """

    def __init__(
        self,
        name: str,
        *,
        type: str | None = None,  # noqa: A002 - the field's name for it
        port: int | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        self._name = _checked_name(name)
        self._type = _checked_type(type)
        is_srv = self._type == "SRV" or (self._type is None and name.startswith("_"))
        if is_srv and port is not None:
            raise ValueError(
                f"port is {port!r}, but SRV records have ports of their own; leave it out, or give "
                f"type='A'"
            )
        if not is_srv and port is None:
            raise ValueError(
                f"port is missing: A and AAAA records of {name!r} have no port; give port=8080, or "
                f"a name that begins with _ for SRV"
            )
        self._port = None if port is None else as_port("port", port)
        self._kinds = ("SRV",) if is_srv else ("A", "AAAA") if type is None else (str(self._type),)
        if resolver is not None:
            if not callable(getattr(resolver, "resolve", None)):
                raise TypeError(
                    f"resolver is {shown(resolver)}; it must have a method resolve(name, type), as "
                    f"dns.resolver.Resolver() has"
                )
            refuse_async_methods(
                "resolver", resolver, ("resolve",), "it is asked in a thread: give a plain one"
            )
        if (is_srv or resolver is not None) and find_spec("dns") is None:
            what = "SRV records need" if is_srv else "resolver= needs"
            raise ImportError(f"{what} dnspython: pip install 'loadwise[dns]'")
        self._resolver = resolver

    def open(self) -> Feed[Endpoint]:
        """Return a new feed."""
        return _DnsFeed(self._name, self._kinds, self._port, self._resolver)

    def __repr__(self) -> str:
        kind = "" if self._type is None else f", type={self._type!r}"
        port = "" if self._port is None else f", port={self._port}"
        return f"DnsSource({self._name!r}{kind}{port})"


class _DnsFeed:
    """Feed of one name."""

    def __init__(
        self, name: str, kinds: tuple[str, ...], port: int | None, resolver: Resolver | None
    ) -> None:
        self._name = name
        self._kinds = kinds
        self._port = port
        self._resolver = resolver
        # What each kind of record last said, in case one of two cannot be asked.
        self._known: dict[str, list[Record]] = {}

    def fetch(self) -> Found[Endpoint]:
        """Look the name up.

        Raises:
            SourceError: No kind of record can be asked for.
        """
        lookup = self._lookup()
        if lookup is None:
            return self._found(*self._of_system(), {})
        seconds = math.inf
        faults: list[SourceError] = []
        complaints: dict[str, str] = {}
        for kind in self._kinds:
            try:
                records, ttl = lookup(kind)
            except SourceError as error:
                faults.append(error)
                complaints["partly"] = f"{error}; what {kind} records were known are kept"
                continue
            self._known[kind] = records
            seconds = min(seconds, ttl)
        if len(faults) == len(self._kinds):
            raise faults[0]
        records = [record for kind in self._kinds for record in self._known.get(kind, ())]
        if not records and not faults and self._resolver is None and self._port is not None:
            return self._found(*self._of_system(), {})
        is_whole = records and not faults
        return self._found(records, seconds if is_whole else _UNKNOWN_TTL, complaints)

    def close(self) -> None:
        """Do nothing: a lookup ends by itself, within seconds."""

    def _lookup(self) -> Any:
        """Return what asks for one kind of record; ``None`` if only the system can be asked."""
        is_here = self._name.lower().rstrip(".").rpartition(".")[2] == "localhost"
        if is_here and self._resolver is None:  # no server is to be asked for that: RFC 6761
            return None
        try:
            from loadwise.discovery import dns_lookup  # noqa: PLC0415 - needs an extra
        except ImportError:
            return None
        resolver = (
            dns_lookup.system_resolver(_LIFETIME) if self._resolver is None else self._resolver
        )
        return None if resolver is None else dns_lookup.Lookup(resolver, self._name)

    def _of_system(self) -> tuple[list[Record], float]:
        families = {"A": socket.AF_INET, "AAAA": socket.AF_INET6}
        wanted = families[self._kinds[0]] if len(self._kinds) == 1 else socket.AF_UNSPEC
        try:
            found = socket.getaddrinfo(self._name, self._port, wanted, socket.SOCK_STREAM)
        except socket.gaierror as error:
            if error.errno in {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None)}:
                return [], _UNKNOWN_TTL
            raise SourceError(f"{self._name} cannot be looked up: {error.strerror}") from None
        except (OSError, UnicodeError) as error:
            raise SourceError(f"{self._name} cannot be looked up: {error}") from None
        # An address that holds on one interface alone has that behind it, for this host only.
        hosts = {str(each[4][0]).partition("%")[0] for each in found}
        return [Record(host) for host in hosts], _UNKNOWN_TTL

    def _found(
        self, records: list[Record], seconds: float, complaints: dict[str, str]
    ) -> Found[Endpoint]:
        dropped = Dropped("records")
        nodes = endpoints(records, self._port, dropped)
        again = min(max(seconds, _LEAST_TTL), _LONGEST_TTL)
        return Found(nodes, again=again, complaints=complaints | dropped.complaints())


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"name is {shown(name)}; it must be a str, such as 'search.internal'")
    fault = text_fault(name)
    if fault is not None:
        raise ValueError(f"name is {shown(name)}, which {fault}")
    if "/" in name or name.count(":") == 1:
        raise ValueError(
            f"name is {name!r}; it must be a name of DNS, such as 'search.internal', without a "
            f"scheme; the port is given as port="
        )
    return name


def _checked_type(kind: object) -> str | None:
    if kind is None:
        return None
    if not isinstance(kind, str):
        raise TypeError(f"type is {shown(kind)}; it must be one of {', '.join(_TYPES)}, or None")
    plain = kind.upper()
    if plain not in _TYPES:
        raise ValueError(
            f"type is {kind!r}{nearest(plain, _TYPES)} (the types are {', '.join(_TYPES)})"
        )
    return plain
