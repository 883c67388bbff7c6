"""Functions of the user's own that have to be awaited: where they may, and where they may not."""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import Callable, Hashable, Mapping
from importlib import import_module
from typing import Any

import pytest

from loadwise import (
    Balancer,
    ConsistentHash,
    NoopCollector,
    Outcome,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    RoundRobin,
)
from loadwise.integrations._http.settings import AsyncTransportOptions, Settings, TransportOptions
from loadwise.integrations._http.verdict import Verdict
from loadwise.integrations.aiohttp import LoadwiseMiddleware

NODES = ["10.0.0.1:80", "10.0.0.2:80"]


@pytest.fixture(params=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> Any:
    """The package under test."""
    return import_module(request.param)


@pytest.fixture
def ours(library: Any) -> Any:
    """The integration for the package under test."""
    return import_module(f"loadwise.integrations.{library.__name__}")


class Outcomes(NoopCollector):
    """Remembers how requests ended."""

    def __init__(self) -> None:
        self.seen: list[Outcome] = []

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:
        self.seen.append(outcome)


def in_flight(balancer: Balancer[Any]) -> int:
    """Requests in flight over all nodes."""
    return sum(status.in_flight for status in balancer.status())


class Later:
    """Functions to be awaited that do what the plain ones would."""

    def __init__(self) -> None:
        self.prepared: list[object] = []
        self.judged: list[object] = []

    async def prepare(self, request: Any, node: object) -> None:
        await asyncio.sleep(0)
        self.prepared.append(node)
        request.headers["X-Key"] = f"key of {node}"

    async def hash_key(self, request: Any) -> str:
        await asyncio.sleep(0)
        return str(request.headers["X-User"])

    async def classify(self, result: Any) -> Verdict | Outcome | None:
        await asyncio.sleep(0)
        self.judged.append(getattr(result, "status_code", type(result).__name__))
        if isinstance(result, Exception) or result.status_code != 418:
            return None
        return Verdict(Outcome.FAILURE, retry=True)

    def options(self, how: str) -> dict[str, Any]:
        """Return the three as bound methods, or such that it cannot be seen what they are."""
        given: dict[str, Any] = {
            "prepare": self.prepare,
            "hash_key": self.hash_key,
            "classify": self.classify,
        }
        if how == "seen":
            return given
        return {name: functools.partial(_call, each) for name, each in given.items()}


def _call(function: Callable[..., object], *given: object) -> object:
    """Return what is to be awaited, from a plain function."""
    return function(*given)


@pytest.mark.parametrize("how", ["seen", "unseen"])
def test_they_are_awaited(library: Any, ours: Any, how: str) -> None:
    """The key is the request's, each attempt is prepared, responses and errors are judged."""
    later, asked = Later(), []

    async def answer(request: Any) -> Any:
        asked.append((request.url.host, request.headers["X-Key"]))
        if len(asked) == 1:
            raise library.ConnectError("refused")
        return library.Response(418 if len(asked) == 2 else 200)

    metrics = Outcomes()
    balancer = Balancer([*NODES, "10.0.0.3:80"], ConsistentHash(), metrics=metrics)
    expected = [balancer.pick(hash_key="ada")]
    expected.append(balancer.pick(hash_key="ada", exclude=expected))
    expected.append(balancer.pick(hash_key="ada", exclude=expected))
    transport = ours.AsyncLoadwiseTransport(
        balancer, library.MockTransport(answer), **later.options(how)
    )

    async def main() -> None:
        async with library.AsyncClient(transport=transport) as client:
            response = await client.get("http://service/", headers={"X-User": "ada"})
            assert response.extensions["loadwise"] == {"node": expected[2], "attempts": 3}

    asyncio.run(main())
    assert asked == [(node.partition(":")[0], f"key of {node}") for node in expected]
    assert later.prepared == expected
    assert later.judged == ["ConnectError", 418, 200]
    assert metrics.seen == [Outcome.FAILURE, Outcome.FAILURE, Outcome.SUCCESS]
    assert in_flight(balancer) == 0


FAILURES: dict[str, type[BaseException]] = {
    "an error": RuntimeError,
    "a cancellation": asyncio.CancelledError,
}


@pytest.mark.parametrize("error", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("name", ["prepare", "hash_key", "classify"])
@pytest.mark.parametrize("ends", ["answer", "break"])
def test_what_they_raise_leaks_no_lease(
    library: Any, ours: Any, name: str, error: type[BaseException], ends: str
) -> None:
    """It reaches the caller; nothing stays in flight, no stream open.

    A node is to blame only where it could not be set up, and only the first of them.
    """

    async def breaks(*_: object) -> None:
        await asyncio.sleep(0)
        raise error("broken")

    closed: list[bool] = []

    class Stream(library.AsyncByteStream):  # type: ignore[misc]  # of either package
        async def __aiter__(self) -> Any:
            yield b"body"

        async def aclose(self) -> None:
            closed.append(True)

    class Inner(library.AsyncBaseTransport):  # type: ignore[misc]
        async def handle_async_request(self, request: Any) -> Any:
            if ends == "break":
                raise library.ReadError("broken off")
            return library.Response(200, stream=Stream())

    balancer = Balancer(NODES, RoundRobin())
    options: dict[str, Any] = {name: breaks}
    transport = ours.AsyncLoadwiseTransport(balancer, Inner(), **options)

    async def main() -> None:
        async with library.AsyncClient(transport=transport) as client:
            with pytest.raises(error):
                await client.get("http://service/")

    asyncio.run(main())
    assert in_flight(balancer) == 0
    blamed = [status.health_reason for status in balancer.status() if status.health_reason]
    not_set_up = name == "prepare" and error is RuntimeError
    assert blamed == ["1 failure, the last: set-up failed: RuntimeError: broken"] * not_set_up
    assert closed == [True] * (name == "classify" and ends == "answer")


@pytest.mark.parametrize("name", ["prepare", "hash_key", "classify"])
def test_a_cancelled_wait_leaks_no_lease(library: Any, ours: Any, name: str) -> None:
    """A request that is cancelled while such a function waits is over, and blames nobody."""
    waiting = asyncio.Event()

    async def hangs(*_: object) -> None:
        waiting.set()
        await asyncio.Event().wait()

    balancer = Balancer(["10.0.0.1:80"])
    options: dict[str, Any] = {name: hangs}
    answers = library.MockTransport(lambda _: library.Response(200))
    transport = ours.AsyncLoadwiseTransport(balancer, answers, **options)

    async def main() -> None:
        async with library.AsyncClient(transport=transport) as client:
            task = asyncio.create_task(client.get("http://service/"))
            await waiting.wait()
            assert in_flight(balancer) == (name != "hash_key")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert in_flight(balancer) == 0
    assert balancer.status()[0].health_reason is None


@pytest.mark.parametrize("name", ["prepare", "hash_key", "classify", "url"])
def test_a_synchronous_transport_cannot_wait(library: Any, ours: Any, name: str) -> None:
    """It refuses coroutine functions, and what a plain function returns to be awaited."""
    later = Later()
    function: Any = getattr(later, name, later.classify)
    balancer = Balancer(["10.0.0.1:80"])
    with pytest.raises(TypeError, match=rf"{name} is <.*which is to be awaited; .*give a plain"):
        ours.LoadwiseTransport(balancer, **{name: function})
    answers = library.MockTransport(lambda _: library.Response(200))
    options: dict[str, Any] = {name: functools.partial(_call, function)}

    def send() -> None:
        transport = ours.LoadwiseTransport(balancer, answers, **options)
        with library.Client(transport=transport) as client:
            client.get("http://service/", headers={"X-User": "ada"})

    with pytest.raises(TypeError, match=rf"{name}.* returned <corou.*, which is to be awaited; "):
        send()
    gc.collect()  # a coroutine that was not closed warns now
    assert in_flight(balancer) == 0
    if name in {"hash_key", "classify"}:
        assert balancer.status()[0].health_reason is None


async def url_later(_: object) -> str:
    """Return a base URL."""
    return "http://10.0.0.1"


def test_an_address_is_never_waited_for(ours: Any) -> None:
    """Where a node is must be known at once, also by the asynchronous transports."""
    wrong: Any
    for wrong, words in (
        (url_later, "url is <.*>, which is to be awaited; give a plain"),
        (functools.partial(_call, url_later), "url, asked of node 'a', returned <coroutine"),
    ):
        for make in (ours.AsyncLoadwiseTransport, LoadwiseMiddleware):
            with pytest.raises(TypeError, match=words):
                make(Balancer(["a"]), url=wrong)
    gc.collect()


class Meter:
    """A meter some of whose methods are given."""

    def __init__(self, **methods: Any) -> None:
        vars(self).update(methods)

    def estimate(self, body: bytes) -> Mapping[str, float]:
        return {}

    def reader(self, content_type: str) -> None:
        return None


@pytest.mark.parametrize("name", ["estimate", "reader", "refused"])
def test_a_meter_does_not_wait(library: Any, ours: Any, name: str) -> None:
    """Its methods answer at once, with every transport."""

    async def method(*_: object) -> Any:
        return {}

    quota = QuotaTracker()
    quota.register("10.0.0.1:80", QuotaConfig([QuotaDimension("rpm", 10)]))
    balancer = Balancer(["10.0.0.1:80"], quota=quota)
    for make in (ours.LoadwiseTransport, ours.AsyncLoadwiseTransport, LoadwiseMiddleware):
        with pytest.raises(TypeError, match=rf"meter is .* whose {name} is to be awaited; a meter"):
            make(balancer, meter=Meter(**{name: method}))
    meter = Meter(**{name: lambda *_: method()})
    answers = library.MockTransport(lambda _: library.Response(429 if name == "refused" else 200))
    transport = ours.LoadwiseTransport(balancer, answers, meter=meter, max_attempts=1)
    message = rf"{name}\(\) of the meter returned <coroutine"
    with library.Client(transport=transport) as client, pytest.raises(TypeError, match=message):
        client.get("http://service/")
    gc.collect()
    assert in_flight(balancer) == 0


def test_a_verdict_is_made_of_an_outcome() -> None:
    """A text in the place of an outcome is refused where it is given, and so is a wrong flag."""
    wrong: Any = "failure"
    with pytest.raises(TypeError, match="outcome is 'failure'; it must be one of Outcome"):
        Verdict(wrong)
    for name in ("retry", "never_sent"):
        options: dict[str, Any] = {name: "no"}
        with pytest.raises(TypeError, match=f"{name} is 'no'; it must be True or False"):
            Verdict(Outcome.FAILURE, **options)


def test_the_options_of_both_are_the_same() -> None:
    """What a transport that can await takes is known to the other by the same names."""
    assert TransportOptions.__optional_keys__ == AsyncTransportOptions.__optional_keys__
    own = {"balancer", "awaits", "metering", "reads_bodies", "reads_prompts", "repeatable"}
    current = TransportOptions.__optional_keys__ - {"max_pause"}
    assert set(Settings.__slots__) == own | current
