"""Charges by the transports: by status, body, headers, and ends of streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest
from aiohttp import web

from loadwise import Balancer, QuotaConfig, QuotaDimension, QuotaTracker
from loadwise.integrations import aiohttp as over_aiohttp
from loadwise.integrations import httpx as over_httpx
from loadwise.integrations import httpx2 as over_httpx2
from loadwise.integrations.llm import TokenMeter
from loadwise.testing import ManualClock

A = "http://a/v1"
TPM = 200_000
PROMPT = {"messages": [{"role": "user", "content": "x" * 385}], "max_tokens": 900}  # 100 and 900
USED = {"usage": {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100}}


def limited(*ids: str, **limits: float) -> QuotaTracker:
    """Return quotas by a clock that stands still."""
    quota = QuotaTracker(ManualClock())
    limits = limits if "itpm" in limits else {"rpm": 9_999, **limits}
    for each in ids:
        dimensions = [
            QuotaDimension(name, limit, default_cost=int(name == "rpm"))
            for name, limit in limits.items()
        ]
        quota.register(each, QuotaConfig(dimensions))
    return quota


def ask(
    package: Any,
    quota: QuotaTracker,
    answer: Callable[[Any], Any],
    mode: str = "sync",
    *,
    path: str = "/chat/completions",
    body: Any = PROMPT,
    meter: Any = None,
    **options: Any,
) -> Any:
    """Send a request by a client of a package, synchronously or not; return the response."""
    integration = over_httpx2 if package is httpx2 else over_httpx
    balancer = Balancer([A], quota=quota, clock=quota.clock)
    options = {"meter": meter or TokenMeter(), **options}
    inner = package.MockTransport(answer)
    if mode == "sync":
        transport = integration.LoadwiseTransport(balancer, inner, **options)
        with package.Client(transport=transport) as client:
            return client.post(f"http://llm{path}", json=body)

    async def main() -> Any:
        transport = integration.AsyncLoadwiseTransport(balancer, inner, **options)
        async with package.AsyncClient(transport=transport) as client:
            return await client.post(f"http://llm{path}", json=body)

    return asyncio.run(main())


PACKAGES = pytest.mark.parametrize("package", [httpx2, httpx], ids=["httpx2", "httpx"])
MODES = pytest.mark.parametrize("mode", ["sync", "async"])


@PACKAGES
@MODES
@pytest.mark.parametrize(
    ("status", "left"),
    [*((status, TPM) for status in (400, 401, 404, 408, 413, 422, 429, 529)), (500, TPM - 1_000)],
)
def test_refused_requests_have_used_a_request_and_no_tokens(
    package: Any, mode: str, status: int, left: int
) -> None:
    """What was reserved of tokens is free again at once; of a server's error nothing is known."""
    quota = limited(A, rpm=9, tpm=TPM)
    ask(package, quota, lambda _: package.Response(status, json={"error": {}}), mode)
    assert quota.remaining_by_dimension(A) == {"rpm": 8, "tpm": left}


def test_tokens_of_prompts_and_answers_are_settled_apart() -> None:
    """Nothing of what was reserved for the answer stays, nor what an error has reserved."""
    quota = limited(A, itpm=1_000, otpm=2_000)
    meter = TokenMeter(None, input="itpm", output="otpm")
    ask(httpx2, quota, lambda _: httpx2.Response(400, json={}), meter=meter)
    assert quota.remaining_by_dimension(A) == {"itpm": 1_000, "otpm": 2_000}
    ask(httpx2, quota, lambda _: httpx2.Response(200, json=USED), meter=meter)
    assert quota.remaining_by_dimension(A) == {"itpm": 910, "otpm": 1_990}


@PACKAGES
@MODES
def test_an_answer_of_megabytes_is_settled_like_a_small_one(package: Any, mode: str) -> None:
    """Images and embeddings come before the usage."""
    quota = limited(A, tpm=TPM)
    data = {"data": [{"b64_json": "A" * 1_600_000}], **USED}
    ask(package, quota, lambda _: package.Response(200, json=data), mode)
    assert quota.remaining(A, "tpm") == TPM - 100


def test_the_path_tells_what_is_asked_for() -> None:
    """Eight requests that use few tokens or none pass where one prompt would."""
    quota = limited(A, tpm=1_500)
    body = {"input": "x" * 400}
    for path in ("/moderations", "/embeddings?x=1", "/messages/count_tokens", "/files"):
        for _ in range(2):
            ask(httpx2, quota, lambda _: httpx2.Response(200, json={}), path=path, body=body)
    assert quota.remaining(A, "tpm") == 1_500 - 2 * (100 + 100)


HEADERS = {"x-ratelimit-limit-tokens": str(TPM), "x-ratelimit-remaining-tokens": "150000"}
ANTHROPICS = {"anthropic-ratelimit-tokens-remaining": "150000"}


