"""Rate limits are no failures: other keys are asked as long as there are any, then it is waited."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest
from tests.real.llm.asking import ask, client_of, openai_url, over, run
from tests.real.llm.conftest import Scripted

from loadwise import (
    Balancer,
    NoNodeAvailable,
    PowerOfTwoChoices,
    RetryBudget,
    RoundRobin,
    Strategy,
    by_id,
)
from loadwise.integrations.aiohttp import LoadwiseMiddleware
from loadwise.integrations.httpx import LoadwiseTransport as HttpxTransport
from loadwise.integrations.httpx2 import AsyncLoadwiseTransport, LoadwiseTransport
from loadwise.integrations.llm import classify_llm
from loadwise.load import InFlight
from loadwise.metrics import NoopCollector
from loadwise.testing import ManualClock, VirtualClock

MODES = pytest.mark.parametrize("mode", ["sync", "async"])
NO_RETRIES = RetryBudget(ratio=0.0, floor=0.0)
LIMITED = {"status": 429, "headers": {"Retry-After": "20"}}


async def ask_at_once(
    mode: str, prompts: int, balancer: Balancer[str], **options: Any
) -> list[str]:
    """Return the answers to prompts that are asked all at once."""
    client = client_of(
        "chat", mode, base_url="http://llm", http_client=over(balancer, mode, **options)
    )
    try:
        if mode == "async":
            return list(await asyncio.gather(*(ask("chat", mode, client) for _ in range(prompts))))
        with ThreadPoolExecutor(50) as threads:
            one = lambda _: run(mode, ask("chat", mode, client))  # noqa: E731 - in other threads
            return list(threads.map(one, range(prompts)))
    finally:
        closing = client.close()
        if mode == "async":
            await closing


@MODES
@pytest.mark.parametrize("prompts", [1, 250])
@pytest.mark.parametrize("classify", [None, classify_llm])
def test_one_free_key_of_five_is_enough(
    provider: Scripted, mode: str, prompts: int, classify: Any
) -> None:
    """Whatever attempts and budget say, by any strategy, for one prompt and for many at once."""
    # None is answered until all prompts have been sent, as far as this client sends them at once.
    keys = [provider.node(**LIMITED, hold=min(prompts // 5, 8)) for _ in range(4)]
    keys.append(provider.node())
    strategies: list[Strategy[str]] = [RoundRobin(), PowerOfTwoChoices(InFlight())]
    for strategy in strategies:
        balancer = Balancer(keys, strategy)
        options = {} if classify is None else {"classify": classify}
        answers = run(
            mode, ask_at_once(mode, prompts, balancer, budget=NO_RETRIES, max_attempts=2, **options)
        )
        assert answers == ["answer"] * prompts
    assert provider.asked(keys[4]) == 2 * prompts
    assert sum(provider.asked(key) for key in keys[:4]) <= 8 * prompts


def test_each_key_is_asked_once(provider: Scripted) -> None:
    """If all are limited, the last answer is what the caller gets."""
    keys = [provider.node(**LIMITED) for _ in range(5)]
    answers = run("sync", ask_at_once("sync", 1, Balancer(keys), budget=NO_RETRIES))
    assert answers == ["RateLimitError 429"]
    assert [provider.asked(key) for key in keys] == [1] * 5


def test_one_attempt_is_one(provider: Scripted) -> None:
    """Who wants no retries at all gets none."""
    keys = [provider.node(**LIMITED), provider.node()]
    answers = run("sync", ask_at_once("sync", 1, Balancer(keys, RoundRobin()), max_attempts=1))
    assert answers == ["RateLimitError 429"]
    assert provider.asked(keys[1]) == 0


def test_failures_use_up_attempts_as_ever(provider: Scripted) -> None:
    """Limits between them count for nothing."""
    keys = [provider.node(**(LIMITED if each % 2 else {"status": 500})) for each in range(6)]
    answers = run("sync", ask_at_once("sync", 1, Balancer(keys, RoundRobin()), max_attempts=2))
    assert answers == ["InternalServerError 500"]
    assert [provider.asked(key) for key in keys] == [1, 1, 1, 0, 0, 0]


@MODES
def test_the_only_key_is_waited_for(provider: Scripted, mode: str) -> None:
    """It is asked again when its cooldown is over, and not before."""
    key = provider.node(status=429, headers={"retry-after-ms": "60"}, times=2)
    answers = run(
        mode, ask_at_once(mode, 1, Balancer([key]), timeout=30.0, budget=NO_RETRIES, max_attempts=2)
    )
    assert answers == ["answer"]
    assert provider.asked(key) == 3


@MODES
def test_nobody_waits_for_longer_than_is_said(provider: Scripted, mode: str) -> None:
    """The answer of the key that was asked last is what the caller gets."""
    key = provider.node(**LIMITED)
    answers = run(mode, ask_at_once(mode, 1, Balancer([key]), timeout=0.05))
    assert answers == ["RateLimitError 429"]
    answers = run(mode, ask_at_once(mode, 1, Balancer([key]), timeout=30.0, deadline=0.05))
    assert answers == ["RateLimitError 429"]
    assert provider.asked(key) == 2


def test_nobody_waits_in_vain() -> None:
    """A key that is refused is not waited for."""
    clock = VirtualClock()
    balancer = Balancer(["http://a"], clock=clock)
    refuse = httpx2.MockTransport(lambda _: httpx2.Response(401))
    transport = LoadwiseTransport(balancer, refuse, classify=classify_llm, timeout=3_000.0)
    with httpx2.Client(transport=transport) as client:
        assert client.post("http://llm/").status_code == 401
    assert clock() == 0.0


@MODES
def test_one_of_two_is_waited_for(provider: Scripted, mode: str) -> None:
    """The one that is limited, where the last that was asked is refused."""
    limited = provider.node(status=429, headers={"retry-after-ms": "60"}, times=1)
    balancer = Balancer([limited, provider.node(status=401)], RoundRobin())
    assert run(mode, ask_at_once(mode, 1, balancer, timeout=30.0)) == ["answer"]


@MODES
def test_what_frees_wakes_who_waits(provider: Scripted, mode: str) -> None:
    """A slot that is given back, or a cooldown that is lifted, and not only the clock."""
    busy = provider.node()
    balancer = Balancer([busy], max_in_flight=1)
    answers = run(mode, ask_at_once(mode, 12, balancer, timeout=30.0))
    assert answers == ["answer"] * 12

    limited = provider.node(status=429, headers={"Retry-After": "20"}, times=1)
    balancer = Balancer([limited])

    async def main() -> list[str]:
        asking = asyncio.create_task(ask_at_once("async", 1, balancer, timeout=30.0))
        while balancer.status()[0].cooldown is None:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.001)
        balancer.lift(limited)
        return await asking

    if mode == "async":
        assert asyncio.run(main()) == ["answer"]


def test_a_request_may_say_for_itself(provider: Scripted) -> None:
    """What it says goes before what the client says."""
    key = provider.node(status=429, headers={"retry-after-ms": "40"}, times=1)
    transport = LoadwiseTransport(Balancer([key]), classify=classify_llm, timeout=30.0)
    with httpx2.Client(transport=transport) as client:
        own = {"loadwise": {"retry": True, "timeout": 0.0}}
        response = client.post("http://llm/v1/responses", json={}, extensions=own)
        assert response.status_code == 429
        more = {"loadwise": {"retry": True}}
        response = client.post("http://llm/v1/responses", json={}, extensions=more)
        assert (response.status_code, response.extensions["loadwise"]["attempts"]) == (200, 1)


def test_the_deadline_begins_with_the_request() -> None:
    """Time that was waited for a node is not there for attempts."""
    clock = ManualClock()
    balancer = Balancer(["http://a"], max_in_flight=1, clock=clock)
    left: list[float] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        left.append(request.extensions["timeout"]["read"])
        return httpx2.Response(200)

    async def main() -> None:
        transport = AsyncLoadwiseTransport(
            balancer, httpx2.MockTransport(answer), timeout=30.0, deadline=10.0
        )
        async with httpx2.AsyncClient(transport=transport, timeout=60.0) as client:
            held = balancer.acquire()
            asking = asyncio.create_task(client.get("http://llm/"))
            while not balancer.waiting:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0)
            clock.advance(6.0)
            held.success()
            assert (await asking).status_code == 200

    asyncio.run(main())
    assert left == [4.0]


def test_httpx_and_aiohttp_do_the_same(provider: Scripted) -> None:
    """All clients go by the same rules."""
    keys = [provider.node(**LIMITED) for _ in range(4)] + [provider.node()]
    with httpx.Client(
        transport=HttpxTransport(Balancer(keys, RoundRobin()), classify=classify_llm)
    ) as client:
        retry = {"loadwise": {"retry": True}}
        response = client.post("http://llm/v1/responses", json={}, extensions=retry)
        assert (response.status_code, response.extensions["loadwise"]["attempts"]) == (200, 5)

    waited = provider.node(status=429, headers={"retry-after-ms": "30"}, times=1)

    async def main() -> None:
        for nodes, asked in ((keys, 5), ([waited], 2)):
            middleware = LoadwiseMiddleware(
                Balancer(nodes, RoundRobin()), classify=classify_llm, timeout=30.0
            )
            async with aiohttp.ClientSession(middlewares=[middleware]) as session:
                headers = {"Idempotency-Key": "1"}
                url = "http://llm/v1/responses"
                async with session.post(url, json={}, headers=headers) as response:
                    assert response.status == 200
            assert sum(provider.asked(node) for node in nodes) >= asked

    asyncio.run(main())


class Retries(NoopCollector):
    """Keeps what is told of retries, and of requests without a node."""

    def __init__(self) -> None:
        self.retries: list[str] = []
        self.refused: list[str] = []
        self.without: list[str] = []

    def on_unavailable(self, reason: str) -> None:
        """Keep why there was no node."""
        self.without.append(reason)

    def on_retry(self, node_id: Hashable, reason: str) -> None:
        """Keep why there was one."""
        self.retries.append(reason)

    def on_retry_refused(self, reason: str) -> None:
        """Keep why there was none."""
        self.refused.append(reason)


def test_retries_and_those_refused_are_counted() -> None:
    """Each once, whatever has been waited for."""
    clock = VirtualClock()
    collector = Retries()
    balancer = Balancer(["http://a", "http://b"], RoundRobin(), clock=clock, metrics=collector)
    bad = iter([429, 429, 500, 429])
    transport = LoadwiseTransport(
        balancer,
        httpx2.MockTransport(lambda _: httpx2.Response(next(bad, 200))),
        classify=classify_llm,
        timeout=5.0,
    )
    with httpx2.Client(transport=transport) as client:
        response = client.post("http://llm/v1/responses")
        assert (response.status_code, response.extensions["loadwise"]["attempts"]) == (200, 5)
    assert collector.retries == ["rate_limited", "rate_limited", "failure", "rate_limited"]
    # It was served: that it had to wait is told as a wait.
    assert (collector.refused, collector.without) == ([], [])
    assert clock() == 2.0

    bad = iter([429] * 20)
    with httpx2.Client(transport=transport) as client:
        assert client.post("http://llm/v1/responses").status_code == 429
    assert (collector.refused, collector.without) == (["no_node"], ["rate_limited"])


@pytest.mark.parametrize("client", ["sync", "async", "aiohttp"])
def test_keys_that_rest_for_longer_are_not_waited_for_at_first_either(client: str) -> None:
    """Who asks next is told at once, and that is counted once; a shorter rest is waited for."""
    clock, collector = VirtualClock(), Retries()
    balancer = Balancer(["http://a", "http://b"], clock=clock, metrics=collector)
    for node in balancer.nodes:
        balancer.acquire(where=by_id(node)).rate_limited(3_600.0)
    options: dict[str, Any] = {"classify": classify_llm, "timeout": 60.0}
    good = httpx2.MockTransport(lambda _: httpx2.Response(200))

    def ask_sync() -> None:
        with httpx2.Client(transport=LoadwiseTransport(balancer, good, **options)) as http:
            http.post("http://llm/")

    async def ask_async() -> None:
        transport = AsyncLoadwiseTransport(balancer, good, **options)
        async with httpx2.AsyncClient(transport=transport) as http:
            await http.post("http://llm/")

    async def ask_aiohttp() -> None:
        middleware = LoadwiseMiddleware(balancer, **options)
        async with aiohttp.ClientSession(middlewares=[middleware]) as session:
            await session.post("http://llm/")

    def ask_once() -> None:
        if client == "sync":
            ask_sync()
        else:
            asking = ask_async() if client == "async" else ask_aiohttp()
            asyncio.run(asyncio.wait_for(asking, 30))

    for _ in range(2):
        with pytest.raises(NoNodeAvailable) as caught:
            ask_once()
        assert caught.value.retry_after == 3_600.0
    assert collector.without == ["rate_limited"] * 2
    assert clock() == 0.0
    if client == "sync":
        clock.advance(3_550.0)
        ask_once()
        assert clock() == 3_600.0


def test_a_synchronous_client_waits_in_a_notebook_too() -> None:
    """There an event loop runs in the thread; any request of such a client stops it."""
    clock = VirtualClock()
    statuses = iter([429, 200, 429])
    inner = httpx2.MockTransport(lambda _: httpx2.Response(next(statuses)))
    balancer = Balancer(["http://a"], clock=clock)

    async def cell() -> None:
        transport = LoadwiseTransport(balancer, inner, classify=classify_llm, timeout=30.0)
        with httpx2.Client(transport=transport) as client:
            assert client.post("http://llm/").status_code == 200
            # For any time is too long: what it waits for may be for another task to do.
            forever = {"loadwise": {"timeout": None}}
            with pytest.raises(RuntimeError, match="would stop the event loop"):
                client.post("http://llm/", extensions=forever)

    asyncio.run(cell())
    assert clock() == 1.0
    assert balancer.status()[0].in_flight == 0


def test_wrong_timeouts_are_refused() -> None:
    """A wait is no less than nothing."""
    balancer = Balancer(["http://a"])
    with pytest.raises(ValueError, match=r"timeout is -1"):
        LoadwiseTransport(balancer, url=openai_url, timeout=-1)
    with pytest.raises(TypeError, match="timeout"):
        LoadwiseTransport(balancer, url=openai_url, timeout="1")  # type: ignore[arg-type]
