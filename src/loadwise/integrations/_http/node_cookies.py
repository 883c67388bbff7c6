"""Cookies of each node, kept apart from those of all others."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from email.message import Message
from http.cookiejar import CookieJar
from threading import Lock
from typing import Any, cast
from urllib.request import Request

from loadwise.balancer import Balancer
from loadwise.nodes import node_id

__all__ = ["NodeCookies"]

_SPARE = 16


class NodeCookies:
    """A cookie jar for each node.

    A client keeps one jar for the name that it asks, so what one node has set is sent to the next
    one, too. That is right for servers of one service, and wrong for providers that have nothing to
    do with each other.

    Args:
        balancer: Whose nodes. Jars of nodes that have left are dropped, by and by.

    Thread-safety: full. Cost: O(cookies of the node); amortised O(1) for a node that is new.
    """

    def __init__(self, balancer: Balancer[Any]) -> None:
        self._balancer = balancer
        self._jars: dict[Hashable, CookieJar] = {}
        self._lock = Lock()

    def header(self, node: Hashable, url: str, others: str | None) -> str | None:
        """Return the ``Cookie`` header of a request to a node; ``None`` for no cookies at all.

        Args:
            node: The node's id.
            url: Where the request goes.
            others: The header as it is so far.
        """
        jar = self._jars.get(node)
        if jar is None:
            return others
        request = Request(url)  # noqa: S310 - it is not opened
        jar.add_cookie_header(request)
        own = request.get_header("Cookie")
        return "; ".join(filter(None, (others, own))) or None

    def take(self, node: Hashable, url: str, values: Sequence[str]) -> None:
        """Keep what a response of a node sets.

        Args:
            node: The node's id.
            url: Where the request went.
            values: Its ``Set-Cookie`` headers.
        """
        headers = Message()
        for value in values:
            headers["Set-Cookie"] = value
        request = Request(url)  # noqa: S310 - it is not opened
        self._jar(node).extract_cookies(cast("Any", _Response(headers)), request)

    def _jar(self, node: Hashable) -> CookieJar:
        jar = self._jars.get(node)
        if jar is None:
            with self._lock:
                self._drop_unknown()
                jar = self._jars.setdefault(node, CookieJar())
        return jar

    def _drop_unknown(self) -> None:
        nodes = self._balancer.nodes
        if len(self._jars) > 2 * len(nodes) + _SPARE:
            known = set(map(node_id, nodes))
            self._jars = {node: jar for node, jar in self._jars.items() if node in known}


class _Response:
    """A response as a `CookieJar` reads it."""

    def __init__(self, headers: Message) -> None:
        self._headers = headers

    def info(self) -> Message:
        """Return the headers."""
        return self._headers
