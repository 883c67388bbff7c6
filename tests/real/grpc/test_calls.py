"""Calls of all four kinds through the channel, to real servers."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from tests.ports import free_port
from tests.real.grpc.servers import SAFE, Server, asked, until

from loadwise import Balancer, HealthStatus, NoNodeAvailable, RoundRobin
from loadwise.integrations import grpc as balanced
from loadwise.integrations.grpc import NoNodeError, by_metadata, request_options

Channel: Any = balanced.Channel  # whose calls are of the types of what is sent


@pytest.fixture
def balancer(servers: list[Server]) -> Balancer[str]:
    """Return a balancer of both servers."""
    return Balancer([server.address for server in servers], RoundRobin(start=0))


@pytest.fixture
def channel(balancer: Balancer[str]) -> Iterator[Any]:
    """Yield a channel to both servers, which nothing is left of after the test."""
    with Channel(balancer, idempotent=SAFE) as channel:
        yield channel
    until(lambda: in_flight(balancer) == 0, "no call is in flight")


def in_flight(balancer: Balancer[Any]) -> int:
    """Return the number of calls in flight."""
    return sum(status.in_flight for status in balancer.status())


def told(response: bytes) -> dict[str, Any]:
    """Return what a response says."""
    answer: dict[str, Any] = json.loads(response)
    return answer


def test_all_kinds_of_calls_work(channel: Any, servers: list[Server]) -> None:
    """Each gives what the server answers, and the nodes take turns."""
    one = channel.unary_unary("/test.Service/One")
    ports = [told(one(asked()))["port"] for _ in range(4)]
    assert sorted(ports) == sorted(2 * [server.port for server in servers])
    response, call = one.with_call(asked(trailers={"a": "b"}), metadata=[("user", "42")])
    assert told(response)["metadata"]["user"] == "42"
    assert ("a", "b") in call.trailing_metadata()
    stream = channel.unary_stream("/test.Service/Stream")(asked(messages=3))
    assert [told(message)["number"] for message in stream] == [0, 1, 2]
    assert stream.code() is grpc.StatusCode.OK
    requests = (asked() for _ in range(3))
    assert told(channel.stream_unary("/test.Service/Collect")(requests))["count"] == 3
    talk = channel.stream_stream("/test.Service/Talk")(iter([asked(), asked()]))
    assert len(list(talk)) == 2


def test_futures_work(channel: Any) -> None:
    """A future has the response, and calls its callbacks once."""
    called: list[object] = []
    future = channel.unary_unary("/test.Service/One").future(asked(sleep=0.05))
    future.add_done_callback(called.append)
    assert not future.done()
    assert told(future.result(timeout=5))["port"]
    until(lambda: called == [future], "the callback is called")
    assert future.code() is grpc.StatusCode.OK
    failing = channel.unary_unary("/test.Service/One").future(asked(code="NOT_FOUND"))
    with pytest.raises(grpc.RpcError, match="as was asked for") as caught:
        failing.result()
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert failing.exception() is caught.value
    collected = channel.stream_unary("/test.Service/Collect").future(iter([asked()]))
    assert told(collected.result())["count"] == 1


def test_deadline_and_compression_are_passed_on(channel: Any) -> None:
    """The caller's timeout is the server's deadline; the metadata tells of the compression."""
    one = channel.unary_unary("/test.Service/One")
    answer = told(one(asked(), timeout=7.0, compression=grpc.Compression.Gzip))
    assert 0 < answer["time"] < 7.5
    assert told(one(asked()))["time"] is None


def test_a_nodes_failure_is_tried_elsewhere_if_the_method_allows(
    servers: list[Server], balancer: Balancer[str], channel: Any
) -> None:
    """An idempotent method is sent to each node; another one to one node, once."""
    safe, one = (channel.unary_unary(f"/test.Service/{name}") for name in ("Safe", "One"))
    with pytest.raises(grpc.RpcError):
        safe(asked(id="idempotent", code="UNAVAILABLE"))
    with pytest.raises(grpc.RpcError):
        one(asked(id="once", code="UNAVAILABLE"))
    with request_options(retry=True), pytest.raises(grpc.RpcError):
        one(asked(id="allowed", code="INTERNAL"))
    acted = [name for server in servers for name in server.acted()]
    assert [acted.count(name) for name in ("idempotent", "once", "allowed")] == [2, 1, 2]
    # What fails everywhere is the call's fault: the first failure of each counts, no other.
    assert all(status.health is not HealthStatus.UNHEALTHY for status in balancer.status())


def test_what_was_never_sent_is_tried_elsewhere(servers: list[Server]) -> None:
    """Where nobody listens nothing can have been sent, so that any call goes on."""
    balancer = Balancer(
        [f"127.0.0.1:{free_port()}", servers[0].address], RoundRobin(start=0), health=False
    )
    with Channel(balancer) as channel:
        one = channel.unary_unary("/test.Service/One")
        stream = channel.unary_stream("/test.Service/Stream")
        collect = channel.stream_unary("/test.Service/Collect")
        for _ in range(2):
            assert told(one(asked()))["port"] == servers[0].port
            assert told(one.future(asked()).result())["port"] == servers[0].port
            assert len(list(stream(asked(messages=2)))) == 2
            assert told(collect(iter([asked()])))["count"] == 1
    assert in_flight(balancer) == 0


def test_an_error_says_what_grpc_knows() -> None:
    """Where no node can be reached, the error has gRPC's own words; without nodes, the reasons."""
    with Channel(Balancer([f"127.0.0.1:{free_port()}"], name="search")) as channel:
        one = channel.unary_unary("/test.Service/One")
        with pytest.raises(grpc.RpcError, match="failed to connect") as caught:
            one(b"")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    with Channel(Balancer[str]([], name="search")) as channel:
        one = channel.unary_unary("/test.Service/One")
        with pytest.raises(NoNodeError, match="'search': it has no nodes") as none:
            one(b"")
        assert isinstance(none.value, NoNodeAvailable)
        assert none.value.code() is grpc.StatusCode.UNAVAILABLE
        assert one.future(b"").code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(NoNodeError):
            next(channel.unary_stream("/test.Service/Stream")(b""))


