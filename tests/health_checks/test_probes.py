"""The probes that come with loadwise, against real servers and real refusals."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.health_checks.support import KINDS, TIMEOUT, Server

from loadwise import Balancer, Endpoint
from loadwise.health_checks import AsyncHealthChecker, HealthChecker, HttpProbe, TcpProbe
from loadwise.health_checks.probe import TimedProbe, fault_of_error


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One server for all tests that do it no harm."""
    with Server() as running:
        yield running


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The checker the probe is for."""
    return str(request.param)


def fault(kind: str, probe: TimedProbe, node: object, timeout: float = TIMEOUT) -> str | None:
    """Ask once, and return what is wrong as a checker of this kind would say it."""

    async def ask() -> object:
        return await probe.probe_async(node)

    try:
        answer = probe.probe(node, timeout) if kind == "thread" else asyncio.run(ask())
    except Exception as error:  # noqa: BLE001 - whatever a probe raises is a verdict
        return fault_of_error(error)
    assert answer is None or isinstance(answer, str)
    return answer


@pytest.mark.parametrize(
    ("path", "options", "expected"),
    [
        ("/healthz", {}, None),
        ("/status/399", {}, None),
        ("/status/404", {}, "HTTP 404 Not Found"),
        ("/status/503", {}, "HTTP 503 Service Unavailable"),
        ("/status/200", {"expect": {204}}, "HTTP 200 OK"),
        ("/status/503", {"expect": {503}}, None),
        ("/status/302", {}, None),
        ("/status/599", {}, "HTTP 599"),
        ("/healthz", {"method": "HEAD"}, None),
        ("/host/example.com", {"headers": {"host": "example.com"}}, None),
        ("/early", {}, None),
    ],
)
def test_http_statuses(
    kind: str, server: Server, path: str, options: dict[str, Any], expected: str | None
) -> None:
    """A status from 200 to 399 passes unless told otherwise; the reason names the status.

    Redirects are not followed, interim responses are skipped, headers may be set.
    """
    assert fault(kind, HttpProbe(path, **options), server.address) == expected


def test_the_host_header_is_that_of_the_node(kind: str, server: Server) -> None:
    """As a browser would send it: host and port."""
    probe = HttpProbe(f"/host/{server.address}")
    assert fault(kind, probe, server.address) is None


@pytest.mark.parametrize(
    ("node", "url"),
    [
        ("{}", None),
        ("http://{}", None),
        ("http://{}/status/", None),
        (Endpoint("a", tags={"at": "{}"}), "http://{}/status"),
    ],
    ids=["host:port", "URL", "URL with a path", "url="],
)
def test_where_a_node_is_asked(kind: str, server: Server, node: Any, url: str | None) -> None:
    """At its id, a URL or host:port, or at what url= returns; the path goes below the URL's."""
    if url is None:
        probe = HttpProbe("/418", expect={418} if "status" in node else {200})
        node = node.format(server.address)
    else:
        address = url.format(server.address)
        probe = HttpProbe("/418", expect={418}, url=lambda _node: address)
    assert fault(kind, probe, node) is None


@pytest.mark.parametrize("path", ["/reset", "/babble"])
def test_what_does_not_answer_in_http(kind: str, server: Server, path: str) -> None:
    """A connection closed without an answer, or an answer that is none, is a failure."""
    reason = fault(kind, HttpProbe(path), server.address)
    assert reason is not None
    closed = ("RemoteDisconnected", "ConnectionError: the connection was closed")
    babble = ("BadStatusLine", "ConnectionError: what answered does not speak HTTP")
    assert reason.startswith(closed if path == "/reset" else babble)


def test_https_is_verified(kind: str, server: Server) -> None:
    """An https node is spoken to in TLS: a server that does not is a failure."""
    reason = fault(kind, HttpProbe(), f"https://{server.address}")
    assert reason is not None
    assert reason.startswith("SSLError")
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    reason = fault(kind, HttpProbe(ssl_context=unverified), f"https://{server.address}")
    assert reason is not None
    assert reason.startswith("SSLError")


