"""The six HTTP clients under test, made alike: send some requests, see what came of each."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import aiohttp
import pytest
import requests
from yarl import URL

from loadwise import Balancer
from loadwise.integrations import requests as by_requests
from loadwise.integrations.aiohttp import LoadwiseMiddleware, route_of

# The packages have no common base, so what is theirs is Any here as in the sources.


_NOBODY_TRUSTED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass
class Ask:
    """A request: its URL as it is to be sent, and what else the client is told."""

    url: str
    method: str = "GET"
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Answer:
    """A response, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: str
    url: str
    route: Mapping[str, Any]
    cookies: list[str]


class Client:
    """A way to send requests: one of six clients.

    Args:
        library: The package.
        waits: Whether its client is an asynchronous one.
    """

    def __init__(self, library: str, *, waits: bool) -> None:
        self.library = library
        self.waits = waits
        self.module: Any = import_module(library)
        self.ours: Any = import_module(f"loadwise.integrations.{library}")
        names = {"aiohttp": "LoadwiseMiddleware", "requests": "LoadwiseAdapter"}
        self.make: Any = getattr(self.ours, names.get(library, "LoadwiseTransport"))

    def __str__(self) -> str:
        return self.library + ("-async" if self.waits else "")

    def send(
        self,
        balancer: Balancer[Any],
        *asks: Ask | str,
        client: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> list[Any]:
        """Send requests one after the other by one client; return answers, or what was raised.

        Args:
            balancer: Who chooses.
            asks: The requests.
            client: What the client is told at its making.
            options: What the integration is told at its making.
        """
        wanted = [Ask(ask) if isinstance(ask, str) else ask for ask in asks]
        if self.library == "aiohttp":
            return asyncio.run(self._by_aiohttp(balancer, wanted, client or {}, options))
        if self.library == "requests":
            return self._by_requests(balancer, wanted, client or {}, options)
        given = {"follow_redirects": True, **(client or {})}
        if "transport" not in options:
            # The default one reads all certificates there are, which takes longer than a test.
            name = "AsyncHTTPTransport" if self.waits else "HTTPTransport"
            options["transport"] = getattr(self.module, name)(verify=_NOBODY_TRUSTED)
        if self.waits:
            return asyncio.run(self._by_httpx_async(balancer, wanted, given, options))
        with self.module.Client(
            transport=self.ours.LoadwiseTransport(balancer, **options), **given
        ) as session:
            answers: list[Any] = []
            for ask in wanted:
                try:
                    response = session.request(ask.method, ask.url, **ask.more)
                    answers.append(_answer(response))
                except Exception as error:  # noqa: BLE001 - what came of it is for the test to judge
                    answers.append(error)
            return answers

    def _by_requests(
        self, balancer: Balancer[Any], asks: list[Ask], given: Mapping[str, Any], options: Any
    ) -> list[Any]:
        adapter = by_requests.LoadwiseAdapter(balancer, **options)
        with requests.Session() as session:
            for scheme in ("http://", "https://"):
                session.mount(scheme, adapter)
            for name, value in given.items():
                setattr(session, name, value)
            answers: list[Any] = []
            for ask in asks:
                try:
                    response = session.request(ask.method, ask.url, **ask.more)
                    answers.append(
                        Answer(
                            response.status_code,
                            response.headers,
                            response.text,
                            str(response.url),
                            by_requests.route_of(response),
                            response.raw.headers.getlist("Set-Cookie"),
                        )
                    )
                except Exception as error:  # noqa: BLE001 - what came of it is for the test to judge
                    answers.append(error)
            return answers

    async def _by_httpx_async(
        self, balancer: Balancer[Any], asks: list[Ask], given: Any, options: Any
    ) -> list[Any]:
        transport = self.ours.AsyncLoadwiseTransport(balancer, **options)
        async with self.module.AsyncClient(transport=transport, **given) as session:
            answers: list[Any] = []
            for ask in asks:
                try:
                    response = await session.request(ask.method, ask.url, **ask.more)
                    answers.append(_answer(response))
                except Exception as error:  # noqa: BLE001 - what came of it is for the test to judge
                    answers.append(error)
            return answers

    async def _by_aiohttp(
        self, balancer: Balancer[Any], asks: list[Ask], given: Any, options: Any
    ) -> list[Any]:
        middleware = LoadwiseMiddleware(balancer, **options)
        async with aiohttp.ClientSession(middlewares=[middleware], **given) as session:
            answers: list[Any] = []
            for ask in asks:
                url = URL(ask.url, encoded=True)
                try:
                    async with session.request(ask.method, url, **ask.more) as response:
                        answers.append(
                            Answer(
                                response.status,
                                response.headers,
                                await response.text(),
                                str(response.url),
                                route_of(response),
                                response.headers.getall("Set-Cookie", []),
                            )
                        )
                except Exception as error:  # noqa: BLE001 - what came of it is for the test to judge
                    answers.append(error)
            return answers


def _answer(response: Any) -> Answer:
    return Answer(
        response.status_code,
        response.headers,
        response.text,
        str(response.url),
        response.extensions["loadwise"],
        response.headers.get_list("set-cookie"),
    )


SYNC = [Client(library, waits=False) for library in ("httpx", "httpx2")]
REQUESTS = Client("requests", waits=False)
AIOHTTP = Client("aiohttp", waits=True)
ASYNC = [*(Client(library, waits=True) for library in ("httpx", "httpx2")), AIOHTTP]
every_client = pytest.mark.parametrize("client", [*SYNC, REQUESTS, *ASYNC], ids=str)
