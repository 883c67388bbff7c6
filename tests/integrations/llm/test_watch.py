"""Streams that are watched over, in whatever pieces they come; and bodies that are read ahead."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadwise import Balancer, Outcome, RoundRobin
from loadwise.integrations._http.bodies import peek, peek_async
from loadwise.integrations._llm.stream_ends import StreamWatch
from loadwise.integrations.httpx2 import LoadwiseTransport, Verdict
from loadwise.integrations.llm import classify_llm
from loadwise.testing import ManualClock

CHUNK = 'data: {"object": "chat.completion.chunk", "choices": [{"delta": {"content": "%s"}}]}\n\n'
CHAT = CHUNK % "hi" + "data: [DONE]\n\n"
MESSAGE = (
    'event: message_start\ndata: {"type": "message_start"}\n\n: a comment\n\n'
    'event: ping\ndata: {"type": "ping"}\n\n'
    'event: message_stop\ndata: {"type": "message_stop"}\n\n'
)
RESPONSE = (
    'event: response.created\ndata: {"type":"response.created","response":{"error":null}}\n\n'
    'event: response.completed\ndata: {"type":"response.completed","response":{"error":null}}\n\n'
)
ERROR = 'event: error\ndata: {"type": "error", "error": {"type": "%s", "message": "no"}}\n\n'
FAILED = 'data: {"type":"response.failed","response":{"error":{"code":"%s"}}}\n\n'
BEGUN = 'data: {"type":"response.created","response":{}}\n\n'


def judged(text: str, *, complete: bool = True, size: int = 1_000_000) -> Verdict | None:
    """Return what is said of a stream that comes in pieces of a size."""
    watch, data = StreamWatch(), text.encode()
    for start in range(0, len(data), size):
        watch.feed(data[start : start + size])
    return watch.verdict(complete=complete)


@pytest.mark.parametrize("stream", [CHAT, MESSAGE, RESPONSE])
@given(ends=st.sampled_from(["\n", "\r", "\r\n"]), size=st.integers(1, 40))
def test_whole_streams(stream: str, ends: str, size: int) -> None:
    """Nothing is objected to, whatever the ends of lines and pieces."""
    assert judged(stream.replace("\n", ends), size=size) is None


@pytest.mark.parametrize(
    ("stream", "marker"),
    [(CHAT, "[DONE]"), (MESSAGE, "message_stop"), (RESPONSE, "response.completed")],
)
@given(ends=st.sampled_from(["\n", "\r", "\r\n"]), size=st.integers(1, 40))
def test_streams_without_their_ends(stream: str, marker: str, ends: str, size: int) -> None:
    """A failure if it came to an end so, and nothing if it was left."""
    cut = stream[: stream.rindex("event:" if "event:" in stream else "data:")].replace("\n", ends)
    verdict = judged(cut, size=size)
    assert verdict is not None
    assert (verdict.outcome, verdict.reason) == (
        Outcome.FAILURE,
        f"the stream ended without {marker}",
    )
    assert judged(cut, complete=False, size=size) is None


@given(
    ends=st.sampled_from(["\n", "\r", "\r\n"]),
    size=st.integers(1, 40),
    before=st.sampled_from(["", CHUNK % "hi", MESSAGE[:60]]),
)
def test_errors_in_streams(ends: str, size: int, before: str) -> None:
    """They are failures, also if the stream was left on account of them."""
    text = (before + ERROR % "overloaded_error").replace("\n", ends)
    for complete in (True, False):
        verdict = judged(text, complete=complete, size=size)
        assert verdict is not None
        assert verdict.outcome is Outcome.FAILURE


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (ERROR % "rate_limit_error", Outcome.RATE_LIMITED),
        (ERROR % "authentication_error", Outcome.RATE_LIMITED),
        (ERROR % "invalid_request_error", Outcome.SUCCESS),
        (ERROR % "whatever", Outcome.FAILURE),
        ("event: error\ndata: nonsense\n\n", Outcome.FAILURE),
        ('data: {"error": {"message": "no"}}\n\n', Outcome.FAILURE),
        ('data: {"error": "no"}\n\n', Outcome.FAILURE),
        (BEGUN + FAILED % "server_error", Outcome.FAILURE),
        (BEGUN + FAILED % "rate_limit_exceeded", Outcome.RATE_LIMITED),
        (BEGUN + FAILED % "invalid_prompt", Outcome.SUCCESS),
        ("", Outcome.FAILURE),
    ],
)
def test_whose_an_error_in_a_stream_is(text: str, outcome: Outcome) -> None:
    """As told by its word, and else the node's."""
    verdict = judged(text)
    assert verdict is not None
    assert verdict.outcome is outcome


def test_what_looks_like_an_error_or_an_end() -> None:
    """Text of the answer is only text; streams of other kinds end as they like."""
    for text in ('\\"error\\": {\\"type\\"', "[DONE]", '\\"type\\":\\"message_stop\\"'):
        cut = judged(CHUNK % text)
        assert cut is not None
        assert cut.reason == "the stream ended without [DONE]"
        assert judged(CHUNK % text + "data: [DONE]") is None
    assert judged('data: {"type": "speech.audio.delta"}\n\n') is None
    assert judged('data: {"choices": [], "error": null}\n\ndata: [DONE]\n\n') is None


