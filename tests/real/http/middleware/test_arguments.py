"""Arguments of the aiohttp middleware, functions to be awaited among them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from aiohttp import ClientRequest, ClientSession
from tests.real.http.middleware.support import Server, told

from loadwise import Balancer, ConsistentHash, NoNodeAvailable, Outcome
from loadwise.integrations.aiohttp import LoadwiseMiddleware, request_options, route_of


def test_arguments_are_checked_and_no_node_is_an_error_of_its_own() -> None:
    """Unknown names are refused with the nearest one; an empty balancer raises its own error."""
    with pytest.raises(TypeError, match="'max_attempt'; did you mean 'max_attempts'"):
        LoadwiseMiddleware(Balancer(["a:1"]), max_attempt=2)  # type: ignore[call-arg]  # what is tested
    with pytest.raises(ValueError, match=r"'primary' is neither a URL nor host:port.*url="):
        LoadwiseMiddleware(Balancer(["primary"]))
    with pytest.raises(ValueError, match="the request's deadline is -1; it must be"):
        request_options(deadline=-1).__enter__()

    async def main() -> None:
        async with ClientSession(
            middlewares=[LoadwiseMiddleware(Balancer([], name="search"))]
        ) as session:
            with pytest.raises(NoNodeAvailable, match="search"):
                await told(session)

    asyncio.run(main())


def test_missing_package_says_what_to_install() -> None:
    """Without aiohttp the integration says which extra to install."""
    script = "import sys; sys.modules['aiohttp'] = None\nimport loadwise.integrations.aiohttp"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 1
    assert "pip install 'loadwise[aiohttp]'" in result.stderr


def test_functions_to_be_awaited_are(a: Server, b: Server) -> None:
    """``prepare``, ``hash_key`` and ``classify`` may be coroutine functions."""
    judged: list[object] = []

    async def prepare(request: ClientRequest, node: object) -> None:
        await asyncio.sleep(0)
        request.headers["X-Own"] = f"for {node}"

    async def hash_key(request: ClientRequest) -> str:
        await asyncio.sleep(0)
        return request.headers["X-User"]

    async def classify(result: object) -> Outcome | None:
        await asyncio.sleep(0)
        judged.append(result)
        return None

    balancer = Balancer([a.address, b.address], ConsistentHash())
    middleware = LoadwiseMiddleware(balancer, prepare=prepare, hash_key=hash_key, classify=classify)

    async def main() -> None:
        async with ClientSession(middlewares=(middleware,)) as session:
            for user in ("ada", "grace", "edsger", "barbara"):
                async with session.get("http://service/", headers={"X-User": user}) as response:
                    told = await response.json()
                node = balancer.pick(hash_key=user)
                assert route_of(response)["node"] == node
                assert {name.lower(): each for name, each in told["headers"].items()}[
                    "x-own"
                ] == f"for {node}"

    asyncio.run(main())
    assert len(judged) == 4
    assert [status.in_flight for status in balancer.status()] == [0, 0]


@pytest.mark.parametrize("name", ["prepare", "hash_key", "classify"])
def test_what_such_a_function_raises_leaks_no_lease(a: Server, name: str) -> None:
    """It reaches the caller; nothing stays in flight, and blame is for set-up alone."""

    async def breaks(*_: object) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("broken")

    balancer = Balancer([a.address])
    options: dict[str, Any] = {name: breaks}

    async def main() -> None:
        async with ClientSession(middlewares=(LoadwiseMiddleware(balancer, **options),)) as session:
            with pytest.raises(RuntimeError, match="broken"):
                await session.get("http://service/")

    asyncio.run(main())
    (status,) = balancer.status()
    assert status.in_flight == 0
    assert (status.health_reason is None) is (name != "prepare")
