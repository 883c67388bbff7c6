"""Calls of all four kinds through the channel for event loops, to real servers."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from tests.ports import free_port
from tests.real.grpc.servers import SAFE, Server, asked

from loadwise import Balancer, HealthStatus, RoundRobin
from loadwise.integrations.grpc import aio, request_options
from loadwise.integrations.grpc.aio import NoNodeError

Channel: Any = aio.Channel  # whose calls are of the types of what is sent
PREFIX = "/test.Service/"


def in_flight(balancer: Balancer[Any]) -> int:
    """Return the number of calls in flight."""
    return sum(status.in_flight for status in balancer.status())


def told(response: bytes) -> dict[str, Any]:
    """Return what a response says."""
    answer: dict[str, Any] = json.loads(response)
    return answer


async def until(condition: Callable[[], object]) -> None:
    """Wait for what other tasks do, 10 seconds at most."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to pass")


def balanced(
    servers: list[Server], use: Callable[[Any, Balancer[str]], Awaitable[None]], **options: Any
) -> None:
    """Use a channel to both servers, which nothing is left of after it."""
    balancer = Balancer([server.address for server in servers], RoundRobin(start=0))

    async def main() -> None:
        async with Channel(balancer, idempotent=SAFE, **options) as channel:
            await use(channel, balancer)
            await until(lambda: in_flight(balancer) == 0)

    asyncio.run(main())


def test_all_kinds_of_calls_work(servers: list[Server]) -> None:
    """Each gives what the server answers, by all the ways that gRPC has to read and write."""

    async def use(channel: Any, balancer: Balancer[str]) -> None:
        one = channel.unary_unary(PREFIX + "One")
        ports = [told(await one(asked()))["port"] for _ in range(4)]
        assert sorted(ports) == sorted(2 * [server.port for server in servers])
        call = one(asked(trailers={"a": "b"}), metadata=(("user", "42"),), timeout=5)
        assert told(await call)["metadata"]["user"] == "42"
        assert (await call.trailing_metadata())["a"] == "b"
        assert await call.code() is grpc.StatusCode.OK
        assert call.done()
        assert not call.cancelled()
        stream = channel.unary_stream(PREFIX + "Stream")(asked(messages=3))
        assert [told(message)["number"] async for message in stream] == [0, 1, 2]
        read = channel.unary_stream(PREFIX + "Stream")(asked(messages=1))
        assert told(await read.read())["number"] == 0
        assert await read.read() is grpc.aio.EOF

        async def requests() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield asked()

        assert told(await channel.stream_unary(PREFIX + "Collect")(requests()))["count"] == 3
        collect = channel.stream_unary(PREFIX + "Collect")()
        await collect.write(asked())
        await collect.done_writing()
        assert told(await collect)["count"] == 1
        talk = channel.stream_stream(PREFIX + "Talk")()
        await talk.wait_for_connection()
        for _ in range(2):
            await talk.write(asked())
            assert told(await talk.read())["port"]
        await talk.done_writing()
        assert await talk.read() is grpc.aio.EOF
        assert in_flight(balancer) == 0

    balanced(servers, use)


def test_calls_that_nobody_awaits_are_made(servers: list[Server]) -> None:
    """They come to their end, are counted out and may be awaited after that, in any number."""

    async def use(channel: Any, balancer: Balancer[str]) -> None:
        one = channel.unary_unary(PREFIX + "One")
        await asyncio.gather(*(one(asked()) for _ in servers))  # which connects
        for many in (1, 20, 1):
            calls = [one(asked()) for _ in range(many)]
            assert in_flight(balancer) == many
            await until(lambda: in_flight(balancer) == 0)
            assert all(call.done() for call in calls)
            assert all([told(await call)["port"] for call in calls])

    balanced(servers, use)


