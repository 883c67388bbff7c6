"""Addresses of all members of a balancer, and which URLs are theirs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from loadwise.balancer import Balancer
from loadwise.nodes import node_id

__all__ = ["Base", "Members", "Origin", "base_of", "below", "origin_of"]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Origin of a URL: that of two URLs of one server is the same."""

    scheme: str
    host: str
    port: int


class Base(NamedTuple):
    """A base URL: its origin, and the segments of its path, decoded."""

    origin: Origin
    segments: tuple[str, ...]


def origin_of(parts: SplitResult) -> Origin | None:
    """Return the origin of a URL; ``None`` if it is no http or https URL with a host.

    Raises:
        ValueError: Its port is no number.

    Example:
        >>> origin_of(urlsplit("HTTP://API.example:80/v1")) == origin_of(urlsplit("http://api.example"))
        True
    """
    default = _DEFAULT_PORTS.get(parts.scheme)
    host = parts.hostname
    if default is None or not host:
        return None
    if not host.isascii():
        with suppress(UnicodeError):
            host = host.encode("idna").decode("ascii")
    port = parts.port
    return Origin(parts.scheme, host, default if port is None else port)


@lru_cache(maxsize=4096)
def base_of(url: str) -> Base:
    """Return the parts of a base URL.

    Raises:
        ValueError: It is none.
    """
    parts = urlsplit(url)
    origin = origin_of(parts)
    if origin is None:
        raise ValueError(f"{url!r} is no http or https URL")
    return Base(origin, tuple(map(unquote, parts.path.rstrip("/").split("/")[1:])))


def below(segments: Sequence[str], path: str) -> str | None:
    """Return a path without the base path that it begins with; ``None`` if it does not.

    Example:
        >>> below(["v1"], "/v1/users/"), below(["v1"], "/v1"), below(["v1"], "/v10/users")
        ('/users/', '/', None)
    """
    if not segments:
        return path
    own = path.split("/", len(segments) + 1)[1:]
    if tuple(map(unquote, own[: len(segments)])) != tuple(segments):
        return None
    return "/" + "/".join(own[len(segments) :])


class _Snapshot(NamedTuple):
    """Snapshot of one membership.

    Attributes:
        nodes: The members.
        bases: Each of them with its base URL, by its address in memory.
        paths: The base paths at each origin, and how many nodes have each.
        insecure: How many are reached by http.
    """

    nodes: tuple[object, ...]
    bases: dict[int, tuple[object, Base]]
    paths: dict[Origin, dict[tuple[str, ...], int]]
    insecure: int


class Members:
    """Origins at which all members of a balancer are reached.

    Args:
        balancer: Whose members.
        base_url: Returns the base URL of a node, given it and its id.

    Thread-safety: full, by snapshots.

    Cost: O(1) a question. The first one after a change of the membership copies what is known, and
    asks each node that is new for its base URL, once.
    """

    def __init__(
        self, balancer: Balancer[Any], base_url: Callable[[object, Hashable], str]
    ) -> None:
        self._balancer = balancer
        self._base_url = base_url
        self._snapshot = _Snapshot((), {}, {}, 0)

    def has(self, origin: Origin) -> bool:
        """Tell whether a member is reached at an origin."""
        return origin in self._refreshed().paths

    def below(self, origin: Origin, path: str) -> str | None:
        """Return a path without the base path of a member at that origin, if one begins it."""
        paths = self._refreshed().paths.get(origin, {})
        found = (below(segments, path) for segments in sorted(paths, key=len, reverse=True))
        return next((rest for rest in found if rest is not None), None)

    @property
    def all_secure(self) -> bool:
        """True if there are members, and all of them are reached by https."""
        snapshot = self._refreshed()
        return not snapshot.insecure and 0 < len(snapshot.nodes) == len(snapshot.bases)

    def _refreshed(self) -> _Snapshot:
        snapshot, nodes = self._snapshot, self._balancer.nodes
        if snapshot.nodes is nodes:
            return snapshot
        present = dict(zip(map(id, nodes), nodes, strict=True))
        bases, paths, insecure = dict(snapshot.bases), dict(snapshot.paths), snapshot.insecure
        for key in snapshot.bases.keys() - present.keys():
            _, base = bases.pop(key)
            _count(paths, base, -1)
            insecure -= base.origin.scheme != "https"
        for key in present.keys() - snapshot.bases.keys():
            node = present[key]
            try:
                base = base_of(self._base_url(node, node_id(node)))
            except Exception:  # noqa: BLE001, S112 - whatever a user's function raises
                continue
            bases[key] = (node, base)
            _count(paths, base, 1)
            insecure += base.origin.scheme != "https"
        self._snapshot = snapshot = _Snapshot(nodes, bases, paths, insecure)
        return snapshot


def _count(paths: dict[Origin, dict[tuple[str, ...], int]], base: Base, nodes: int) -> None:
    """Count nodes in or out; what others may read is copied, not changed."""
    counts = dict(paths.get(base.origin, {}))
    counts[base.segments] = counts.get(base.segments, 0) + nodes
    if not counts[base.segments]:
        del counts[base.segments]
    paths[base.origin] = counts
    if not counts:
        del paths[base.origin]
