"""Where a node is reached."""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from urllib.parse import urlsplit

from loadwise._callables import refuse_awaitable

__all__ = ["LONGEST_KEPT", "base_url_of", "checked_base_url"]

# Longer paths are joined anew each time: what is kept of thousands of them would be much.
LONGEST_KEPT = 256


@lru_cache(maxsize=4096)
def base_url_of(identity: Hashable) -> str:
    """Return the base URL that a node's id stands for.

    Raises:
        ValueError: It is neither a base URL nor a host with a port.

    Example:
        >>> base_url_of("10.0.0.1:8080"), base_url_of("https://eu.example.com/v1")
        ('http://10.0.0.1:8080', 'https://eu.example.com/v1')
    """
    if isinstance(identity, str):
        if identity.startswith(("http://", "https://")):
            return checked_base_url(identity, identity)
        host, colon, port = identity.rpartition(":")
        if colon and host and port.isdecimal() and "/" not in host and "@" not in host:
            return checked_base_url(identity, f"http://{identity}")
    raise ValueError(
        f"node {identity!r} is neither a URL nor host:port; tell where nodes are reached with "
        f"url=, a function of a node, such as url=lambda node: node.base_url"
    )


def checked_base_url(identity: Hashable, url: object) -> str:
    """Return the base URL that is given for a node, if it is one.

    Raises:
        TypeError: It is to be awaited.
        ValueError: It is no http(s) URL with a host, or it has an odd port, a user name, a query
            or a fragment.
    """
    refuse_awaitable(f"url, asked of node {identity!r},", url, "give a plain function of a node")
    fault = _fault_of(url) if isinstance(url, str) else "it must be a str: an http or https URL"
    if not isinstance(url, str) or fault is not None:
        raise ValueError(f"the base URL of node {identity!r} is {url!r}; {fault}")
    return url


@lru_cache(maxsize=4096)
def _fault_of(url: str) -> str | None:
    """Return what is wrong with a base URL, if anything."""
    if "?" in url or "#" in url:
        return (
            "it has a query or a fragment, but a node's URL is what stands before the path of "
            "each request"
        )
    parts = urlsplit(url)
    if "@" in parts.netloc:
        return "it has a user name, which nobody would send; give credentials as a header"
    try:
        is_valid = parts.hostname and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or parts.scheme not in ("http", "https"):
        return "it must be an http or https URL with a host and no port but 1 to 65535"
    return None
