"""Attempts as events of the current span, read with the SDK's in-memory exporter."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from tests.integrations.http.clients import Ask, Client, every_client

from loadwise import Balancer, RoundRobin

Start = Callable[[int], list[Any]]
URL = "http://fleet"


class Tracing:
    """An SDK that keeps what it is told."""

    def __init__(self, **options: Any) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(**options)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._tracer = provider.get_tracer("test")

    def events(self, work: Callable[[], object]) -> list[Mapping[str, Any]]:
        """The attributes of the events of the span in which ``work`` was done."""
        with self._tracer.start_as_current_span("GET"):
            work()
        spans = self._exporter.get_finished_spans()
        events = [event for span in spans for event in span.events]
        assert {event.name for event in events} <= {"loadwise.attempt"}
        return [dict(event.attributes or {}) for event in events]


def balancer_of(*servers: Any) -> Balancer[str]:
    """A balancer that asks the servers in order."""
    nodes = [each.address for each in servers]
    return Balancer(nodes, RoundRobin(start=0), health=False, name="search")


def server_of(upstream: Any) -> dict[str, object]:
    """The attributes by which events name a server."""
    return {
        "loadwise.balancer": "search",
        "loadwise.node": upstream.address,
        "server.address": "127.0.0.1",
        "server.port": upstream.port,
    }


@every_client
def test_each_attempt_is_an_event(client: Client, upstreams: Start) -> None:
    """A server that fails, a dead one, and one that answers: three events, in that order."""
    failing, dead, well = upstreams(3)
    dead.kill()
    balancer = balancer_of(failing, dead, well)
    failing.behave("fail")
    events = Tracing().events(lambda: client.send(balancer, f"{URL}/"))
    assert len(events) == 3
    first, second, third = events
    assert first == {
        **server_of(failing),
        "loadwise.outcome": "failure",
        "http.response.status_code": 503,
        "error.type": "503",
    }
    kind = str(second["error.type"])
    assert kind.rpartition(".")[2] in {"ConnectError", "ClientConnectorError", "ConnectionError"}
    assert second == {
        **server_of(dead),
        "loadwise.outcome": "failure",
        "http.request.resend_count": 1,
        "error.type": kind,
    }
    assert third == {
        **server_of(well),
        "loadwise.outcome": "success",
        "http.request.resend_count": 2,
        "http.response.status_code": 200,
    }


@every_client
def test_an_answer_that_is_an_error_is_one_event(client: Client, upstreams: Start) -> None:
    """Whether the client retries it or hands it on; a 404 is nobody's failure."""
    (server,) = upstreams(1)
    tracing = Tracing()
    balancer = balancer_of(server)
    asks = [f"{URL}/?status=404", f"{URL}/?status=503", f"{URL}/?status=429", f"{URL}/stream"]
    events = tracing.events(lambda: client.send(balancer, *asks))
    assert [(each["loadwise.outcome"], each["http.response.status_code"]) for each in events] == [
        ("success", 404), ("failure", 503), ("rate_limited", 429), ("success", 200),
    ][: len(events)]  # fmt: skip
    assert len(events) >= 3  # one that is on cooldown is not asked
    assert all("http.request.resend_count" not in each for each in events)
    assert [each.get("error.type") for each in events][:3] == [None, "503", "429"]


@every_client
def test_a_set_up_that_fails_is_an_event(client: Client, upstreams: Start) -> None:
    """Of the node for which it failed, by its id, and no request was sent."""
    (server,) = upstreams(1)

    def prepare(request: Any, node: str) -> None:
        raise KeyError(node)

    events = Tracing().events(
        lambda: client.send(balancer_of(server), f"{URL}/", prepare=prepare, max_attempts=1)
    )
    assert events == [
        {**server_of(server), "loadwise.outcome": "failure", "error.type": "KeyError"}
    ]


@every_client
def test_a_body_that_breaks_off_makes_one_event_of_its_attempt(
    client: Client, upstreams: Start
) -> None:
    """The response had come, so its event is that; nothing is told twice."""
    (server,) = upstreams(1)
    ask = Ask(f"{URL}/stream?cut=1", "POST")
    events = Tracing().events(lambda: client.send(balancer_of(server), ask))
    assert len(events) == 1
    assert events[0]["http.response.status_code"] == 200


class Short(BaseHTTPRequestHandler):
    """Promises more than it sends."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "10")
        self.end_headers()
        self.wfile.write(b"abc")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass


@every_client
def test_a_body_that_breaks_off_before_it_is_handed_on_is_a_failure(
    client: Client, upstreams: Start
) -> None:
    """The event tells both: the status that came, and the error that came of it."""
    (well,) = upstreams(1)
    with ThreadingHTTPServer(("127.0.0.1", 0), Short) as short:
        thread = Thread(target=short.serve_forever, args=[0.01])
        thread.start()
        nodes = [f"127.0.0.1:{short.server_port}", well.address]
        balancer = Balancer(nodes, RoundRobin(start=0), health=False, name="search")
        first, second = Tracing().events(lambda: client.send(balancer, f"{URL}/"))
        short.shutdown()
        thread.join()
    assert first["loadwise.node"] == nodes[0]
    assert (first["http.response.status_code"], first["loadwise.outcome"]) == (200, "failure")
    broken = {"RemoteProtocolError", "ClientPayloadError", "ChunkedEncodingError"}
    assert first["error.type"].rpartition(".")[2] in broken
    assert (second["loadwise.node"], second["loadwise.outcome"]) == (nodes[1], "success")


@every_client
def test_no_span_no_events(client: Client, upstreams: Start) -> None:
    """Neither without a span, nor in one that is not sampled."""
    (server,) = upstreams(1)
    balancer = balancer_of(server)
    (answer,) = client.send(balancer, f"{URL}/")
    assert answer.status == 200
    assert Tracing(sampler=ALWAYS_OFF).events(lambda: client.send(balancer, f"{URL}/")) == []


@pytest.mark.parametrize("library", ["httpx", "aiohttp"])
def test_opentelemetry_is_not_imported(library: str, upstreams: Start) -> None:
    """By a program that has not imported it itself, whether it is installed or not."""
    (server,) = upstreams(1)
    script = f"""
import sys
from tests.integrations.http.clients import Client
from loadwise import Balancer
(answer,) = Client({library!r}, waits=True).send(Balancer([{server.address!r}]), "http://fleet/")
assert answer.status == 200
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
