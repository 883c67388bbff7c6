"""Answers that break off or turn out to be errors before anybody has seen any of them."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import httpx
import httpx2
import pytest
from tests.real.llm.asking import MESSAGES, ask, ask_over, client_of, over, run
from tests.real.llm.conftest import Scripted

from loadwise import Balancer, QuotaConfig, QuotaDimension, QuotaTracker, RoundRobin
from loadwise.integrations import httpx as over_httpx
from loadwise.integrations import httpx2 as over_httpx2
from loadwise.integrations.llm import TokenMeter, classify_llm
from loadwise.testing import ManualClock

SDKS = pytest.mark.parametrize("sdk", ["chat", "responses", "anthropic"])
MODES = pytest.mark.parametrize("mode", ["sync", "async"])
PACKAGES = pytest.mark.parametrize("package", [httpx2, httpx], ids=["httpx2", "httpx"])
EVENTS = {"Content-Type": "text/event-stream"}
JSON = {"Content-Type": "application/json"}
WORD = b'data: {"choices": [{"delta": {"content": "hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
REFUSED = b'data: {"error": {"code": "server_error", "message": "no"}}\n\n'


@SDKS
@MODES
def test_an_answer_that_breaks_off(provider: Scripted, sdk: str, mode: str) -> None:
    """Its length was not told; the SDK alone would ask again, and so another node is asked."""
    base = provider.node(**{"break": True, "times": 1})

    async def alone() -> str:
        url = base if sdk == "anthropic" else f"{base}/v1"
        client = client_of(sdk, mode, base_url=url, retries=1)
        try:
            return await ask(sdk, mode, client)
        finally:
            closing = client.close()
            if mode == "async":
                await closing

    assert run(mode, alone()) == "answer"
    ill, well = provider.node(**{"break": True}), provider.node()
    answers, balancer = ask_over(sdk, mode, [ill, well])
    assert answers == ["answer"]
    assert balancer.status()[0].recent_failures == 1
    answers, balancer = ask_over(sdk, mode, [ill])
    assert answers == ["APIConnectionError"]
    assert balancer.status()[0].in_flight == 0


@SDKS
@MODES
@pytest.mark.parametrize("stream", ["refused", "empty", "lost"])
def test_a_stream_that_never_begins(provider: Scripted, sdk: str, mode: str, stream: str) -> None:
    """An error, the end or the loss of the connection comes first: another node is asked."""
    ill, well = provider.node(stream=stream), provider.node()
    answers, balancer = ask_over(sdk, mode, [ill, well], stream=True)
    assert answers == ["answer"]
    assert (provider.asked(ill), provider.asked(well)) == (1, 1)
    status = balancer.status()[0]
    assert (status.recent_failures, status.recent_successes, status.in_flight) == (1, 0, 0)

    if stream != "lost":  # of that the SDKs make an error of their own only at the headers
        before, _ = ask_over(sdk, mode, [ill], stream=True, max_attempts=1)
        after, _ = ask_over(sdk, mode, [ill], stream=True)
        assert before == after
    else:
        assert ask_over(sdk, mode, [ill], stream=True)[0] == ["APIConnectionError"]


@MODES
def test_a_stream_that_begins_with_a_limit_is_no_attempt(provider: Scripted, mode: str) -> None:
    """The key is on cooldown, as if it had said so by a status."""
    error = {"type": "rate_limit_error", "message": "no"}
    keys = [provider.node(stream="refused", error=error) for _ in range(4)] + [provider.node()]
    answers, balancer = ask_over("anthropic", mode, keys, stream=True, max_attempts=2, times=2)
    assert answers == ["answer"] * 2
    assert [provider.asked(key) for key in keys] == [1, 1, 1, 1, 2]
    assert balancer.status()[0].cooldown is not None


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # a stream is to be closed, and that tells
@pytest.mark.parametrize("sdk", ["chat", "anthropic"])
def test_a_stream_that_is_dropped_is_no_error_of_the_loop(provider: Scripted, sdk: str) -> None:
    """Who leaves it and forgets it gives back its key, once it is collected."""
    node = provider.node(times=60)
    balancer = Balancer([node])
    told: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        url = {"url": str} if sdk == "anthropic" else {}
        client = client_of(
            sdk, "async", base_url="http://llm", http_client=over(balancer, "async", **url)
        )
        create: Any = client.messages if sdk == "anthropic" else client.chat.completions
        for _ in range(20):
            stream = await create.create(model="m", messages=MESSAGES, max_tokens=9, stream=True)
            async for _event in stream:
                break
            del stream
        while gc.collect() or balancer.status()[0].in_flight:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.001)
        await client.close()

    asyncio.run(asyncio.wait_for(main(), 60))
    assert told == []
    assert balancer.status()[0].recent_failures == 0


class Pieces(httpx2.SyncByteStream, httpx2.AsyncByteStream, httpx.SyncByteStream):
    """A body in pieces, which tells how many of them have been read, and how it was left."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.pieces = pieces
        self.read = 0
        self.closed = 0
        self.on_close: Callable[[], None] = lambda: None

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            self.read += 1
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        """Count it."""
        self.closed += 1
        self.on_close()

    async def aclose(self) -> None:
        """Count it."""
        self.closed += 1
        self.on_close()


