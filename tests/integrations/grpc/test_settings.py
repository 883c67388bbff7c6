"""Arguments of the channels, and addresses of nodes."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest

grpc = pytest.importorskip("grpc")

from loadwise import Balancer, Endpoint, NoNodeAvailable  # noqa: E402 - as above
from loadwise.integrations.grpc import (  # noqa: E402
    Channel,
    GrpcProbe,
    NoNodeError,
    aio,
    by_metadata,
)
from loadwise.integrations.grpc._settings import target_of  # noqa: E402 - as above


@pytest.mark.parametrize(
    ("node", "target"),
    [
        ("10.0.0.1:50051", "10.0.0.1:50051"),
        (Endpoint("greeter.example.com:443"), "greeter.example.com:443"),
        ("http://10.0.0.1:50051", "10.0.0.1:50051"),
        ("http://10.0.0.1/", "10.0.0.1:80"),
        ("https://greeter.example.com", "greeter.example.com:443"),
        ("[::1]:50051", "[::1]:50051"),
        ("unix:/run/app.sock", "unix:/run/app.sock"),
        ("dns:///greeter.example.com:50051", "dns:///greeter.example.com:50051"),
    ],
)
def test_addresses_are_found(node: object, target: str) -> None:
    """An id is an address, a URL or a name of gRPC's own."""
    assert target_of(node, None) == target


@pytest.mark.parametrize("node", [1, "greeter", "http://10.0.0.1/v1", "10.0.0.1:0", ("a", 1), ""])
def test_other_ids_need_a_target(node: object) -> None:
    """The error says so; with one, they are fine."""
    with pytest.raises(ValueError, match="target="):
        Channel(Balancer([node]))
    with Channel(Balancer([node]), target=lambda _: "10.0.0.1:50051"):
        pass
    with pytest.raises(ValueError, match="the target of node"):
        Channel(Balancer([node]), target=lambda _: "nowhere")


@pytest.mark.parametrize("kind", [Channel, aio.Channel])
@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"credentials": "tls"}, TypeError, "ssl_channel_credentials"),
        ({"credentials": grpc.access_token_call_credentials("x")}, TypeError, "with each call"),
        ({"options": "grpc.x"}, TypeError, "pairs of name and value"),
        ({"options": ["grpc.x"]}, TypeError, "options has 'grpc.x'"),
        ({"max_attempts": 0}, ValueError, "max_attempts is 0"),
        ({"idempotent": "/a.B/C"}, TypeError, "a set of methods"),
        ({"idempotent": ["a.B/C"]}, ValueError, "'a.B/C', which is no full name"),
        ({"idempotent": [3]}, TypeError, "idempotent has 3"),
        ({"attempt_timeout": 0}, ValueError, "attempt_timeout is 0"),
        ({"deadline": -1}, ValueError, "deadline is -1"),
        ({"max_cooldown": None}, TypeError, "max_cooldown is None"),
        ({"timeout": -1}, ValueError, "timeout is -1"),
        ({"budget": 3}, TypeError, "budget is 3"),
        ({"compression": 3}, TypeError, "grpc.Compression.Gzip"),
        ({"hash_key": "user"}, TypeError, "hash_key is 'user'"),
        ({"atempt_timeout": 1}, TypeError, "did you mean 'attempt_timeout'"),
    ],
)
def test_wrong_arguments_are_refused(
    kind: Any, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    """At construction, by an error that names the value and the remedy."""
    with pytest.raises(error, match=text):
        kind(Balancer(["10.0.0.1:50051"]), **arguments)
    with pytest.raises(TypeError, match="must be a Balancer"):
        kind(["10.0.0.1:50051"])


def test_wrong_interceptors_are_refused() -> None:
    """Those of the other channel are of another kind."""
    for wrong in (3, [3]):
        with pytest.raises(TypeError, match="interceptors"):
            aio.Channel(Balancer(["a:1"]), interceptors=wrong)  # type: ignore[arg-type]


def test_wrong_arguments_of_a_probe_are_refused() -> None:
    """At construction, too."""
    wrong: list[dict[str, Any]] = [{"service": 3}, {"target": 3}, {"credentials": 3}]
    for each in wrong:
        with pytest.raises(TypeError, match=f"{next(iter(each))} is 3"):
            GrpcProbe(**each)
    with pytest.raises(ValueError, match="target="):
        GrpcProbe().check_node("greeter")
    with pytest.raises(TypeError, match="name is 3"):
        by_metadata(3)  # type: ignore[arg-type]  # that is what is tested


@pytest.mark.parametrize("kind", [NoNodeError, aio.NoNodeError])
def test_errors_pickle(kind: Any) -> None:
    """They come out as they went in, and are of both families."""
    error = kind("search", 2, {"unhealthy": 2}, 3.0)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - what was made above
    assert str(copy) == str(error) == copy.details()
    assert isinstance(copy, NoNodeAvailable)
    assert isinstance(copy, grpc.RpcError)
    assert copy.code() is grpc.StatusCode.UNAVAILABLE
    assert not copy.trailing_metadata()


def test_there_is_no_one_connection_to_ask_about() -> None:
    """Its state cannot be told, and the error says what to do instead."""

    async def main() -> None:
        channel = aio.Channel(Balancer(["a:1"]))
        with pytest.raises(NotImplementedError, match="wait_for_ready"):
            channel.get_state()
        with pytest.raises(NotImplementedError, match="wait_for_ready"):
            await channel.channel_ready()
        await channel.close()

    asyncio.run(main())
