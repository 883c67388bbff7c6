"""One request in four goes to a path that is bad on every node, and nothing else is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import httpx
import pytest
from tests.real.http.conversing import Scripted

from loadwise import Balancer
from loadwise.integrations.aiohttp import LoadwiseMiddleware
from loadwise.integrations.httpx import LoadwiseTransport

pytestmark = pytest.mark.slow

CLIENTS, REQUESTS = 50, 8
PATHS = ("/hang", "/die", "/pause")
HASTE, PATIENCE = 0.2, 30.0
GOOD = {200: CLIENTS * REQUESTS * 3 // 4}

Start = Callable[..., Scripted]


def requests_of(number: int) -> Iterator[tuple[str, float]]:
    """The paths that a client asks for, and for how long it waits; it begins anywhere."""
    for turn in range(REQUESTS):
        is_bad = (turn + number) % 4 == 0
        yield (PATHS[(turn + number) % 3], HASTE) if is_bad else ("/", PATIENCE)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_with_threads(scripted: Start, method: str) -> None:
    """Of the others each is answered, whether the bad ones are tried elsewhere or not."""
    balancer = Balancer(scripted("plain", 4).nodes)
    came: Counter[object] = Counter()
    transport = LoadwiseTransport(balancer)
    with httpx.Client(transport=transport) as client:

        def work(number: int) -> list[object]:
            answers: list[object] = []
            for path, timeout in requests_of(number):
                is_good = path == "/"
                verb = "GET" if is_good else method
                try:
                    answer = client.request(verb, f"http://service{path}", timeout=timeout)
                except httpx.TransportError as error:
                    answers += [error] if is_good else []
                else:
                    answers += [answer.status_code] if is_good else []
            return answers

        with ThreadPoolExecutor(CLIENTS) as pool:
            for answers in pool.map(work, range(CLIENTS)):
                came.update(answers)
    assert came == GOOD
    assert sum(status.in_flight for status in balancer.status()) == 0


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("own", [False, True], ids=["client", "caller"])
def test_with_aiohttp(
    scripted: Start,
    method: str,
    own: bool,  # noqa: FBT001 - from pytest
) -> None:
    """The same, whether the client's timeouts end what hangs, or the caller gives it up."""
    balancer = Balancer(scripted("plain", 4).nodes)
    came: Counter[object] = Counter()

    async def main() -> None:
        connector = aiohttp.TCPConnector(limit=0)
        middleware = LoadwiseMiddleware(balancer)
        async with aiohttp.ClientSession(connector=connector, middlewares=[middleware]) as session:

            async def ask(verb: str, path: str, timeout: float) -> int:  # noqa: ASYNC109 - as given
                limits = aiohttp.ClientTimeout(sock_read=None if own else timeout)
                async with (
                    asyncio.timeout(timeout if own else None),
                    session.request(verb, f"http://service{path}", timeout=limits) as response,
                ):
                    await response.read()
                    return response.status

            async def work(number: int) -> None:
                for path, timeout in requests_of(number):
                    is_good = path == "/"
                    try:
                        answer: object = await ask("GET" if is_good else method, path, timeout)
                    except (aiohttp.ClientError, TimeoutError) as error:
                        answer = error
                    if is_good:
                        came[answer] += 1

            await asyncio.gather(*map(work, range(CLIENTS)))

    asyncio.run(main())
    assert came == GOOD
    assert sum(status.in_flight for status in balancer.status()) == 0
