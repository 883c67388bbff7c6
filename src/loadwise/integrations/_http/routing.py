"""Where a node is reached."""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache

__all__ = ["base_url_of"]


@lru_cache(maxsize=4096)
def base_url_of(identity: Hashable) -> str:
    """Return the base URL that a node's id stands for.

    Raises:
        ValueError: It is neither an http(s) URL, without a query, nor a host with a port.

    Example:
        >>> base_url_of("10.0.0.1:8080"), base_url_of("https://eu.example.com/v1")
        ('http://10.0.0.1:8080', 'https://eu.example.com/v1')
    """
    if isinstance(identity, str):
        if identity.startswith(("http://", "https://")):
            if "?" in identity or "#" in identity:
                raise ValueError(
                    f"node {identity!r} has a query or a fragment; a node's URL is what stands "
                    f"before the path of each request"
                )
            return identity
        host, colon, port = identity.rpartition(":")
        if colon and host and port.isdecimal() and "/" not in host and "@" not in host:
            return f"http://{identity}"
    raise ValueError(
        f"node {identity!r} is neither a URL nor host:port; tell where nodes are reached with "
        f"url=, a function of a node, such as url=lambda node: node.base_url"
    )
