"""Address of a status page, and its answers."""

from __future__ import annotations

from http import HTTPStatus
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit, urlunsplit

import httpx2

import loadwise
from loadwise._text import visible
from loadwise.cli.top.told import NotAStatusPageError, PageTold, parsed

__all__ = ["PageSource", "UnreachableError", "address_of"]

_JSON: Final = "status.json"
_PATIENCE: Final = 10.0
"""Seconds for a connection, and between two parts of an answer."""
_MOST: Final = 256 * 2**20
"""Bytes of an answer."""
_HINTS: Final = {
    401: "it wants to know who you are: http://user:password@host/",
    403: "ask for it as localhost or by its address, or log in to what is in front of it",
    404: "give the path at which the page is mounted, such as http://host:8080/ops/status",
}


class UnreachableError(Exception):
    """Failure to get anything from a status page; says why, and what to do."""


def address_of(text: str) -> str:
    """Return the URL of ``status.json`` for what a person calls the page.

    Raises:
        ValueError: It is no such address; the message says what would be.

    Example:
        >>> address_of("localhost:8080"), address_of("https://api.test/ops/status/")
        ('http://localhost:8080/status.json', 'https://api.test/ops/status/status.json')
    """
    full = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(full)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{text!r} is no address: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{text!r} has the scheme {parts.scheme!r}; it must be http or https")
    if not host or any(each.isspace() for each in text):
        raise ValueError(f"{text!r} has no host; give one such as localhost:8080")
    path = parts.path if parts.path.endswith(f"/{_JSON}") else f"{parts.path.rstrip('/')}/{_JSON}"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


class PageSource:
    """A status page that is asked again and again, over one connection.

    Args:
        address: The URL of its ``status.json``.

    Attributes:
        shown: The address, without a password, safe to show.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        place = parts.netloc.rpartition("@")[2]
        self.shown = visible(urlunsplit((parts.scheme, place, parts.path, parts.query, "")))
        self._address = address
        agent = f"loadwise-top/{loadwise.__version__}"
        self._client = httpx2.Client(
            timeout=_PATIENCE, follow_redirects=True, headers={"user-agent": agent}
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close()

    def fetch(self) -> tuple[object, PageTold]:
        """Return the answer as it is, parsed, and what it tells.

        Raises:
            UnreachableError: There is no answer, or it is none of a status page.
        """
        body = self._body()
        try:
            answer = parsed(body)
            return answer, PageTold.of(answer)
        except NotAStatusPageError as error:
            raise UnreachableError(f"{self.shown} is no status page: {error}") from None

    def _body(self) -> bytes:
        try:
            with self._client.stream("GET", self._address) as response:
                if response.status_code != HTTPStatus.OK:
                    hint = _HINTS.get(response.status_code)
                    why = f"{self.shown} answers {response.status_code}"
                    raise UnreachableError(f"{why}; {hint}" if hint else why)
                body = bytearray()
                for part in response.iter_bytes():
                    body += part
                    if len(body) > _MOST:
                        raise UnreachableError(f"{self.shown} answers with more than {_MOST} bytes")
                return bytes(body)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            why = visible(str(error)) or type(error).__name__
            remedy = "look whether the program runs, and shows its status page there"
            raise UnreachableError(f"{self.shown} does not answer: {why}; {remedy}") from None
