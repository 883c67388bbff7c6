"""Asks a node over HTTP.

The thread checker goes through `http.client`. The async checker does not send that to a thread
pool, where a node that hangs would hold one of the application's few threads and could not be
interrupted: it speaks the dozen lines of HTTP that a health check needs over the streams of its
event loop, where a cancellation closes the connection at once. Only the status line is read; a body
never is.
"""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Callable, Container, Mapping
from typing import Any
from urllib.parse import SplitResult

from loadwise._callables import refuse_async
from loadwise.health_checks.address import base_url, host_and_port
from loadwise.health_checks.connections import AsyncioConnection, TrioConnection, connect
from loadwise.health_checks.probe import TimedProbe, no_answer

__all__ = ["HttpProbe"]

_VISIBLE = re.compile(r"[!-~]+")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t -~]*")
_STATUS_LINE = re.compile(rb"HTTP/\d\.\d (\d{3})(?: ([^\r\n]*))?\r?\n")
_MOST_INTERIM = 10
_TOO_MANY = f"{_MOST_INTERIM} interim responses and no final one"


class _FinalResponse(http.client.HTTPResponse):
    """A response after any interim ones; of those `http.client` skips 100 Continue only."""

    def begin(self) -> None:
        for _ in range(_MOST_INTERIM):
            super().begin()
            if self.status >= http.client.OK:
                return
            vars(self)["headers"] = None  # else the next one would not be read
        raise ConnectionError(_TOO_MANY)


def _check_path(path: object) -> None:
    if not isinstance(path, str):
        raise TypeError(f"path is {path!r}; it must be a str")
    if not path.startswith("/"):
        raise ValueError(f"path is {path!r}; it must begin with a slash")
    if not _VISIBLE.fullmatch(path):
        raise ValueError(f"path is {path!r}; spaces and the like must be percent-encoded")


def _check_headers(headers: Mapping[Any, Any] | None) -> None:
    if not isinstance(headers, Mapping | None):
        raise TypeError(f"headers is {headers!r}; it must be a mapping of names to values")
    for name, value in (headers or {}).items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise TypeError(f"headers has {name!r}: {value!r}; both must be a str")
        if not (_TOKEN.fullmatch(name) and _HEADER_VALUE.fullmatch(value)):
            raise ValueError(f"headers has {name!r}: {value!r}, which is not an HTTP header")


class HttpProbe(TimedProbe):
    """Passes when a node answers a GET with a status that is expected.

    Each check makes a connection of its own, so that it notices a node that accepts none. Nothing
    is redirected, and the body of the answer is not read.

    Args:
        path: What to ask for, below the node's base URL.
        expect: The statuses that pass.
        url: Returns the base URL of a node; by default its id, a URL or host:port, as for the
            HTTP transports.
        method: The method; HEAD where there should be no body.
        headers: Further headers, such as Host or Authorization.
        ssl_context: For https; by default certificates are verified against the system's.

    Raises:
        TypeError: An argument is of the wrong type, or ``url`` is to be awaited.
        ValueError: The path does not begin with a slash, or the path, the method or a header has
            a character that it must not have.

    Thread-safety: of any number of threads.

    Example:
        >>> probe = HttpProbe("/ready", expect=[200, 204])
        >>> probe.check_node("10.0.0.1:8080")
    """

    def __init__(
        self,
        path: str = "/healthz",
        expect: Container[int] = range(200, 400),
        *,
        url: Callable[[Any], str] | None = None,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        _check_path(path)
        if not isinstance(method, str):
            raise TypeError(f"method is {method!r}; it must be a str")
        if not _TOKEN.fullmatch(method):
            raise ValueError(f"method is {method!r}; it must be an HTTP method such as GET")
        _check_headers(headers)
        if isinstance(expect, (str, bytes)) or not isinstance(expect, Container):
            raise TypeError(f"expect is {expect!r}; it must be a range or a list of statuses")
        if url is not None and not callable(url):
            raise TypeError(f"url is {url!r}; it must be a function of a node")
        refuse_async("url", url, "give a plain function of a node")
        if not isinstance(ssl_context, ssl.SSLContext | None):
            raise TypeError(f"ssl_context is {ssl_context!r}; it must be an ssl.SSLContext")
        self._path = path
        self._expect = expect
        self._url = url
        self._method = method
        self._headers = {"Connection": "close", "User-Agent": "loadwise", **(headers or {})}
        self._ssl_context = ssl_context

    def check_node(self, node: object) -> None:
        """Raise ``ValueError`` if the node's base URL is not one."""
        self._target(node)

    def probe(self, node: object, timeout: float) -> str | None:
        """Ask the node; return what is wrong, if anything."""
        parts, target = self._target(node)
        host, port = host_and_port(parts)
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(
                host, port, timeout=timeout, context=self._tls()
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=timeout)
        connection.response_class = _FinalResponse
        try:
            connection.request(self._method, target, headers=self._headers)
            with connection.getresponse() as response:
                return self._judge(response.status, response.reason)
        except TimeoutError:
            return no_answer(timeout)
        finally:
            connection.close()

    async def probe_async(self, node: object) -> str | None:
        """Ask the node; return what is wrong, if anything."""
        parts, target = self._target(node)
        host, port = host_and_port(parts)
        context = self._tls() if parts.scheme == "https" else None
        connection = await connect(host, port, context)
        try:
            await connection.send(self._request(parts, target))
            return self._judge(*await _status(connection))
        finally:
            await connection.abort()

    def _target(self, node: object) -> tuple[SplitResult, str]:
        parts = base_url(node, self._url)
        target = parts.path.rstrip("/") + self._path
        if not _VISIBLE.fullmatch(target):
            raise ValueError(
                f"the base URL of node {node!r} is {parts.geturl()!r}; spaces and the like must "
                f"be percent-encoded"
            )
        return parts, target

    def _request(self, parts: SplitResult, target: str) -> bytes:
        headers = dict(self._headers)
        if not any(name.lower() == "host" for name in headers):
            headers = {"Host": parts.netloc, **headers}
        lines = [f"{self._method} {target} HTTP/1.1", *map(": ".join, headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def _judge(self, status: int, reason: str) -> str | None:
        return None if status in self._expect else f"HTTP {status} {reason}".rstrip()

    def _tls(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            self._ssl_context = ssl.create_default_context()
        return self._ssl_context


async def _status(reader: AsyncioConnection | TrioConnection) -> tuple[int, str]:
    """Return status and reason of the final response, after any interim ones."""
    for _ in range(_MOST_INTERIM):
        line = await reader.readline()
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise ConnectionError(
                "the connection was closed without an answer"
                if not line
                else f"what answered does not speak HTTP: {line[:40]!r}"
            )
        status = int(match[1])
        if status >= http.client.OK:
            return status, (match[2] or b"").decode("latin-1")
        while (await reader.readline()).strip():
            pass
    raise ConnectionError(_TOO_MANY)
