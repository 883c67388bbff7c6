"""Where the probes that come with loadwise find a node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, urlsplit

from loadwise.integrations._http.routing import base_url_of
from loadwise.nodes import node_id

__all__ = ["base_url", "host_and_port"]


def base_url(node: object, url: Callable[[Any], str] | None) -> SplitResult:
    """Return the parts of a node's base URL, by the rule of the HTTP transports.

    Raises:
        ValueError: It is not an http(s) URL with a host and, if any, a port from 1 to 65535.
    """
    text = base_url_of(node_id(node)) if url is None else url(node)
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or not _has_valid_port(parts):
        raise ValueError(
            f"the base URL of node {node_id(node)!r} is {text!r}; it must be an http or https URL "
            f"with a host and no port but 1 to 65535"
        )
    return parts


def host_and_port(parts: SplitResult) -> tuple[str, int]:
    """Return where to connect to."""
    default = 443 if parts.scheme == "https" else 80
    return parts.hostname or "", parts.port or default


def _has_valid_port(parts: SplitResult) -> bool:
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False
