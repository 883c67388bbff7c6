"""SDK clients as their users build them, with the SDKs' own defaults, over a balancer."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from tests.real.llm.asking import ask, client_of, may_repeat, may_repeat_async, run
from tests.real.llm.conftest import Scripted

from loadwise import Balancer, RoundRobin
from loadwise.integrations.httpx2 import AsyncLoadwiseTransport, LoadwiseTransport
from loadwise.integrations.llm import classify_llm

BOTH = pytest.mark.parametrize("sdk", ["chat", "anthropic"])
MODES = pytest.mark.parametrize("mode", ["sync", "async"])


def client_by_hand(
    sdk: str, mode: str, balancer: Balancer[str], *, retries: int = 0, **options: Any
) -> Any:
    """Return a client over the SDK's own default HTTP client."""
    package: Any = anthropic if sdk == "anthropic" else openai
    options = {
        "classify": classify_llm,
        "limits": package.DEFAULT_CONNECTION_LIMITS,
        "url": (lambda node: node) if sdk == "anthropic" else (lambda node: f"{node}/v1"),
        **options,
    }
    if mode == "sync":
        http = package.DefaultHttpxClient(
            transport=LoadwiseTransport(balancer, **options), event_hooks={"request": [may_repeat]}
        )
    else:
        http = package.DefaultAsyncHttpxClient(
            transport=AsyncLoadwiseTransport(balancer, **options),
            event_hooks={"request": [may_repeat_async]},
        )
    return client_of(sdk, mode, base_url="http://llm", http_client=http, retries=retries)


def answers(sdk: str, mode: str, client: Any) -> list[str]:
    """Return the answer to one prompt, and close the client."""

    async def main() -> list[str]:
        try:
            return [await ask(sdk, mode, client)]
        finally:
            closing = client.close()
            if mode == "async":
                await closing

    return run(mode, main())


@BOTH
@MODES
def test_redirects_are_followed(provider: Scripted, sdk: str, mode: str) -> None:
    """As the SDK's client does by default; to a node, they go by the balancer."""
    other = provider.node()
    node = provider.node(onward="/" + other.rpartition("/")[2])
    client = client_by_hand(sdk, mode, Balancer([node]))
    assert answers(sdk, mode, client) == ["answer"]
    assert (provider.asked(node), provider.asked(other)) == (1, 1)


@BOTH
@MODES
def test_its_own_retries_multiply(provider: Scripted, sdk: str, mode: str) -> None:
    """Each of them asks the nodes anew, so that it is better without."""
    nodes = [provider.node(status=500, headers={"retry-after-ms": "1"}) for _ in range(2)]
    client = client_by_hand(sdk, mode, Balancer(nodes, RoundRobin(), health=False), retries=2)
    assert answers(sdk, mode, client) == ["InternalServerError 500"]
    asked = sum(provider.asked(node) for node in nodes)
    # A node may still be on cooldown for its millisecond when the SDK tries again.
    assert 4 <= asked <= 6


@BOTH
@MODES
def test_proxies(provider: Scripted, sdk: str, mode: str) -> None:
    """They are given to the transport that sends, for all nodes or for each."""
    # A proxy is asked for whole URLs, of hosts that need not exist; this one answers by itself.
    kind = httpx2.HTTPTransport if mode == "sync" else httpx2.AsyncHTTPTransport
    node = "http://nowhere.invalid/n-proxied"
    options: dict[str, Any] = {"limits": None, "transport": kind(proxy=provider.origin)}
    client = client_by_hand(sdk, mode, Balancer([node]), **options)
    assert answers(sdk, mode, client) == ["answer"]


def test_connections_as_many_as_the_sdks(provider: Scripted) -> None:
    """None of 250 prompts waits for the others, which are all held back."""
    node = provider.node(hold=250)
    client = client_by_hand("chat", "async", Balancer([node]))

    async def main() -> list[str]:
        try:
            return list(await asyncio.gather(*(ask("chat", "async", client) for _ in range(250))))
        finally:
            await client.close()

    assert asyncio.run(main()) == ["answer"] * 250