def test_a_line_without_end_is_not_kept() -> None:
    """An event of megabytes is known by its beginning."""
    watch = StreamWatch()
    watch.feed(BEGUN.encode() + b'data: {"type":"response.completed","text":"')
    for _ in range(100):
        watch.feed(b"x" * 65_536)
    assert sum(map(len, (watch._line,))) <= 65_536
    watch.feed(b'"}\n\n')
    assert watch.verdict(complete=True) is None


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_streams_as_transports_have_them(*, length: bool, packed: bool) -> None:
    """In one piece or several, packed or not, read by the client or ahead of it."""

    class Pieces(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for start in range(0, len(body), 10):
                yield body[start : start + 10]

    for text, failures in ((CHAT, 0), (CHUNK % "hi", 1), (ERROR % "overloaded_error", 1)):
        body = gzip.compress(text.encode()) if packed else text.encode()
        headers = {"Content-Type": "text/event-stream"}
        if packed:
            headers["Content-Encoding"] = "gzip"
        if length:
            headers["Content-Length"] = str(len(body))
        answer = httpx2.Response(200, headers=headers, stream=Pieces())
        balancer = Balancer(["http://a"])
        transport = LoadwiseTransport(
            balancer, httpx2.MockTransport(lambda _, it=answer: it), classify=classify_llm
        )
        with httpx2.Client(transport=transport) as client:
            assert client.get("http://llm/").text == text
        assert balancer.status()[0].recent_failures == failures
        assert balancer.status()[0].recent_successes == 1 - failures


SPENT = json.dumps({"error": {"code": "insufficient_quota"}}).encode()


@pytest.mark.parametrize("package", [httpx, httpx2])
@pytest.mark.parametrize("rest", [0, 10, 200_000])
@pytest.mark.parametrize("broken", [False, True])
def test_the_body_is_there_for_who_comes_after(  # noqa: C901 - four kinds of reading
    package: Any, rest: int, *, broken: bool
) -> None:
    """All of it, and the error that it ends in, whatever has been read of it."""
    pieces = [SPENT[:7], SPENT[7:], *([b" " * 1_000] * (rest // 1_000))]
    closed: list[str] = []

    class Sync(package.SyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            yield from pieces
            if broken:
                raise package.ReadError("broken")

        def close(self) -> None:
            closed.append("sync")

    class Async(package.AsyncByteStream):  # type: ignore[misc]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece
            if broken:
                raise package.ReadError("broken")

        async def aclose(self) -> None:
            closed.append("async")

    async def read_async(response: Any) -> bytes:
        head = await peek_async(response)
        assert ("async" in closed) is (rest <= 65_536 and not broken)
        assert head == b"".join(pieces)[: len(head)]
        assert len(head) >= min(65_536, len(b"".join(pieces)))
        try:
            return bytes(await response.aread())
        finally:
            await response.aclose()

    def read(response: Any) -> bytes:
        head = peek(response)
        assert closed == ([] if rest > 65_536 or broken else ["sync"])
        assert head == b"".join(pieces)[: len(head)]
        assert len(head) >= min(65_536, len(b"".join(pieces)))
        try:
            return bytes(response.read())
        finally:
            response.close()

    # Without types, for they are of a package that is not known here.
    sync: Any = Sync
    slow: Any = Async
    readers: tuple[Callable[[], bytes], ...] = (
        lambda: read(package.Response(429, stream=sync())),
        lambda: asyncio.run(read_async(package.Response(429, stream=slow()))),
    )
    for reader in readers:
        if broken:
            with pytest.raises(package.ReadError, match="broken"):
                reader()
        else:
            assert reader() == b"".join(pieces)
    assert {"sync", "async"} == set(closed)


def test_a_bomb_is_not_unpacked() -> None:
    """No more than 64 KiB of what a body unpacks to are looked at."""
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 65_536
    headers = {"Content-Encoding": "gzip"}
    stream = httpx2.ByteStream(bomb)

    class Closed(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield from stream

    response = httpx2.Response(429, headers=headers, stream=Closed())
    assert len(peek(response)) == 65_536


@pytest.mark.parametrize(("deadline", "seconds"), [(None, 5.0), (2.0, 2.0)])
def test_a_body_that_does_not_come_is_not_waited_for(
    deadline: float | None, seconds: float
) -> None:
    """The client's own timeout is for answers; another key is asked."""
    waited: list[float] = []

    class Stuck(httpx2.SyncByteStream):
        def __init__(self, request: httpx2.Request) -> None:
            self.request = request

        def __iter__(self) -> Iterator[bytes]:
            waited.append(self.request.extensions["timeout"]["read"])
            yield b"{"
            raise httpx2.ReadTimeout("stuck")

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.host == "b":
            return httpx2.Response(200)
        return httpx2.Response(429, stream=Stuck(request))

    balancer = Balancer(["http://a", "http://b"], RoundRobin(), clock=ManualClock())
    options: dict[str, Any] = {} if deadline is None else {"deadline": deadline}
    transport = LoadwiseTransport(
        balancer, httpx2.MockTransport(answer), classify=classify_llm, **options
    )
    with httpx2.Client(transport=transport, timeout=600.0) as client:
        assert client.post("http://llm/").status_code == 200
    assert waited[0] == seconds
    cooldown = balancer.status()[0].cooldown
    assert cooldown is not None
    assert cooldown.reason == "429 from the server"