class PiecesOfHttpx(Pieces, httpx.AsyncByteStream):
    """The same for httpx."""


def send(
    package: Any, mode: str, bodies: list[Pieces], headers: dict[str, str], **options: Any
) -> tuple[Any, Balancer[str], list[int]]:
    """Send one request that is answered by these bodies.

    Returns:
        The text that was read, or the error; the balancer; how much of each body had been read when
        the response was handed on.
    """
    nodes = [f"http://n{number}" for number in range(len(bodies))]
    balancer = options.pop("balancer", None) or Balancer(nodes, RoundRobin())
    integration: Any = over_httpx2 if package is httpx2 else over_httpx
    options = {"classify": classify_llm, **options}
    inner = package.MockTransport(
        lambda request: package.Response(
            200, headers=headers, stream=bodies[int(request.url.host[1:])]
        )
    )
    before: list[int] = []

    def read_sync() -> Any:
        transport = integration.LoadwiseTransport(balancer, inner, **options)
        with (
            package.Client(transport=transport) as client,
            client.stream("POST", "http://llm/") as response,
        ):
            before.extend(body.read for body in bodies)
            return response.read()

    async def read_async() -> Any:
        transport = integration.AsyncLoadwiseTransport(balancer, inner, **options)
        async with (
            package.AsyncClient(transport=transport) as client,
            client.stream("POST", "http://llm/") as response,
        ):
            before.extend(body.read for body in bodies)
            return await response.aread()

    try:
        content = read_sync() if mode == "sync" else asyncio.run(read_async())
    except package.TransportError as error:
        content = error
    return content, balancer, before


@PACKAGES
@MODES
def test_a_stream_is_held_back_until_its_first_event(package: Any, mode: str) -> None:
    """Comments and pings are none; all of it is handed on, in its pieces."""
    kind = Pieces if package is httpx2 else PiecesOfHttpx
    ping = b'event: ping\ndata: {"type": "ping"}\n\n'
    pieces = [b": processing\n\n", ping, WORD[:9], WORD[9:], WORD, DONE]
    body = kind(*pieces)
    content, balancer, before = send(package, mode, [body], EVENTS)
    assert content == b"".join(pieces)
    assert before == [4]
    assert body.closed == 1
    status = balancer.status()[0]
    assert (status.recent_successes, status.recent_failures, status.in_flight) == (1, 0, 0)


@PACKAGES
@MODES
def test_a_stream_whose_beginning_cannot_be_told_is_handed_on(package: Any, mode: str) -> None:
    """One of comments alone, and one in an encoding that is not known here."""
    kind = Pieces if package is httpx2 else PiecesOfHttpx
    comments = [b":" + b" " * 65_536 + b"\n"] * 3
    content, _, before = send(package, mode, [kind(*comments)], EVENTS)
    assert (content, before) == (b"".join(comments), [1])
    strange = {**EVENTS, "Content-Encoding": "strange"}
    content, _, before = send(package, mode, [kind(WORD, DONE)], strange)
    assert (content, before) == (WORD + DONE, [1])


@PACKAGES
@MODES
@pytest.mark.parametrize("options", [{"max_attempts": 1}, {"classify": lambda _: None}])
def test_who_does_not_retry_gets_a_stream_at_its_headers(
    package: Any, mode: str, options: dict[str, Any]
) -> None:
    """Nothing could be made of what comes first."""
    kind = Pieces if package is httpx2 else PiecesOfHttpx
    content, _, before = send(package, mode, [kind(REFUSED)], EVENTS, **options)
    assert (content, before) == (REFUSED, [0])


@PACKAGES
@MODES
def test_a_deadline_is_not_for_the_first_event(package: Any, mode: str) -> None:
    """It ends with the headers, as ever; what comes first is not retried after it, though."""
    kind = Pieces if package is httpx2 else PiecesOfHttpx
    clock = ManualClock()

    class Late(kind):  # type: ignore[misc, valid-type]  # one of two
        def __iter__(self) -> Iterator[bytes]:
            clock.advance(20.0)
            yield from super().__iter__()

    for first, others in ((WORD + DONE, 0), (REFUSED, 0)):
        bodies: list[Any] = [Late(first), kind(WORD, DONE)]
        balancer = Balancer(["http://n0", "http://n1"], RoundRobin(), clock=clock)
        content, _, before = send(package, mode, bodies, EVENTS, deadline=10.0, balancer=balancer)
        assert content == first
        assert before == [1, others]


