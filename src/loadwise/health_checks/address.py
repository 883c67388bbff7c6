"""Addresses at which the bundled probes find a node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, urlsplit

from loadwise._base_url import base_url_of, checked_base_url
from loadwise.nodes import node_id

__all__ = ["base_url", "host_and_port"]


def base_url(node: object, url: Callable[[Any], str] | None) -> SplitResult:
    """Return the parts of a node's base URL, by the rule of the HTTP transports.

    Raises:
        ValueError: It is no such URL.
    """
    identity = node_id(node)
    text = base_url_of(identity) if url is None else checked_base_url(identity, url(node))
    return urlsplit(text)


def host_and_port(parts: SplitResult) -> tuple[str, int]:
    """Return where to connect to."""
    default = 443 if parts.scheme == "https" else 80
    return parts.hostname or "", parts.port or default
