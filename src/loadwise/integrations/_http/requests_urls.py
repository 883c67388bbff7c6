"""URLs of requests' requests at their nodes."""

from __future__ import annotations

from functools import lru_cache
from operator import methodcaller
from urllib.parse import urlsplit

from requests import PreparedRequest
from requests.hooks import default_hooks
from requests.utils import requote_uri

from loadwise._base_url import LONGEST_KEPT
from loadwise._url_paths import confined
from loadwise.integrations._http.requests_redirects import host_of

__all__ = ["outbound_of"]

_LOWER = methodcaller("lower")


def outbound_of(request: PreparedRequest, base: str, *, changes: bool) -> PreparedRequest:
    """Return a request as it goes to the node with a base URL.

    Args:
        request: The request.
        base: The base URL.
        changes: Whether somebody may change what is returned.
    """
    url = str(request.url)
    has_host = "host" in map(_LOWER, request.headers)
    if has_host or changes:
        outbound = request.copy()
        outbound.hooks = default_hooks()
        if outbound.headers.get("Host") == host_of(url):
            del outbound.headers["Host"]  # the connection sets that of the node
    else:
        # Copies of headers and cookies are dear.
        outbound = PreparedRequest()
        outbound.method, outbound.body = request.method, request.body
        outbound.headers = request.headers
    outbound.url = join_url(base, url)
    return outbound


def join_url(base: str, url: str) -> str:
    """Return the URL of what another one asks for, its path and query, below a node's base URL."""
    return known(base, url) if len(url) <= LONGEST_KEPT else _joined(base, url)


def _joined(base: str, url: str) -> str:
    own, asked = urlsplit(base), urlsplit(url)
    root = requote_uri(f"{own.scheme}://{own.netloc}{own.path.rstrip('/')}")
    query = f"?{asked.query}" if asked.query else ""
    return f"{root}/{confined(asked.path).removeprefix('/')}{query}"


known = lru_cache(maxsize=4096)(_joined)
