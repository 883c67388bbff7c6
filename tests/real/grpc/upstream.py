"""A real gRPC server in its own process, which does what the requests ask of it.

Run as a script: it appends the id of every call that it has acted on to the file named by its
first argument, listens on the port of its second, and prints a line when it does.

Requests and responses are JSON. What a request may ask for: ``id`` to be written down, ``sleep``
in seconds, ``code`` to fail with, ``trailers`` to send, ``messages`` in a stream of responses.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

journal, port = Path(sys.argv[1]), int(sys.argv[2])
health_service = health.HealthServicer()


def act(asked: dict[str, Any], context: Any) -> None:
    """Do what a request asks for, except to answer."""
    if "id" in asked:
        with journal.open("a") as file:
            file.write(f"{asked['id']}\n")
    if "serving" in asked:
        states = health_pb2.HealthCheckResponse
        health_service.set("", states.SERVING if asked["serving"] else states.NOT_SERVING)
    trailers = [
        (key, base64.b64decode(value) if key.endswith("-bin") else value)
        for key, value in asked.get("trailers", {}).items()
    ]
    context.set_trailing_metadata(trailers)
    until = time.monotonic() + asked.get("sleep", 0)
    while time.monotonic() < until and context.is_active():
        time.sleep(0.01)
    if "code" in asked and not asked.get("messages"):
        context.abort(grpc.StatusCode[asked["code"]], "as was asked for")


def answer(context: Any, **more: Any) -> bytes:
    """Return a response that tells who answers, and what it was sent."""
    sent = {
        key: value
        for key, value in context.invocation_metadata()
        if isinstance(value, str) and key != "user-agent"
    }
    left = context.time_remaining()
    told = {"port": port, "metadata": sent, "time": left if left and left < 1e6 else None}
    return json.dumps(told | more).encode()


def unary_unary(request: bytes, context: Any) -> bytes:
    """Answer one request by one response."""
    act(json.loads(request), context)
    return answer(context)


def unary_stream(request: bytes, context: Any) -> Iterator[bytes]:
    """Answer one request by several responses."""
    asked = json.loads(request)
    act(asked, context)
    for number in range(asked.get("messages", 0)):
        yield answer(context, number=number)
    if "code" in asked:
        context.abort(grpc.StatusCode[asked["code"]], "as was asked for")
    while asked.get("endless") and context.is_active():
        time.sleep(0.01)


def stream_unary(requests: Iterator[bytes], context: Any) -> bytes:
    """Answer several requests by one response."""
    count = 0
    for request in requests:
        act(json.loads(request), context)
        count += 1
    return answer(context, count=count)


def stream_stream(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    """Answer each of several requests."""
    for request in requests:
        act(json.loads(request), context)
        yield answer(context)


class Handler(grpc.GenericRpcHandler):
    """Finds the handler of a method, whose name says its kind."""

    def service(self, details: Any) -> Any:
        """Return it."""
        kinds: dict[str, Any] = {
            "/test.Service/One": grpc.unary_unary_rpc_method_handler(unary_unary),
            "/test.Service/Safe": grpc.unary_unary_rpc_method_handler(unary_unary),
            "/test.Service/Stream": grpc.unary_stream_rpc_method_handler(unary_stream),
            "/test.Service/SafeStream": grpc.unary_stream_rpc_method_handler(unary_stream),
            "/test.Service/Collect": grpc.stream_unary_rpc_method_handler(stream_unary),
            "/test.Service/SafeCollect": grpc.stream_unary_rpc_method_handler(stream_unary),
            "/test.Service/Talk": grpc.stream_stream_rpc_method_handler(stream_stream),
        }
        return kinds.get(details.method)


if __name__ == "__main__":
    server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Handler(),))
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    health_service.set("", health_pb2.HealthCheckResponse.SERVING)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print("ready", flush=True)  # noqa: T201 - the test waits for it
    server.wait_for_termination()