@PACKAGES
@MODES
def test_an_answer_is_read_to_its_end_up_to_a_bound(package: Any, mode: str) -> None:
    """Of more than 4 MiB the rest is the caller's to read, and what breaks is not retried."""
    kind = Pieces if package is httpx2 else PiecesOfHttpx
    text = json.dumps(
        {"usage": {"prompt_tokens": 5, "completion_tokens": 2}, "x": "y" * 9}
    ).encode()
    for megabytes, read_before in ((3, 5), (5, 5)):
        pieces = [text[:-1], *[b" " * 1_048_576] * megabytes, b"}"]
        clock = ManualClock()
        quota = QuotaTracker(clock)
        quota.register("http://n0", QuotaConfig([QuotaDimension("tpm", 10_000, default_cost=0)]))
        balancer = Balancer(["http://n0"], quota=quota, clock=clock)
        content, _, before = send(
            package,
            mode,
            [kind(*pieces)],
            JSON,
            balancer=balancer,
            meter=TokenMeter(None, "tpm"),
            deadline=5.0,
        )
        assert content == b"".join(pieces)
        assert before == [read_before]
        assert quota.remaining("http://n0", "tpm") == 10_000 - 7
        assert balancer.status()[0].in_flight == 0

    broken = package.ReadError("broken")
    for megabytes, expected in ((3, b"{}"), (5, broken)):
        bodies = [kind(*[b" " * 1_048_576] * megabytes, broken), kind(b"{}")]
        content, balancer, _ = send(package, mode, bodies, JSON)
        assert content == expected
        assert balancer.status()[0].recent_failures == 1


@PACKAGES
@MODES
def test_what_is_meant_to_be_read_as_it_comes_is_handed_on(package: Any, mode: str) -> None:
    """Google streams arrays as JSON; blanks that keep a connection are no beginning."""
    kind = Pieces if package is httpx2 else PiecesOfHttpx

    class Slow(kind):  # type: ignore[misc, valid-type]  # one of two
        def __iter__(self) -> Iterator[bytes]:
            for piece in super().__iter__():
                now.append(now[-1] + 0.9)
                yield piece

    now = [0.0]
    balancer = Balancer(["http://n0"], clock=lambda: now[-1])
    pieces = [b"[1", b",2", b",3", b"]"]
    content, _, before = send(package, mode, [Slow(*pieces)], JSON, balancer=balancer)
    assert (content, before) == (b"[1,2,3]", [3])
    now = [0.0]
    pieces = [b"\n"] * 9 + [b"{", b"}"]
    content, _, before = send(package, mode, [Slow(*pieces)], JSON, balancer=balancer)
    assert (content, before) == (b"\n" * 9 + b"{}", [11])


@PACKAGES
def test_a_plain_classify_reads_bodies_that_are_awaited(package: Any) -> None:
    """As with a synchronous client; its own errors are its own."""
    kind = Pieces if package is httpx2 else PiecesOfHttpx
    spent = b'{"error": {"code": "insufficient_quota"}}'

    def classify(result: Any) -> Any:
        if isinstance(result, Exception):
            return None
        if result.read() == spent:
            return over_httpx2.Verdict(classify_llm(result).outcome, retry=True)
        return None

    asked: list[str] = []

    def answer(request: Any) -> Any:
        asked.append(request.url.host)
        body = kind(spent) if request.url.host == "n0" else kind(b"{}")
        return package.Response(429 if request.url.host == "n0" else 200, stream=body)

    def broken(_: object) -> Any:
        raise RuntimeError("of my own")

    async def main(rule: Any) -> bytes:
        integration: Any = over_httpx2 if package is httpx2 else over_httpx
        balancer = Balancer(["http://n0", "http://n1"], RoundRobin())
        transport = integration.AsyncLoadwiseTransport(
            balancer, package.MockTransport(answer), classify=rule
        )
        try:
            async with package.AsyncClient(transport=transport) as client:
                response = await client.get("http://llm/")
                return bytes(response.content)
        finally:
            assert not any(each.in_flight for each in balancer.status())

    assert asyncio.run(main(classify)) == b"{}"
    assert asked == ["n0", "n1"]
    with pytest.raises(RuntimeError, match="of my own"):
        asyncio.run(main(broken))


@PACKAGES
def test_who_waits_for_a_key_has_given_its_connection_back(package: Any) -> None:
    """The body of a refusal is read, whoever judges it and however long it says to be."""
    kind = Pieces if package is httpx2 else PiecesOfHttpx
    for classify in (None, classify_llm):
        clock = ManualClock()
        balancer = Balancer(["http://n0"], clock=clock)
        refusal = kind(b"{", b"}")
        answers = [package.Response(429, stream=refusal), package.Response(200)]
        closed: list[float] = []
        refusal.on_close = partial(_note, closed, clock)

        async def main(
            answers: list[Any] = answers,
            clock: ManualClock = clock,
            balancer: Balancer[str] = balancer,
            classify: Any = classify,
        ) -> None:
            integration: Any = over_httpx2 if package is httpx2 else over_httpx
            options = {} if classify is None else {"classify": classify}
            transport = integration.AsyncLoadwiseTransport(
                balancer,
                package.MockTransport(lambda _: answers.pop(0)),
                timeout=30.0,
                **options,
            )
            async with package.AsyncClient(transport=transport) as client:
                asking = asyncio.create_task(client.get("http://llm/"))
                while not balancer.waiting:
                    assert not asking.done()
                    await asyncio.sleep(0)
                clock.advance(1.0)
                assert (await asking).status_code == 200

        asyncio.run(main())
        assert closed[0] == 0.0


def _note(moments: list[float], clock: ManualClock) -> None:
    moments.append(clock())