@pytest.mark.parametrize("probe", [HttpProbe(), TcpProbe()], ids=["http", "tcp"])
def test_nobody_listens(kind: str, probe: TimedProbe) -> None:
    """A refused connection is a failure, and the reason says so."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        node = f"127.0.0.1:{unused.getsockname()[1]}"
        reason = fault(kind, probe, node)
    assert reason is not None
    assert reason.startswith("ConnectionRefusedError: ")


def test_a_stopped_process(kind: str) -> None:
    """HTTP notices a process that hangs; TCP does not, for the kernel accepts on its behalf."""
    with Server() as server:
        server.send(signal.SIGSTOP)
        assert fault(kind, TcpProbe(), server.address) is None
        if kind == "thread":  # a task is cancelled by its checker
            reason = fault(kind, HttpProbe(), server.address, timeout=0.05)
            assert reason == "no answer within 0.05 s"
        server.send(signal.SIGCONT)
        assert fault(kind, HttpProbe(), server.address) is None


def test_tcp_at_an_address_of_its_own(kind: str, server: Server) -> None:
    """address= tells where a node listens that is no address itself."""
    assert fault(kind, TcpProbe(lambda _node: ("127.0.0.1", server.port)), object()) is None
    assert fault(kind, TcpProbe(), f"http://{server.address}/somewhere") is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"path": "healthz"}, "path is 'healthz'; it must begin with a slash"),
        ({"path": "/a b"}, "spaces and the like must be percent-encoded"),
        ({"path": "/\r\nEvil: 1"}, "path is '/"),
        ({"method": "GET /"}, "method is 'GET /'"),
        ({"headers": {"A": "1\r\nB: 2"}}, "which is not an HTTP header"),
    ],
)
def test_bad_requests_are_refused(options: dict[str, Any], text: str) -> None:
    """What would break the request is found at construction."""
    with pytest.raises(ValueError, match=text):
        HttpProbe(**options)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: HttpProbe(expect=200), "expect is 200; it must be a range or a list"),  # type: ignore[arg-type]  # the error under test
        (lambda: HttpProbe(url="http://a"), "url is 'http://a'; it must be a function"),  # type: ignore[arg-type]  # the error under test
        (lambda: HttpProbe(ssl_context=True), "ssl_context is True; it must be an ssl"),  # type: ignore[arg-type]  # the error under test
        (lambda: TcpProbe("a:1"), "address is 'a:1'; it must be a function of a node"),  # type: ignore[arg-type]  # the error under test
    ],
)
def test_what_would_fail_every_check_is_refused(make: Callable[[], object], text: str) -> None:
    """Else all nodes would be found unhealthy by a slip in the program."""
    with pytest.raises(TypeError, match=text):
        make()


@pytest.mark.parametrize(
    ("probe", "node"),
    [
        (HttpProbe(), "db-1"),
        (HttpProbe(), 7),
        (HttpProbe(url=lambda _node: "ftp://a"), "a:80"),
        (HttpProbe(), "http://a/b c"),
        (HttpProbe(), "http://a:99999"),
        (TcpProbe(), "db-1"),
        (TcpProbe(lambda _node: ("", 80)), "a"),
        (TcpProbe(lambda _node: ("a", 0)), "a"),
        (TcpProbe(lambda _node: "a:80"), "a"),  # type: ignore[arg-type, return-value]  # the error under test
        (TcpProbe(lambda _node: ("a", "80")), "a"),  # type: ignore[arg-type, return-value]  # the error under test
    ],
)
def test_nodes_without_an_address_are_refused(probe: TimedProbe, node: Any) -> None:
    """They are found when the checker is made, and do not look like nodes that are down."""
    for make in (HealthChecker, AsyncHealthChecker):
        with pytest.raises(ValueError, match=str(node)):
            make(Balancer([node]), probe)


def test_the_package_needs_nothing_but_the_core() -> None:
    """It imports no package but loadwise, its one dependency and the standard library."""
    script = """
import json, sys
before = set(sys.modules)  # what the interpreter's own start-up needed
import loadwise.health_checks
names = {name.partition(".")[0] for name in sys.modules.keys() - before}
print(json.dumps(sorted(names - sys.stdlib_module_names)))
"""
    command = [sys.executable, "-c", script]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert set(json.loads(output)) <= {"loadwise", "loadwise__mypyc", "xxhash"}
