"""URLs of requests' requests at their nodes."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit

from requests.utils import requote_uri

from loadwise._base_url import LONGEST_KEPT
from loadwise._url_paths import confined

__all__ = ["join_url"]


def join_url(base: str, path: str) -> str:
    """Return the URL of a path (with its query) below a node's base URL."""
    return known(base, path) if len(path) <= LONGEST_KEPT else _joined(base, path)


def _joined(base: str, path: str) -> str:
    own = urlsplit(base)
    path, question, query = path.partition("?")
    root = requote_uri(f"{own.scheme}://{own.netloc}{own.path.rstrip('/')}")
    return f"{root}/{confined(path).removeprefix('/')}{question}{query}"


known = lru_cache(maxsize=4096)(_joined)