def test_failures_are_tried_elsewhere_if_the_method_allows(servers: list[Server]) -> None:
    """An idempotent method is sent to each node; another one to one node, once."""

    async def use(channel: Any, balancer: Balancer[str]) -> None:
        safe, one = (channel.unary_unary(PREFIX + name) for name in ("Safe", "One"))
        with pytest.raises(grpc.aio.AioRpcError):
            await safe(asked(id="idempotent", code="UNAVAILABLE"))
        with pytest.raises(grpc.aio.AioRpcError):
            await one(asked(id="once", code="UNAVAILABLE"))
        with request_options(retry=True), pytest.raises(grpc.aio.AioRpcError):
            await one(asked(id="allowed", code="DATA_LOSS"))
        stream = channel.unary_stream(PREFIX + "SafeStream")
        with pytest.raises(grpc.aio.AioRpcError):
            await stream(asked(id="at-once", code="UNAVAILABLE")).read()
        begun = stream(asked(id="begun", messages=1, code="UNAVAILABLE"))
        assert told(await begun.read())["number"] == 0
        with pytest.raises(grpc.aio.AioRpcError):
            await begun.read()
        collect = channel.stream_unary(PREFIX + "SafeCollect")
        with pytest.raises(grpc.aio.AioRpcError):
            await collect([asked(id="list", code="UNAVAILABLE")])
        acted = [name for server in servers for name in server.acted()]
        expected = {"idempotent": 2, "once": 1, "allowed": 2, "at-once": 2, "begun": 1, "list": 2}
        assert {name: acted.count(name) for name in expected} == expected

    balanced(servers, use)


def test_what_was_never_sent_is_tried_elsewhere(servers: list[Server]) -> None:
    """Where nobody listens nothing can have been sent, so that any call goes on."""

    async def main() -> None:
        dead = f"127.0.0.1:{free_port()}"
        balancer = Balancer([dead, servers[0].address], RoundRobin(start=0), health=False)
        async with Channel(balancer) as channel:
            for _ in range(2):
                assert told(await channel.unary_unary(PREFIX + "One")(asked()))["port"]
                stream = channel.unary_stream(PREFIX + "Stream")(asked(messages=2))
                assert len([message async for message in stream]) == 2
                assert told(await channel.stream_unary(PREFIX + "Collect")(iter([asked()])))
        assert in_flight(balancer) == 0
        async with Channel(Balancer([dead])) as channel:
            with pytest.raises(grpc.aio.AioRpcError, match="failed to connect"):
                await channel.unary_unary(PREFIX + "One")(asked())
        async with Channel(Balancer[str]([])) as channel:
            call = channel.unary_unary(PREFIX + "One")(asked())
            with pytest.raises(NoNodeError, match="it has no nodes"):
                await call
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
            with pytest.raises(NoNodeError):
                await channel.unary_stream(PREFIX + "Stream")(asked()).read()

    asyncio.run(main())


def test_a_cancelled_call_ends_at_once(servers: list[Server]) -> None:
    """A cancellation of the call, or of who awaits it, ends the lease and blames nobody."""

    async def use(channel: Any, balancer: Balancer[str]) -> None:
        stream = channel.unary_stream(PREFIX + "Stream")(asked(messages=1, endless=True))
        assert told(await stream.read())["number"] == 0
        assert in_flight(balancer) == 1
        assert stream.cancel()
        assert in_flight(balancer) == 0
        with pytest.raises(asyncio.CancelledError):
            await stream.read()
        assert stream.cancelled()
        assert await stream.code() is grpc.StatusCode.CANCELLED
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(channel.unary_unary(PREFIX + "One")(asked(sleep=20)), 0.1)
        assert in_flight(balancer) == 0
        async for _ in channel.unary_stream(PREFIX + "Stream")(asked(messages=1, endless=True)):
            break
        gc.collect()
        await until(lambda: in_flight(balancer) == 0)

        def breaks() -> Any:
            yield asked()
            raise RuntimeError("no more")

        with pytest.raises(asyncio.CancelledError):
            await channel.stream_unary(PREFIX + "SafeCollect")(breaks())
        assert {status.health for status in balancer.status()} == {HealthStatus.HEALTHY}

    balanced(servers, use)