def test_rate_limits_are_cooldowns(servers: list[Server], balancer: Balancer[str]) -> None:
    """A pushback rules the node out; without one the status means something else."""
    with Channel(balancer, idempotent=SAFE) as channel:
        one = channel.unary_unary("/test.Service/One")
        with pytest.raises(grpc.RpcError):
            one(asked(code="RESOURCE_EXHAUSTED"))
        assert not any(status.cooldown for status in balancer.status())
        with pytest.raises(grpc.RpcError):
            one(asked(code="RESOURCE_EXHAUSTED", trailers={"grpc-retry-pushback-ms": "30000"}))
        (cooling,) = [status for status in balancer.status() if status.cooldown]
        assert cooling.cooldown is not None
        assert 25 < cooling.cooldown.seconds_left <= 30
        assert told(one(asked()))["port"] != int(str(cooling.id).rpartition(":")[2])


def test_a_cancelled_call_ends_at_once(balancer: Balancer[str], channel: Any) -> None:
    """A cancellation ends the lease, and says nothing of the node."""
    stream = channel.unary_stream("/test.Service/Stream")(asked(messages=1, endless=True))
    assert told(next(stream))["number"] == 0
    assert in_flight(balancer) == 1
    assert stream.cancel()
    assert not stream.cancel()
    assert stream.cancelled()
    assert in_flight(balancer) == 0
    with pytest.raises(grpc.RpcError):
        next(stream)
    future = channel.unary_unary("/test.Service/One").future(asked(sleep=5))
    assert future.cancel()
    with pytest.raises(grpc.FutureCancelledError):
        future.result()
    assert {status.health for status in balancer.status()} == {HealthStatus.HEALTHY}


def test_a_dropped_stream_is_cancelled(balancer: Balancer[str], channel: Any) -> None:
    """A loop that is left gives the node back, without a word of its own."""
    for _ in channel.unary_stream("/test.Service/Stream")(asked(messages=1, endless=True)):
        assert in_flight(balancer) == 1
        break
    gc.collect()
    until(lambda: in_flight(balancer) == 0, "the node is given back")


def test_a_stream_is_begun_again_only_before_its_first_message(
    servers: list[Server], channel: Any
) -> None:
    """A stream that fails at once is tried elsewhere; one that has begun is not."""
    stream = channel.unary_stream("/test.Service/SafeStream")
    with pytest.raises(grpc.RpcError):
        next(stream(asked(id="at-once", code="UNAVAILABLE")))
    begun = stream(asked(id="begun", messages=1, code="UNAVAILABLE"))
    assert told(next(begun))["number"] == 0
    with pytest.raises(grpc.RpcError):
        next(begun)
    acted = [name for server in servers for name in server.acted()]
    assert [acted.count(name) for name in ("at-once", "begun")] == [2, 1]


def test_a_list_of_requests_can_be_sent_again(servers: list[Server], channel: Any) -> None:
    """A list is begun again on the next node; a generator is at its end."""
    collect = channel.stream_unary("/test.Service/SafeCollect")
    for requests in (
        [asked(id="list", code="UNAVAILABLE")],
        iter([asked(id="iterator", code="UNAVAILABLE")]),
    ):
        with pytest.raises(grpc.RpcError):
            collect(requests)
    acted = [name for server in servers for name in server.acted()]
    assert [acted.count(name) for name in ("list", "iterator")] == [2, 1]


