"""URLs of requests' requests at their nodes."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit

from requests.utils import requote_uri

from loadwise._base_url import LONGEST_KEPT
from loadwise._url_paths import confined

__all__ = ["join_url"]


def join_url(base: str, url: str) -> str:
    """Return the URL of what another one asks for, its path and query, below a node's base URL."""
    return known(base, url) if len(url) <= LONGEST_KEPT else _joined(base, url)


def _joined(base: str, url: str) -> str:
    own, asked = urlsplit(base), urlsplit(url)
    root = requote_uri(f"{own.scheme}://{own.netloc}{own.path.rstrip('/')}")
    query = f"?{asked.query}" if asked.query else ""
    return f"{root}/{confined(asked.path).removeprefix('/')}{query}"


known = lru_cache(maxsize=4096)(_joined)
