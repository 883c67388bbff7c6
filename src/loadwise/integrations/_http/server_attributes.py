"""Attributes of a server by OpenTelemetry's semantic conventions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import urlsplit

from loadwise._base_url import base_url_of

__all__ = ["of_node", "of_url"]

_DEFAULT_PORTS = {"https": 443}


@lru_cache(maxsize=4096)
def of_url(url: str) -> Mapping[str, str | int]:
    """Return ``server.address`` and ``server.port`` of a node's base URL.

    Source: semantic conventions of OpenTelemetry, "General attributes", 1.37.

    Example:
        >>> dict(of_url("https://eu.example.com/v1"))
        {'server.address': 'eu.example.com', 'server.port': 443}
    """
    parts = urlsplit(url)
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 80)
    return MappingProxyType({"server.address": parts.hostname or "", "server.port": port})


@lru_cache(maxsize=4096)
def of_node(label: str) -> Mapping[str, str | int]:
    """Return those of a node whose id is a URL or host:port, and none for other ids."""
    try:
        url = base_url_of(label)
    except ValueError:
        return MappingProxyType({})
    return of_url(url)