def test_the_callers_own_mistakes_blame_nobody(balancer: Balancer[str], channel: Any) -> None:
    """A request that cannot be made bytes is never sent; one that breaks off is cancelled."""

    def broken(_: object) -> bytes:
        raise RuntimeError("no bytes")

    def breaks() -> Iterator[bytes]:
        yield asked()
        raise RuntimeError("no more")

    with pytest.raises(grpc.RpcError, match="serializing") as caught:
        channel.unary_unary("/test.Service/Safe", broken)(b"")
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(grpc.RpcError):
        channel.stream_unary("/test.Service/SafeCollect")(breaks())
    assert [status.health_reason for status in balancer.status()] == [None, None]
    assert in_flight(balancer) == 0


def test_one_deadline_holds_for_all_attempts(servers: list[Server]) -> None:
    """An attempt that hangs is given up for another; the caller's timeout ends them all."""
    balancer = Balancer([server.address for server in servers], RoundRobin(start=0))
    with Channel(balancer, idempotent=SAFE, attempt_timeout=0.2) as channel:
        safe = channel.unary_unary("/test.Service/Safe")
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            safe(asked(id="slow", sleep=20), timeout=10)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - began < 9
        acted = [name for server in servers for name in server.acted()]
        assert acted.count("slow") == 2
        with pytest.raises(grpc.RpcError) as caught:
            safe(asked(id="short", sleep=20), timeout=0.1)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    acted = [name for server in servers for name in server.acted()]
    assert acted.count("short") == 1


def test_a_call_may_wait_for_a_node(servers: list[Server]) -> None:
    """With wait_for_ready a call outlasts an outage; the deadline ends it if that goes on."""
    balancer = Balancer([f"127.0.0.1:{free_port()}"])
    with Channel(balancer) as channel:
        one = channel.unary_unary("/test.Service/One")
        with pytest.raises(grpc.RpcError):
            one(asked(), timeout=0.3, wait_for_ready=True)
        future = one.future(asked(), timeout=20, wait_for_ready=True)
        balancer.add(servers[0].address)
        assert told(future.result())["port"] == servers[0].port
    assert in_flight(balancer) == 0


def test_interceptors_work(channel: Any) -> None:
    """`grpc.intercept_channel` takes the channel as any other, errors included."""

    class Adds(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            return continuation(details._replace(metadata=[("added", "yes")]), request)

        def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
            return continuation(details._replace(metadata=[("added", "yes")]), request)

    intercepted: Any = grpc.intercept_channel(channel, Adds())
    one = intercepted.unary_unary("/test.Service/One")
    assert told(one(asked()))["metadata"]["added"] == "yes"
    assert told(one.future(asked()).result())["metadata"]["added"] == "yes"
    (message,) = intercepted.unary_stream("/test.Service/Stream")(asked(messages=1))
    assert told(message)["metadata"]["added"] == "yes"
    with pytest.raises(grpc.RpcError) as caught:
        one(asked(code="NOT_FOUND"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    with Channel(Balancer[str]([])) as empty:
        intercepted = grpc.intercept_channel(empty, Adds())
        with pytest.raises(NoNodeError):
            intercepted.unary_unary("/test.Service/One")(b"")


def test_channels_of_nodes_that_left_are_closed(servers: list[Server]) -> None:
    """A node's channel is closed after its last call, not under it."""
    balancer = Balancer([servers[0].address])
    with Channel(balancer) as channel:
        stream = channel.unary_stream("/test.Service/Stream")(asked(messages=2, sleep=0.1))
        until(lambda: in_flight(balancer) == 1, "the stream is under way")
        balancer.remove(servers[0].address)
        assert len(list(stream)) == 2
        until(lambda: not channel._nodes._stock.entries, "the channel is closed")


def test_a_hash_key_is_read_off_the_call(servers: list[Server]) -> None:
    """Calls of one key go to one node, by whatever names it."""
    from loadwise import Rendezvous  # noqa: PLC0415 - here alone

    balancer = Balancer([server.address for server in servers], Rendezvous())
    with Channel(balancer, hash_key=by_metadata("User")) as channel:
        one = channel.unary_unary("/test.Service/One")
        for user in "abcdef":
            expected = balancer.pick(hash_key=user)
            answer = told(one(asked(), metadata=[("user", user)]))
            assert expected == f"127.0.0.1:{answer['port']}"


def test_a_closed_channel_refuses_calls(balancer: Balancer[str]) -> None:
    """It says so as gRPC does, and what was under way is cancelled and blames nobody."""
    channel = Channel(balancer)
    stream = channel.unary_stream("/test.Service/Stream")(asked(messages=1, endless=True))
    next(stream)
    channel.close()
    with pytest.raises(grpc.RpcError):
        next(stream)
    with pytest.raises(ValueError, match="closed channel"):
        channel.unary_unary("/test.Service/One")(b"")
    with pytest.raises(NotImplementedError, match="wait_for_ready"):
        channel.subscribe(print)
    assert in_flight(balancer) == 0
    assert {status.health for status in balancer.status()} == {HealthStatus.HEALTHY}
