"""HTTP as sources speak it: JSON in bounded bodies, streams, and an end from another thread."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

from loadwise._numbers import shown
from loadwise._text import visible
from loadwise.discovery.json_entries import parsed_json
from loadwise.discovery.source import SourceError

try:
    import httpx2
except ImportError as error:
    raise ImportError(
        "Kubernetes and Consul are asked over httpx2: pip install 'loadwise[httpx2]'"
    ) from error

__all__ = ["BodyStream", "HttpClient", "HttpStatusError", "base_url"]

MOST_BYTES: Final = 64 * 1024 * 1024
"""Most bytes of an answer."""
_OK: Final = 200
_CONNECT: Final = 5.0
_MOST_SHOWN: Final = 200
# A peer that is gone without a word is found out within a minute or two.
_KEEPALIVE = [
    (socket.IPPROTO_TCP, getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 4))
    if hasattr(socket, name)
]


class HttpStatusError(SourceError):
    """An answer was an error by its status.

    Attributes:
        status: The status.
    """

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class BodyStream:
    """Body of an answer that comes in pieces.

    Args:
        response: The answer.
        what: What to call it in errors.
    """

    def __init__(self, response: Any, what: str) -> None:
        self._response = response
        self._what = what
        self._pieces: Iterator[bytes] = response.iter_bytes()

    def read(self) -> bytes:
        """Return the next piece; nothing at the end.

        Raises:
            SourceError: It broke off.
        """
        try:
            return next(self._pieces, b"")
        except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            raise SourceError(f"{self._what}: {_words(error)}") from None

    def close(self) -> None:
        """Let go of it."""
        with suppress(httpx2.HTTPError, OSError, RuntimeError):
            self._response.close()


class HttpClient:
    """Client of one server, used by one thread; `interrupt` may be called from another.

    Args:
        url: Base URL.
        verify: What to check the server's certificate by; ``None`` for what the system trusts.

    Proxies of the environment are not used: a server of this kind is near.
    """

    def __init__(self, url: str, verify: ssl.SSLContext | None) -> None:
        self._url = url
        self._client = httpx2.Client(
            transport=httpx2.HTTPTransport(
                verify=True if verify is None else verify,
                trust_env=False,
                limits=httpx2.Limits(max_connections=2, max_keepalive_connections=1),
                socket_options=[(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *_KEEPALIVE],
            ),
            trust_env=False,
            follow_redirects=False,
        )
        self._sockets: list[socket.socket] = []

    def get(
        self, path: str, params: Mapping[str, str], headers: Mapping[str, str], seconds: float
    ) -> tuple[Any, Mapping[str, str]]:
        """Return the JSON of an answer, and its headers.

        Args:
            path: The path, below the base URL.
            params: The query.
            headers: Headers.
            seconds: How long the server may say nothing.

        Raises:
            SourceError: There is no answer, or it is an error, no JSON or too long.
        """
        stream, headers = self.stream(path, params, headers, seconds)
        body = bytearray()
        try:
            while piece := stream.read():
                body += piece
                if len(body) > MOST_BYTES:
                    raise SourceError(
                        f"{self._url}{path}: the answer has more than {MOST_BYTES // 2**20} MiB"
                    )
        finally:
            stream.close()
        try:
            return parsed_json(body), headers
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{self._url}{path}: the answer is not JSON: {error}") from None

    def stream(
        self, path: str, params: Mapping[str, str], headers: Mapping[str, str], seconds: float
    ) -> tuple[BodyStream, Mapping[str, str]]:
        """Return the body of an answer, to be read piece by piece, and its headers.

        Raises:
            SourceError: There is no answer, or it is an error.
        """
        what = f"{self._url}{path}"
        try:
            request = self._client.build_request(
                "GET",
                what,
                params=dict(params),
                headers=dict(headers),
                timeout=httpx2.Timeout(_CONNECT, read=seconds),
                extensions={"trace": self._trace},
            )
            response = self._client.send(request, stream=True)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, RuntimeError) as error:
            raise SourceError(f"{what}: {_words(error)}") from None
        stream = BodyStream(response, what)
        if response.status_code != _OK:
            try:
                text = stream.read().decode(errors="replace")
            finally:
                stream.close()
            told = visible(text.strip())[:_MOST_SHOWN]
            raise HttpStatusError(
                f"{what}: status {response.status_code}{f': {told}' if told else ''}",
                response.status_code,
            )
        return stream, response.headers

    def interrupt(self) -> None:
        """Have a read under way in another thread end at once."""
        for each in self._sockets:
            with suppress(OSError):
                # Not by the method of an SSL socket, which would change it under the reader.
                socket.socket.shutdown(each, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close all connections; for the thread that uses it."""
        self._client.close()

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Record the sockets, which are the only means to wake up a reader."""
        if event.startswith("connection.") and event.endswith(".complete"):
            stream = info.get("return_value")
            opened = None if stream is None else stream.get_extra_info("socket")
            if isinstance(opened, socket.socket):
                self._sockets = [*(each for each in self._sockets if each.fileno() >= 0), opened]


def base_url(url: object, what: str) -> str:
    """Return a base URL without a slash at its end.

    Raises:
        TypeError: It is no text.
        ValueError: It is no URL of http or https with a host.
    """
    if not isinstance(url, str):
        raise TypeError(
            f"{what} is {shown(url)}; it must be a str, such as 'http://127.0.0.1:8500'"
        )
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or visible(url) != url or " " in url or "?" in url or "#" in url or "@" in url:
        raise ValueError(
            f"{what} is {shown(url)}; it must be an http or https URL with a host, and neither a "
            f"user, a query nor a fragment"
        )
    return url.rstrip("/")


def _words(error: BaseException) -> str:
    text = visible(str(error))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
