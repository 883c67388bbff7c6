"""Every HTTP client with a balancer, and a process of servers that it talks to."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import aiohttp
import requests

from loadwise import Balancer
from loadwise.integrations.aiohttp import LoadwiseMiddleware, request_options
from loadwise.integrations.requests import LoadwiseAdapter

_SCRIPT = Path(__file__).with_name("scripted.py")

# The packages have no common base, so what is theirs is Any here as in the sources.

Send = Callable[..., Awaitable[Any]]


class Scripted:
    """A process of servers of one manner; see `scripted.py`."""

    def __init__(self, manner: str, count: int, certificate: Iterable[Path] = ()) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(_SCRIPT), manner, str(count), *map(str, certificate)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        scheme = "https" if certificate else "http"
        self.nodes = [f"{scheme}://127.0.0.1:{self._line().strip()}" for _ in range(count)]

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def told(self) -> list[dict[str, Any]]:
        """What has come to pass at each of them."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        told: list[dict[str, Any]] = json.loads(self._line())
        return told

    def until(self, condition: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Ask until a condition holds, and return what was told then."""
        for _ in range(2000):
            told = self.told()
            if condition(told):
                return told
        raise AssertionError(told)

    def stop(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.communicate()


class Client:
    """A way to send requests one after another and read their answers to the end.

    Args:
        library: The package.
        waits: Whether its client is an asynchronous one.
    """

    def __init__(self, library: str, *, waits: bool) -> None:
        self.library = library
        self.waits = waits
        self.module: Any = import_module(library)
        self.ours: Any = import_module(f"loadwise.integrations.{library}")

    def __str__(self) -> str:
        return self.library + ("-async" if self.waits else "")

    def converse(
        self,
        balancer: Balancer[Any],
        calls: Iterable[tuple[str, str] | Callable[[], object]],
        *,
        options: dict[str, Any] | None = None,
        client: dict[str, Any] | None = None,
        said: dict[str, Any] | None = None,
    ) -> list[Any]:
        """Send requests; return the status of each answer, or what was raised.

        Between them, functions are called.

        Args:
            balancer: The balancer.
            calls: Method and path of each request, or a function to call.
            options: Arguments of the transport or middleware.
            client: Arguments of the client.
            said: What the requests say for themselves.
        """
        if self.waits:
            return asyncio.run(self.converse_async(balancer, calls, options, client, said))
        if self.library == "requests":
            return self._by_requests(balancer, calls, options or {}, client or {}, said or {})
        transport = self.ours.LoadwiseTransport(balancer, **(options or {}))
        came: list[Any] = []
        with self.module.Client(transport=transport, **(client or {})) as session:
            for call in calls:
                if callable(call):
                    call()
                    continue
                method, path = call
                try:
                    response = session.request(
                        method, f"http://service{path}", extensions={"loadwise": said or {}}
                    )
                    came.append(response.status_code)
                except Exception as error:  # noqa: BLE001 - it is for the test to judge
                    came.append(error)
        return came

    def _by_requests(
        self, balancer: Balancer[Any], calls: Iterable[Any], options: Any, client: Any, said: Any
    ) -> list[Any]:
        came: list[Any] = []
        with requests.Session() as session:
            adapter = LoadwiseAdapter(balancer, **options)
            for scheme in ("http://", "https://"):
                session.mount(scheme, adapter)
            for name, value in client.items():
                setattr(session, name, value)
            for call in calls:
                if callable(call):
                    call()
                    continue
                method, path = call
                try:
                    with request_options(**said):
                        came.append(session.request(method, f"http://service{path}").status_code)
                except Exception as error:  # noqa: BLE001 - it is for the test to judge
                    came.append(error)
        return came

    async def converse_async(
        self,
        balancer: Balancer[Any],
        calls: Iterable[tuple[str, str] | Callable[[], object]],
        options: dict[str, Any] | None = None,
        client: dict[str, Any] | None = None,
        said: dict[str, Any] | None = None,
    ) -> list[Any]:
        """As `converse`, in an event loop."""
        came: list[Any] = []
        session, send = self.open(balancer, options, client, said)
        async with session:
            for call in calls:
                if callable(call):
                    call()
                    continue
                try:
                    came.append(await send(*call))
                except Exception as error:  # noqa: BLE001 - it is for the test to judge
                    came.append(error)
        return came

    def open(
        self,
        balancer: Balancer[Any],
        options: dict[str, Any] | None = None,
        client: dict[str, Any] | None = None,
        said: dict[str, Any] | None = None,
    ) -> tuple[Any, Send]:
        """Return an asynchronous client, and how to send a request by it."""
        if self.library == "aiohttp":
            middleware = LoadwiseMiddleware(balancer, **(options or {}))
            session = aiohttp.ClientSession(middlewares=[middleware], **(client or {}))

            async def send(method: str, path: str) -> Any:
                with request_options(**(said or {})):
                    async with session.request(method, f"http://service{path}") as response:
                        await response.read()
                        return response.status

            return session, send
        transport = self.ours.AsyncLoadwiseTransport(balancer, **(options or {}))
        other = self.module.AsyncClient(transport=transport, **(client or {}))

        async def send_other(method: str, path: str) -> Any:
            url = f"http://service{path}"
            extensions = {"loadwise": said or {}}
            return (await other.request(method, url, extensions=extensions)).status_code

        return other, send_other


SYNC = [Client(library, waits=False) for library in ("httpx", "httpx2")]
ASYNC = [Client(library, waits=True) for library in ("httpx", "httpx2")]
AIOHTTP = Client("aiohttp", waits=True)
REQUESTS = Client("requests", waits=False)


def failures(balancer: Balancer[Any]) -> list[int]:
    """Return the failures in a row of each node, as its health knows them."""
    assert balancer.health is not None
    return [balancer.health.health(node).consecutive_failures for node in balancer.nodes]
