"""The adapter for requests where a session reaches its nodes by a SOCKS proxy."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import pytest
import requests
from requests.exceptions import InvalidSchema
from tests.real.http.conversing import Scripted

from loadwise import Balancer, HealthStatus, NoopCollector, Outcome, RoundRobin
from loadwise.integrations.requests import LoadwiseAdapter

pytestmark = pytest.mark.slow

Script = Callable[..., Scripted]
URL = "http://service"
HAS_SOCKS = find_spec("socks") is not None
_PIECE = 65_536


class Proxy(ThreadingTCPServer):
    """A SOCKS5 proxy without credentials, which remembers where it was to connect."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Conversation)
        self.asked: list[tuple[str, int]] = []


class Conversation(StreamRequestHandler):
    """One connection of a client's (RFC 1928), by IPv4 addresses alone."""

    server: Proxy

    def handle(self) -> None:
        """Connect where the client wants, and pass on all that comes."""
        _, count = self.rfile.read(2)
        self.rfile.read(count)
        self.request.sendall(b"\x05\x00")
        self.rfile.read(4)
        target = socket.inet_ntoa(self.rfile.read(4)), struct.unpack(">H", self.rfile.read(2))[0]
        self.server.asked.append(target)
        with socket.create_connection(target, 20) as node:
            self.request.sendall(b"\x05\x00\x00\x01" + bytes(6))
            back = threading.Thread(target=pass_on, args=(node, self.request))
            back.start()
            pass_on(self.request, node)
            back.join()


def pass_on(source: socket.socket, sink: socket.socket) -> None:
    """Send on what comes, and the end of it."""
    with suppress(OSError):
        while piece := source.recv(_PIECE):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy at work."""
    with Proxy() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Outcomes(NoopCollector):
    """Remembers how requests ended."""

    def __init__(self) -> None:
        self.seen: list[Outcome] = []

    def on_outcome(self, node_id: object, outcome: Outcome, latency: float) -> None:
        self.seen.append(outcome)


@contextmanager
def session_of(balancer: Balancer[Any], proxy: str) -> Iterator[requests.Session]:
    """A session whose requests to the service are balanced, and go by a proxy."""
    with requests.Session() as session:
        session.mount(f"{URL}/", LoadwiseAdapter(balancer))
        session.proxies = {"http": proxy}
        yield session


@pytest.mark.skipif(not HAS_SOCKS, reason="PySocks is not installed")
def test_each_node_is_reached_by_the_proxy(scripted: Script, proxy: Proxy) -> None:
    """Its connections are kept, and close when it leaves the balancer."""
    servers = scripted("plain", 2)
    balancer = Balancer(servers.nodes, RoundRobin(start=0))
    with session_of(balancer, "socks5://{}:{}".format(*proxy.server_address)) as session:
        for _ in range(4):
            assert session.get(f"{URL}/").ok
        assert [f"http://{host}:{port}" for host, port in proxy.asked] == servers.nodes
        assert [each["connections"] for each in servers.told()] == [1, 1]
        balancer.remove(servers.nodes[0])
        servers.until(lambda told: [each["open"] for each in told] == [0, 1])
    servers.until(lambda told: [each["open"] for each in told] == [0, 0])


@pytest.mark.skipif(HAS_SOCKS, reason="PySocks is installed")
def test_without_pysocks_the_error_is_that_of_requests(scripted: Script) -> None:
    """No node is asked nor charged, and the session goes on without the proxy."""
    servers = scripted("plain", 2)
    outcomes = Outcomes()
    balancer = Balancer(servers.nodes, RoundRobin(start=0), metrics=outcomes)
    with session_of(balancer, "socks5://127.0.0.1:1") as session:
        for _ in range(6):
            with pytest.raises(InvalidSchema, match="SOCKS"):
                session.get(f"{URL}/")
        assert set(outcomes.seen) <= {Outcome.CANCELLED}
        assert [each["connections"] for each in servers.told()] == [0, 0]
        assert {each.health for each in balancer.status()} == {HealthStatus.HEALTHY}
        assert not any(each.in_flight for each in balancer.status())
        session.proxies = {}
        assert session.get(f"{URL}/").ok
