"""Requests to a status page, by ASGI and by WSGI, without a server in between."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode
from wsgiref.validate import validator

from loadwise.integrations.status_page import StatusPage

__all__ = ["WAYS", "Ask", "Told", "by_asgi", "by_wsgi", "form", "texts"]


@dataclass
class Told:
    """Answer of a page."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is no JSON")

        return json.loads(self.body, parse_constant=refuse)


Ask = Callable[..., Told]


def by_asgi(
    page: StatusPage,
    path: str = "/",
    *,
    method: str = "GET",
    query: str = "",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    mount: str = "",
) -> Told:
    """Ask by ASGI, where the path has the mount in front."""
    named = {"host": "page.test", **(headers or {})}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "method": method,
        "path": mount + path,
        "root_path": mount,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in named.items()],
        "client": ("192.0.2.1", 4000),
    }
    # In two parts, as a server may.
    half = len(body) // 2
    parts = [
        {"type": "http.request", "body": body[:half], "more_body": True},
        {"type": "http.request", "body": body[half:], "more_body": False},
    ]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return parts.pop(0) if parts else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(page(scope, receive, send))
    start, *rest = sent
    return Told(
        start["status"],
        {name.decode(): value.decode() for name, value in start["headers"]},
        b"".join(message["body"] for message in rest),
    )


def by_wsgi(
    page: StatusPage,
    path: str = "/",
    *,
    method: str = "GET",
    query: str = "",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    mount: str = "",
) -> Told:
    """Ask by WSGI, under the eye of the standard library's validator."""
    named = {"host": "page.test", **(headers or {})}
    kind = named.pop("content-type", "")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": mount,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "page.test",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "CONTENT_TYPE": kind,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in named.items()},
    }
    started: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started.append((int(status.split(maxsplit=1)[0]), dict(headers)))
        return lambda _: None

    answer: Any = validator(page.wsgi)(environ, start)
    found = b"".join(answer)
    answer.close()
    status, told = started[0]
    return Told(status, told, found)


WAYS = {"asgi": by_asgi, "wsgi": by_wsgi}


def form(**fields: str) -> dict[str, Any]:
    """Return the arguments of a plain POST form of these fields."""
    return {
        "method": "POST",
        "body": urlencode(fields, errors="surrogatepass").encode(),
        "headers": {"content-type": "application/x-www-form-urlencoded"},
    }


class _Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.values: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.values += [value for _, value in attrs if value]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def texts(html: str) -> _Texts:
    """Return the elements, the values of attributes and the texts of a page."""
    parser = _Texts()
    parser.feed(html)
    parser.close()
    return parser
