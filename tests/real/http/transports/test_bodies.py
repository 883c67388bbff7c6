"""Bodies that the transports of httpx and httpx2 hand on: their leases, meters and faults."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from tests.real.http.transports.support import Recorder, Start, in_flight

from loadwise import Balancer, Outcome, QuotaConfig, QuotaDimension, QuotaTracker
from loadwise.integrations.llm import TokenMeter
from loadwise.testing import ManualClock

pytestmark = pytest.mark.slow


def test_an_error_of_the_callers_own_says_nothing_about_the_node(
    library: Any, ours: Any, upstreams: Start
) -> None:
    """A body that raises while it is sent is not the node's fault."""
    (server,) = upstreams(1)
    recorder = Recorder()
    balancer = Balancer([server.address], metrics=recorder)

    def body() -> Iterator[bytes]:
        yield b"a"
        raise KeyError("mine")

    with (
        library.Client(transport=ours.LoadwiseTransport(balancer)) as client,
        pytest.raises(KeyError, match="mine"),
    ):
        client.post("http://service/", content=body())
    assert recorder.outcomes == [(server.address, Outcome.CANCELLED)]
    assert in_flight(balancer) == 0


def test_in_flight_until_the_body_is_closed(library: Any, ours: Any, upstreams: Start) -> None:
    """A streamed response holds its slot until it is closed, read to the end or not."""
    (server,) = upstreams(1)
    balancer = Balancer([server.address])
    with library.Client(transport=ours.LoadwiseTransport(balancer)) as client:
        with client.stream("GET", "http://service/stream?pieces=3") as response:
            assert in_flight(balancer) == 1
            assert response.read() == b"piece 0\npiece 1\npiece 2\n"
        assert in_flight(balancer) == 0
        with client.stream("GET", "http://service/stream?pieces=3"):
            assert in_flight(balancer) == 1
        assert in_flight(balancer) == 0


def test_a_body_that_breaks_off_is_a_failure(library: Any, ours: Any, upstreams: Start) -> None:
    """A response cut short counts against the node although its headers were fine."""
    (server,) = upstreams(1)
    recorder = Recorder()
    balancer = Balancer([server.address], metrics=recorder)
    with (
        library.Client(transport=ours.LoadwiseTransport(balancer)) as client,
        pytest.raises(library.RemoteProtocolError),
    ):
        client.get("http://service/stream?cut=1")
    assert recorder.outcomes == [(server.address, Outcome.FAILURE)]
    assert in_flight(balancer) == 0


def test_a_response_that_is_never_closed_is_released_by_collection(
    library: Any, ours: Any, upstreams: Start
) -> None:
    """The slot of a response that is dropped comes back, with a warning."""
    (server,) = upstreams(1)
    balancer = Balancer([server.address])
    inner = library.HTTPTransport()
    client = library.Client(transport=ours.LoadwiseTransport(balancer, inner))
    held = [client.send(client.build_request("GET", "http://service/stream"), stream=True)]
    assert in_flight(balancer) == 1

    def drop() -> None:
        held.clear()
        gc.collect()

    with pytest.warns(ResourceWarning, match=f"a lease on node '{server.address}' was dropped"):
        drop()
    assert in_flight(balancer) == 0
    client.close()


def test_latency_is_the_time_to_the_headers(library: Any, ours: Any, upstreams: Start) -> None:
    """Reading the body slowly does not make the node look slow."""
    (server,) = upstreams(1)
    clock = ManualClock()
    balancer = Balancer([server.address], clock=clock)
    with (
        library.Client(transport=ours.LoadwiseTransport(balancer)) as client,
        client.stream("GET", "http://service/stream") as response,
    ):
        clock.advance(60.0)
        response.read()
    assert balancer.status()[0].latency == 0.0


def test_a_body_that_is_left_early_is_a_success(library: Any, ours: Any, upstreams: Start) -> None:
    """Who has read enough leaves the loop; the node has done nothing wrong."""
    (server,) = upstreams(1)
    recorder = Recorder()
    balancer = Balancer([server.address], metrics=recorder)
    with (
        library.Client(transport=ours.LoadwiseTransport(balancer)) as client,
        client.stream("GET", "http://service/stream") as response,
    ):
        next(response.iter_raw())
    assert recorder.outcomes == [(server.address, Outcome.SUCCESS)]


@pytest.mark.parametrize(("asked", "sent"), [("br", "gzip, deflate"), ("identity", "identity")])
def test_a_meter_is_sent_nothing_that_it_cannot_read(
    library: Any, ours: Any, upstreams: Start, asked: str, sent: str
) -> None:
    """Encodings that can be undone here take the place of others; who wants none gets none."""
    (server,) = upstreams(1)
    quota = QuotaTracker()
    quota.register(server.address, QuotaConfig([QuotaDimension("rpm", limit=10)]))
    balancer = Balancer([server.address], quota=quota)
    transport = ours.LoadwiseTransport(balancer, meter=TokenMeter(tokens=None))
    with library.Client(transport=transport) as client:
        response = client.get("http://service/", headers={"Accept-Encoding": asked})
    assert response.json()["headers"]["accept-encoding"] == sent


def test_a_meter_that_raises_says_nothing_about_the_node(
    library: Any, ours: Any, upstreams: Start
) -> None:
    """Its error reaches the caller, and is not counted against whoever answered."""
    (server,) = upstreams(1)
    recorder = Recorder()
    balancer = Balancer([server.address], metrics=recorder)

    class Broken:
        def estimate(self, body: bytes) -> None:
            """Nothing."""

        def reader(self, content_type: str) -> Broken:
            return self

        def feed(self, chunk: bytes) -> None:
            raise KeyError("mine")

        def amounts(self) -> None:
            """Nothing."""

    transport = ours.LoadwiseTransport(balancer, meter=Broken())
    with library.Client(transport=transport) as client:
        for path in ("stream", "small"):
            with pytest.raises(KeyError, match="mine"):
                client.get(f"http://service/{path}")
    assert recorder.outcomes == [(server.address, Outcome.CANCELLED)] * 2