def test_one_deadline_holds_for_all_attempts(servers: list[Server]) -> None:
    """An attempt that hangs is given up for another; the caller's timeout ends them all."""

    async def use(channel: Any, _: Balancer[str]) -> None:
        safe = channel.unary_unary(PREFIX + "Safe")
        for name, timeout, times in (("slow", 10, 2), ("short", 0.1, 1)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await safe(asked(id=name, sleep=20), timeout=timeout)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            acted = [each for server in servers for each in server.acted()]
            assert acted.count(name) == times

    balanced(servers, use, attempt_timeout=0.2)


def test_a_call_may_wait_for_a_node(servers: list[Server]) -> None:
    """With wait_for_ready a call outlasts an outage; the deadline ends it if that goes on."""

    async def main() -> None:
        balancer = Balancer([f"127.0.0.1:{free_port()}"])
        async with Channel(balancer) as channel:
            one = channel.unary_unary(PREFIX + "One")
            with pytest.raises(grpc.aio.AioRpcError):
                await one(asked(), timeout=0.3, wait_for_ready=True)
            call = one(asked(), timeout=20, wait_for_ready=True)
            await asyncio.sleep(0)
            balancer.add(servers[0].address)
            assert told(await call)["port"] == servers[0].port
        assert in_flight(balancer) == 0

    asyncio.run(main())


def test_interceptors_see_each_attempt(servers: list[Server]) -> None:
    """They are given the message, not its bytes, and may change the call."""
    seen = []

    class Adds(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(
            self, continuation: Any, client_call_details: Any, request: Any
        ) -> Any:
            seen.append(request)
            details = client_call_details._replace(metadata=grpc.aio.Metadata(("added", "yes")))
            return await continuation(details, request)

    class AddsToStreams(grpc.aio.UnaryStreamClientInterceptor):
        async def intercept_unary_stream(
            self, continuation: Any, client_call_details: Any, request: Any
        ) -> Any:
            return await continuation(client_call_details, request)

    async def use(channel: Any, _: Balancer[str]) -> None:
        safe = channel.unary_unary(PREFIX + "Safe", lambda message: asked(**message))
        assert told(await safe({"id": "intercepted"}))["metadata"]["added"] == "yes"
        with pytest.raises(grpc.aio.AioRpcError):
            await safe({"code": "UNAVAILABLE"})
        assert seen == [{"id": "intercepted"}, {"code": "UNAVAILABLE"}, {"code": "UNAVAILABLE"}]
        stream = channel.unary_stream(PREFIX + "Stream")(asked(messages=2))
        assert [told(message)["number"] async for message in stream] == [0, 1]

    balanced(servers, use, interceptors=[Adds(), AddsToStreams()])


def test_channels_of_nodes_that_left_are_closed(servers: list[Server]) -> None:
    """A node's channel is closed after its last call, not under it."""

    async def main() -> None:
        balancer = Balancer([servers[0].address])
        async with Channel(balancer) as channel:
            stream = channel.unary_stream(PREFIX + "Stream")(asked(messages=2, sleep=0.1))
            await until(lambda: in_flight(balancer) == 1)
            balancer.remove(servers[0].address)
            assert len([message async for message in stream]) == 2
            await until(lambda: not channel._nodes._stock.entries)

    asyncio.run(main())


def test_closing_lets_calls_end_or_cancels_them(servers: list[Server]) -> None:
    """With a grace calls come to their end; without, they are cancelled and blame nobody."""

    async def main() -> None:
        balancer = Balancer([servers[0].address])
        for grace, ends_well in ((10.0, True), (None, False)):
            channel = Channel(balancer)
            call = channel.unary_unary(PREFIX + "One")(asked(sleep=0.3))
            await until(lambda: in_flight(balancer) == 1)
            await call.wait_for_connection()
            await channel.close(grace)
            if ends_well:
                assert told(await call)["port"]
            else:
                with pytest.raises(asyncio.CancelledError):
                    await call
            with pytest.raises(ValueError, match="closed channel"):
                channel.unary_unary(PREFIX + "One")(asked())
        assert in_flight(balancer) == 0
        assert balancer.status()[0].health is HealthStatus.HEALTHY

    asyncio.run(main())


def test_one_channel_serves_several_loops(servers: list[Server]) -> None:
    """Each event loop has connections of its own, also one that begins when another has ended."""
    balancer = Balancer([server.address for server in servers])
    channel = Channel(balancer)

    async def call() -> None:
        assert told(await channel.unary_unary(PREFIX + "One")(asked()))["port"]

    async def last() -> None:
        await call()
        await channel.close()

    thread = threading.Thread(target=lambda: asyncio.run(call()))
    thread.start()
    thread.join()
    asyncio.run(last())
    assert in_flight(balancer) == 0
