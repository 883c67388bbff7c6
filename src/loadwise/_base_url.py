"""Base URLs of nodes, found and checked."""

from __future__ import annotations

import re
from collections.abc import Hashable
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

from loadwise._callables import refuse_awaitable
from loadwise._url_paths import confined

__all__ = ["LONGEST_KEPT", "base_url_of", "checked_base_url"]

# Longer paths are joined again each time: to keep thousands of them would take much memory.
LONGEST_KEPT = 256

# Letters of any language, because names may be international ones; a number in brackets is IPv6.
_HOST = re.compile(r"[\w.~-]+|\[[0-9a-fA-F:.]+(?:%[\w.~-]+)?\]")
_NO_URL = "it must be an http or https URL with a host and no port but 1 to 65535"
_USER = re.compile(r"//[^/?#]*@")
_ODD = re.compile(r"[\x00-\x20\x7f\\]")


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


def checked_base_url(identity: Hashable, url: object, whose: str | None = None) -> str:
    """Return the base URL that is given for a node, if it is one.

    Args:
        identity: The node's id.
        url: What is given.
        whose: What to call it in an error, if not the base URL of that node.

    Raises:
        TypeError: It is to be awaited.
        ValueError: It is no http(s) URL with a host, or it has an odd port, a user name, a query
            or a fragment.
    """
    if isinstance(url, str):
        fault = _fault_of(url)
        if fault is None:
            return url
        text: object = _USER.sub("//...@", url)  # a password may stand before the host
    else:
        what = f"url, asked of node {identity!r},"
        refuse_awaitable(what, url, "give a plain function of a node")
        text, fault = url, "it must be a str: an http or https URL"
    whose = f"the base URL of node {identity!r}" if whose is None else whose
    raise ValueError(f"{whose} is {text!r}; {fault}")


@lru_cache(maxsize=4096)
def _fault_of(url: str) -> str | None:
    """Return what is wrong with a base URL, if anything."""
    if "?" in url or "#" in url:
        return (
            "it has a query or a fragment, but a node's URL is what stands before the path of "
            "each request"
        )
    odd = _ODD.search(url)  # urlsplit leaves some of them out, and so does not see them
    if odd is not None:
        return f"it has {odd[0]!r} at position {odd.start()}, which no URL may have"
    try:
        parts = urlsplit(url)
        is_valid = parts.hostname and parts.port != 0
    except ValueError:
        return _NO_URL
    return _fault_of_parts(parts) if is_valid else _NO_URL


def _fault_of_parts(parts: SplitResult) -> str | None:
    if "@" in parts.netloc:
        return "it has a user name, which nobody would send; give credentials as a header"
    if parts.scheme not in ("http", "https"):
        return _NO_URL
    host = re.sub(r":[0-9]*$", "", parts.netloc)
    if _HOST.fullmatch(host) is None:
        return f"its host is {host!r}; it must be a name or an address, nothing else"
    if confined(parts.path) != parts.path:
        return "its path has dot segments; give the path that they lead to"
    return None