@MODES
@pytest.mark.parametrize("headers", [HEADERS, ANTHROPICS])
@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("before", [0, 120_000])
def test_what_headers_say_is_left_corrects_the_quota(
    mode: str, headers: dict[str, str], status: int, before: int
) -> None:
    """Down where others use the key, up where estimates were too careful."""
    quota = limited(A, rpm=9, tpm=TPM)
    quota.record_usage(A, {"tpm": before})
    ask(httpx2, quota, lambda _: httpx2.Response(status, headers=headers, json=USED), mode)
    assert quota.remaining_by_dimension(A) == {"rpm": 8, "tpm": 150_000}


@pytest.mark.parametrize("value", ["", "-1", "nan", "1e3", "soon", "9" * 50, "1,000", "٣"])
def test_nonsense_in_headers_is_ignored(value: str) -> None:
    """Only digits are numbers."""
    quota = limited(A, tpm=TPM)
    headers = {b"x-ratelimit-remaining-tokens": value.encode()}
    ask(httpx2, quota, lambda _: httpx2.Response(200, headers=headers, json=USED))
    assert quota.remaining(A, "tpm") == TPM - 100


def test_a_limit_that_is_hit_is_for_the_pause_to_tell() -> None:
    """A 429 says that nothing remains; the key is back when its cooldown is over."""
    quota = limited(A, tpm=TPM)
    headers = {"x-ratelimit-remaining-tokens": "0", "Retry-After": "2"}
    ask(httpx2, quota, lambda _: httpx2.Response(429, headers=headers))
    assert quota.remaining(A, "tpm") == TPM


def event(data: Any) -> bytes:
    """Return an event as text."""
    return f"data: {json.dumps(data)}\n\n".encode()


WORD = event({"choices": [{"index": 0, "delta": {"content": "w" * 40}}]})


class Words(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A stream of ten words without an end."""

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(10):
            yield WORD

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(10):
            yield WORD


@MODES
def test_a_stream_closed_early_is_charged_what_was_seen(mode: str) -> None:
    """The prompt as estimated and the words that came, not the most that it may have answered."""
    quota = limited(A, tpm=TPM)
    balancer = Balancer([A], quota=quota, clock=quota.clock)
    headers = {"content-type": "text/event-stream"}
    inner = httpx2.MockTransport(lambda _: httpx2.Response(200, headers=headers, stream=Words()))
    if mode == "sync":
        transport = over_httpx2.LoadwiseTransport(balancer, inner, meter=TokenMeter())
        with (
            httpx2.Client(transport=transport) as client,
            client.stream("POST", "http://llm/chat/completions", json=PROMPT) as response,
        ):
            pieces = response.iter_raw()
            assert [next(pieces), next(pieces)] == [WORD, WORD]
    else:

        async def main() -> None:
            transport = over_httpx2.AsyncLoadwiseTransport(balancer, inner, meter=TokenMeter())
            async with (
                httpx2.AsyncClient(transport=transport) as client,
                client.stream("POST", "http://llm/chat/completions", json=PROMPT) as response,
            ):
                pieces = response.aiter_raw()
                assert [await anext(pieces), await anext(pieces)] == [WORD, WORD]
                await pieces.aclose()

        asyncio.run(main())
    assert quota.remaining(A, "tpm") == TPM - 100 - 20


GONE = web.AppKey("gone", asyncio.Event)


async def serve(request: web.Request) -> web.StreamResponse:
    """Answer as the path says."""
    if request.path.endswith("/bad"):
        return web.json_response({}, status=400, headers=HEADERS)
    if request.path.endswith("/long"):
        return web.json_response({"data": "A" * 1_600_000, **USED})
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(WORD)
    await asyncio.wait_for(request.app[GONE].wait(), 20)
    return response


@pytest.mark.parametrize(
    ("path", "left"), [("bad", 150_000), ("long", TPM - 100), ("s", TPM - 110)]
)
def test_aiohttp_settles_as_the_others_do(path: str, left: int) -> None:
    """By status and headers, by a long body, and by what was seen of a stream."""

    async def main() -> float:
        app = web.Application()
        app[GONE] = asyncio.Event()
        app.router.add_post("/{path}", serve)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        node = f"http://127.0.0.1:{runner.addresses[0][1]}"
        quota = limited(node, tpm=TPM)
        balancer = Balancer([node], quota=quota, clock=quota.clock)
        middleware = over_aiohttp.LoadwiseMiddleware(balancer, meter=TokenMeter())
        try:
            async with aiohttp.ClientSession(middlewares=(middleware,)) as session:
                response = await session.post(f"http://llm/{path}", json=PROMPT)
                if path == "s":
                    assert await response.content.readexactly(len(WORD)) == WORD
                    response.close()
                else:
                    await response.read()
                    response.release()
            return quota.remaining(node, "tpm")
        finally:
            app[GONE].set()
            await runner.cleanup()

    assert asyncio.run(main()) == left
