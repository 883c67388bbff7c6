"""Lookups of DNS records by dnspython."""

from __future__ import annotations

import math
from typing import Any

try:
    import dns.exception
    import dns.resolver
except ImportError as error:
    raise ImportError("lookups of DNS need dnspython: pip install 'loadwise[dns]'") from error

from loadwise.discovery.dns_records import Record
from loadwise.discovery.source import SourceError

__all__ = ["Lookup", "system_resolver"]


def system_resolver(lifetime: float) -> dns.resolver.Resolver | None:
    """Return a resolver as the system is configured; ``None`` if that is nowhere to be found."""
    try:
        resolver = dns.resolver.Resolver()
    except dns.resolver.NoResolverConfiguration:
        return None
    resolver.lifetime = lifetime
    resolver.use_search_by_default = True
    return resolver


class Lookup:
    """Lookups of one name.

    Args:
        resolver: What asks the servers.
        name: The name.
    """

    def __init__(self, resolver: Any, name: str) -> None:
        self._resolver = resolver
        self._name = name

    def __call__(self, kind: str) -> tuple[list[Record], float]:
        """Return the records of a type, if there are some, and for how many seconds they hold.

        Raises:
            SourceError: They cannot be had.
        """
        try:
            answer = self._resolver.resolve(self._name, kind)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return [], math.inf
        except dns.exception.DNSException as error:
            raise SourceError(f"{self._name} cannot be looked up ({kind}): {error}") from None
        except OSError as error:
            raise SourceError(f"{self._name} cannot be looked up ({kind}): {error}") from None
        return [_record(each, kind) for each in answer], float(_ttl(answer))


def _record(found: Any, kind: str) -> Record:
    if kind != "SRV":
        return Record(str(found.address))
    return Record(found.target.to_text(), found.port, found.weight, found.priority)


def _ttl(answer: Any) -> int:
    """Return the least TTL of the records and of the aliases that led to them."""
    chain = getattr(answer, "chaining_result", None)
    ttl: int = answer.rrset.ttl if chain is None else chain.minimum_ttl
    return ttl
