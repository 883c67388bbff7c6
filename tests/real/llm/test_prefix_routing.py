"""Prefix affinity through real SDKs and HTTP clients, to real servers that cache prefixes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest
import requests
from anthropic import Anthropic
from benchmarks.prefix_fleet import BLOCKS, asker, cached_share, converse, servers

from loadwise import Balancer, RoundRobin, Strategy
from loadwise.integrations.aiohttp import LoadwiseMiddleware
from loadwise.integrations.httpx import LoadwiseTransport
from loadwise.integrations.httpx2 import LoadwiseTransport as OverHttpx2
from loadwise.integrations.llm import KeyPool
from loadwise.integrations.requests import LoadwiseAdapter
from loadwise.llm import PrefixAffinity, PrefixIndex


@pytest.fixture(scope="module")
def urls() -> Iterator[list[str]]:
    """Nine servers that compute in no time."""
    with servers(9, rate=0.0) as found:
        yield found


def affinity() -> PrefixAffinity[Any]:
    """Return the strategy with an index as large as a server's cache."""
    return PrefixAffinity(PrefixIndex(BLOCKS // 4))


def test_openai_sdk_finds_its_prefixes(urls: list[str]) -> None:
    """Streamed conversations are cached but for their news, and by turns they are not."""
    shares: list[float] = []
    strategies: list[Strategy[str]] = [affinity(), RoundRobin()]
    for strategy, mine in zip(strategies, (urls[:3], urls[3:6]), strict=True):
        waits: list[float] = []
        with asker(strategy, mine) as ask:
            for number in range(5):
                converse(ask, f"user-{number}", 5, waits)
        assert len(waits) == 25
        shares.append(cached_share(mine))
    assert shares[0] > shares[1] + 0.1
    assert strategies[0].facts(mine)["pending"] == [0.0] * 3  # type: ignore[attr-defined]  # the first has it


def test_anthropic_sdk_finds_its_prefixes(urls: list[str]) -> None:
    """Messages of a conversation go where it began, and the answers say that it was cached."""
    strategy = affinity()
    with Anthropic(
        api_key="none",
        base_url="http://fleet",
        http_client=httpx2.Client(transport=OverHttpx2(Balancer(urls[6:], strategy))),
    ) as client:
        messages: list[Any] = []
        read: list[int] = []
        for turn in range(4):
            messages.append({"role": "user", "content": f"{turn}: " + "what of the sea? " * 60})
            with client.messages.stream(model="sea", max_tokens=9, messages=messages) as stream:
                answer = "".join(stream.text_stream)
                usage = stream.get_final_message().usage
            read.append(usage.cache_read_input_tokens or 0)
            messages.append({"role": "assistant", "content": answer})
    assert read[0] == 0
    assert read[1:] == sorted(read[1:])
    assert read[1] > 200
    assert sum(blocks > 0 for blocks in strategy.facts(urls[6:])["blocks"]) == 1


def _by_httpx(balancer: Balancer[str], bodies: list[bytes]) -> None:
    with httpx.Client(transport=LoadwiseTransport(balancer)) as client:
        for body in bodies:
            client.post("http://fleet/v1/chat/completions", content=body).raise_for_status()


def _by_requests(balancer: Balancer[str], bodies: list[bytes]) -> None:
    with requests.Session() as session:
        session.mount("http://fleet/", LoadwiseAdapter(balancer))
        for body in bodies:
            session.post("http://fleet/v1/chat/completions", data=body).raise_for_status()


def _by_aiohttp(balancer: Balancer[str], bodies: list[bytes]) -> None:
    async def main() -> None:
        async with aiohttp.ClientSession(middlewares=[LoadwiseMiddleware(balancer)]) as session:
            for body in bodies:
                url = "http://fleet/v1/chat/completions"
                async with session.post(url, data=body) as answer:
                    await answer.read()

    asyncio.run(main())


@pytest.mark.parametrize("send", [_by_httpx, _by_requests, _by_aiohttp])
def test_each_client_reads_prompts(
    urls: list[str], send: Callable[[Balancer[str], list[bytes]], None]
) -> None:
    """Two prompts in turn each stay where they were first, whatever sends them."""
    balancer: Balancer[str] = Balancer(urls, affinity())
    texts = [f"{send.__name__} {name}: " + "what of the sea? " * 60 for name in "ab"]
    bodies = [
        json.dumps({"messages": [{"role": "user", "content": text}]}).encode() for text in texts
    ]
    send(balancer, bodies * 4)
    assert sorted(s.recent_successes for s in balancer.status())[-3:] == [0, 4, 4]


def test_usage_corrects_the_index(urls: list[str]) -> None:
    """A server that had less than was thought has lost what it was sent before that, too."""
    strategy = affinity()
    node = urls[0]
    prompt = "what of the sky? " * 100
    body = {"messages": [{"role": "user", "content": prompt}]}
    index = strategy.index
    index.insert("an older prompt " * 100, node)
    # What the transport will read, and the server has never seen.
    index.insert(f"messages\nrole\nuser\ncontent\n{prompt}", node)
    index.insert("a newer prompt " * 100, node)
    _by_httpx(Balancer([node], strategy), [json.dumps(body).encode()])
    assert index.match("an older prompt " * 100) == {}
    assert index.match("a newer prompt " * 100) != {}
    assert index.match(f"messages\nrole\nuser\ncontent\n{prompt}") != {}


def test_a_pool_of_keys_reads_prompts(urls: list[str]) -> None:
    """Keys are nodes as any: a conversation stays with its key where that has the cache."""
    pool = KeyPool(
        [{"key": f"k{n}", "base_url": f"{url}/v1", "rpm": 1000} for n, url in enumerate(urls[:3])],
        strategy=affinity(),
    )
    with pool.openai() as client:
        for turn in range(4):
            asked: Any = [{"role": "user", "content": "what of the pool? " * 60 + f"{turn}"}]
            for _ in client.chat.completions.create(model="sea", messages=asked, stream=True):
                pass
    assert sorted(s.recent_successes for s in pool.balancer.status()) == [0, 0, 4]
