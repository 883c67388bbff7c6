"""URLs of aiohttp's requests at their nodes."""

from __future__ import annotations

from functools import lru_cache

from yarl import URL

from loadwise._base_url import LONGEST_KEPT
from loadwise._url_paths import confined

__all__ = ["join"]


def join(base: str, path: str) -> URL:
    """Return the URL of a path (with its query) below a node's base URL."""
    return known(base, path) if len(path) <= LONGEST_KEPT else _joined(base, path)


def _joined(base: str, path: str) -> URL:
    url = URL(base)
    path, question, query = path.partition("?")
    below = f"/{confined(path).removeprefix('/')}{question}{query}"
    return URL(f"{url.origin()}{url.raw_path.rstrip('/')}{below}", encoded=True)


# Kept, because making one and all that is read off it is the dearest part of a request's way.
known = lru_cache(maxsize=4096)(_joined)
