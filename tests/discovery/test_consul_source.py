"""Nodes from Consul, of a local server that speaks its documented protocol: see consul_server.py.

No Consul takes part.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.discovery.servers import Server
from tests.discovery.support import ids, logged, until, until_nodes

from loadwise import Balancer, Endpoint
from loadwise.discovery import ConsulSource, SourceError, Watcher
from loadwise.discovery.consul_entries import endpoints

pytest.importorskip("httpx2", reason="httpx2 is not installed")


def instance(port: int, address: str = "10.0.0.1", **service: Any) -> dict[str, Any]:
    """An instance, as Consul lists it; ``status`` is of its check, ``host`` of its machine."""
    status, host = service.pop("status", "passing"), service.pop("host", {})
    return {
        "Node": {"Node": "n", "Address": "10.9.9.9", "Datacenter": "dc1", "Meta": {}, **host},
        "Service": {
            "ID": f"search-{port}",
            "Service": "search",
            "Address": address,
            "Port": port,
            "Tags": [],
            "Meta": {},
            "Weights": {"Passing": 1, "Warning": 1},
            **service,
        },
        "Checks": [{"CheckID": "serfHealth", "Status": "passing"}, {"Status": status}],
    }


@pytest.fixture
def server(consul: Server) -> Server:
    """The server, with two instances and nothing else of other tests."""
    consul.tell("show", None)
    consul.tell("token", "")
    consul.tell("put", "search", [instance(1), instance(2)])
    return consul


@pytest.fixture(scope="module")
def consul() -> Iterator[Server]:
    """One server for all."""
    with Server("consul_server") as server:
        yield server


def source(server: Server, **options: Any) -> ConsulSource:
    """A source of the service."""
    return ConsulSource("search", url=server.url, **options)


def nodes_of(source: ConsulSource) -> list[Any]:
    """The nodes that a source finds at first."""
    feed = source.open()
    try:
        return [*feed.fetch().nodes]
    finally:
        feed.close()


def test_instances_are_followed(server: Server) -> None:
    """A change is seen at once, though the query waits for a minute."""
    balancer = Balancer[Endpoint]([])
    with Watcher(balancer, source(server), debounce=0.0):
        assert ids(balancer) == {"10.0.0.1:1", "10.0.0.1:2"}
        server.tell("put", "search", [instance(2), instance(3)])
        until_nodes(balancer, "10.0.0.1:2", "10.0.0.1:3")
        server.tell("put", "search", [instance(2), instance(3, status="critical")])
        until_nodes(balancer, "10.0.0.1:2")
    queries = [each["query"] for each in server.tell("requests") if "index" in each["query"]]
    assert queries
    assert {query["wait"] for query in queries} == {"60000ms"}
    assert {query["passing"] for query in queries} == {"1"}


def test_a_query_whose_time_is_over_is_asked_again(server: Server) -> None:
    """With the same index, and with the same nodes."""
    feed = source(server, wait=0.01).open()
    first = feed.fetch()
    before = len(server.tell("requests"))
    assert feed.fetch() == first
    assert feed.fetch() == first
    asked = [each["query"]["index"] for each in server.tell("requests")[before:]]
    assert len(set(asked)) == 1
    feed.close()


def test_an_index_that_goes_back_begins_anew(server: Server) -> None:
    """Else a change after it would be waited for that never comes."""
    feed = source(server, wait=0.01).open()
    feed.fetch()
    server.tell("index", 3)
    feed.fetch()
    before = len(server.tell("requests"))
    feed.fetch()  # at once
    feed.fetch()
    first, second = (each["query"] for each in server.tell("requests")[before:])
    assert "index" not in first
    assert second["index"] == "3"
    feed.close()


@pytest.mark.parametrize(("shown", "index"), [("0", "1"), ("00", "1")])
def test_an_index_is_at_least_one(server: Server, shown: str, index: str) -> None:
    """With 0 a query would not wait, and be repeated for ever."""
    server.tell("show", shown)
    feed = source(server, wait=0.01).open()
    feed.fetch()
    feed.fetch()
    assert server.tell("requests")[-1]["query"]["index"] == index
    feed.close()


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ((500, "No cluster leader"), "status 500: No cluster leader"),
        ((403, "Permission denied\x1b"), r"status 403: Permission denied\x1b"),
        ((301, "", {"Location": "http://127.0.0.1:1/"}), "status 301"),
        ((200, "[", {"X-Consul-Index": "7"}), "the answer is not JSON"),
        ((200, "[" * 100_000, {"X-Consul-Index": "7"}), "the answer is not JSON"),
        ((200, "{}", {"X-Consul-Index": "7"}), "the answer is {}; it must be a list"),
        ((200, []), "the answer has the X-Consul-Index None; it must be a number"),
        ((200, [], {"X-Consul-Index": "-1"}), "the answer has the X-Consul-Index '-1'"),
        ("reset", "/v1/health/service/search: "),
    ],
)
def test_a_server_that_fails_or_lies_loses_nothing(server: Server, fault: Any, text: str) -> None:
    """The error says what was wrong, and the next query does not wait."""
    feed = source(server).open()
    before = feed.fetch()
    server.tell("fault", fault)
    with pytest.raises(SourceError) as error:
        feed.fetch()
    assert text in str(error.value)
    assert feed.fetch() == before
    assert "index" not in server.tell("requests")[-1]["query"]
    feed.close()


def test_an_outage_and_a_restart_lose_nothing() -> None:
    """The last good nodes stay; one warning tells of it, and the new ones come."""
    with Server("consul_server") as server, logged() as log:
        server.tell("put", "search", [instance(1), instance(2)])
        balancer = Balancer[Endpoint]([])
        with Watcher(balancer, source(server), debounce=0.0) as watcher:
            server.kill()
            until(lambda: watcher.status().failures >= 3)
            assert ids(balancer) == {"10.0.0.1:1", "10.0.0.1:2"}
            server.start()  # which knows of nothing
            until(lambda: log.having("it lists no nodes"))
            assert ids(balancer) == {"10.0.0.1:1", "10.0.0.1:2"}
            server.tell("put", "search", [instance(2), instance(3)])
            until_nodes(balancer, "10.0.0.1:2", "10.0.0.1:3")
    assert len(log.having("ConnectError")) + len(log.having("RemoteProtocolError")) == 1


def test_a_stop_cuts_the_query_short(server: Server) -> None:
    """Which would wait for a minute: its thread is gone when the watcher has stopped."""
    watcher = Watcher(Balancer[Endpoint]([]), source(server))
    with watcher:
        until(lambda: server.tell("requests")[-1]["query"].get("index"))
        (asking,) = (each for each in threading.enumerate() if each.name.endswith("-source"))
    assert not asking.is_alive()


def test_tags_datacenters_and_tokens_are_passed_on(server: Server, monkeypatch: Any) -> None:
    """Be the token given, in the environment or in a file, which is read each time."""
    server.tell(
        "put",
        "search",
        [
            instance(1, Tags=["green"]),
            instance(2),
            instance(3, Tags=["green"], host={"Datacenter": "dc2"}),
        ],
    )
    green = source(server, tag="green")
    assert [node.id for node in nodes_of(green)] == ["10.0.0.1:1"]
    other = source(server, tag="green", datacenter="dc2")
    assert [node.id for node in nodes_of(other)] == ["10.0.0.1:3"]
    server.tell("token", "secret-1")
    assert len(nodes_of(source(server, token="secret-1"))) == 2  # noqa: S106 - of a test
    assert "secret" not in repr(source(server, token="secret-1"))  # noqa: S106 - of a test
    with pytest.raises(SourceError, match="status 403"):
        nodes_of(source(server))
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "secret-1")
    assert nodes_of(source(server))


def test_a_token_file_is_read_again(server: Server, monkeypatch: Any, tmp_path: Path) -> None:
    """Because tokens are renewed."""
    path = tmp_path / "token"
    monkeypatch.setenv("CONSUL_HTTP_TOKEN_FILE", str(path))
    feed = source(server, wait=0.01).open()
    with pytest.raises(SourceError, match="CONSUL_HTTP_TOKEN_FILE"):
        feed.fetch()
    for token in ("secret-1", "secret-2"):
        server.tell("token", token)
        path.write_text(f"{token}\n")
        assert feed.fetch().nodes
    feed.close()


def test_entries_are_endpoints() -> None:
    """With weights, zones, metadata and tags, wherever Consul has them."""
    nodes, complaints = endpoints(
        [
            instance(1, address="", Weights={"Passing": 7}, Tags=["green", "rack=r1"]),
            instance(2, Meta={"weight": "2.5", "zone": "z1", "rack": "r2"}, Tags=["rack=r1"]),
            instance(3, Locality={"Zone": "z2"}, Meta={"weight": "many", "zone": "z1"}),
            instance(4, host={"Meta": {"zone": "z3"}}, Weights={"Passing": -1}),
            instance(5, address="::1", Weights=None, Tags=None, Meta=None),
            instance(5, address="::1"),
        ]
    )
    assert nodes == (
        Endpoint("10.0.0.1:2", weight=2.5, zone="z1", tags=nodes[0].tags),
        Endpoint("10.0.0.1:3", zone="z2", tags=nodes[1].tags),
        Endpoint("10.0.0.1:4", zone="z3"),
        Endpoint("10.9.9.9:1", weight=7, tags={"green": "", "rack": "r1"}),
        Endpoint("[::1]:5"),
    )
    assert nodes[0].tags["rack"] == "r2"
    assert complaints == {}


def test_entries_that_are_no_nodes_are_left_out() -> None:
    """Those without a port, those with hostile names, and those that are nothing at all."""
    nodes, complaints = endpoints(
        [
            instance(0),
            instance(1, address="a\x1b[2J"),
            instance(70_000),
            {"Service": "x", "Node": None},
            None,
            instance(2, Meta={"zone": "a\nb"}),
        ]
    )
    assert nodes == (Endpoint("10.0.0.1:2", tags={"zone": "a\nb"}),)
    assert complaints["dropped"].startswith("5 instances are left out, such as '10.0.0.1' with")
    with pytest.raises(SourceError, match="it lists 100,001 instances"):
        endpoints([None] * 100_001)


@pytest.mark.parametrize(
    ("set_to", "url"),
    [
        ({}, "http://127.0.0.1:8500"),
        ({"CONSUL_HTTP_ADDR": "consul:8500"}, "http://consul:8500"),
        ({"CONSUL_HTTP_ADDR": "consul:8501", "CONSUL_HTTP_SSL": "true"}, "https://consul:8501"),
        ({"CONSUL_HTTP_ADDR": "https://consul/"}, "https://consul"),
    ],
)
def test_the_environment_says_where_consul_is(
    monkeypatch: Any, set_to: dict[str, str], url: str
) -> None:
    """As to Consul's own commands."""
    for name in ("CONSUL_HTTP_ADDR", "CONSUL_HTTP_SSL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in set_to.items():
        monkeypatch.setenv(name, value)
    assert ConsulSource("a")._url == url


def test_without_httpx2_it_says_what_to_install() -> None:
    """At construction."""
    code = (
        "import sys\nsys.modules['httpx2'] = None\nfrom loadwise.discovery import ConsulSource\n"
        "try: ConsulSource('a')\nexcept ImportError as error: print(error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ},
    )
    assert run.stdout == "ConsulSource needs httpx2: pip install 'loadwise[consul]'\n", run.stderr


WRONG: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: ConsulSource(""), ValueError, "service is '': it is empty"),
    (lambda: ConsulSource(3), TypeError, "service is 3; it must be a str"),  # type: ignore[arg-type]
    (lambda: ConsulSource("a", tag=3), TypeError, "tag is 3; it must be a str or None"),  # type: ignore[arg-type]
    (lambda: ConsulSource("a", token=chr(7)), ValueError, "token is not one: it has"),
    (lambda: ConsulSource("a", url="consul:8500"), ValueError, "url is 'consul:8500'; it must"),
    (lambda: ConsulSource("a", url="http://u:p@c"), ValueError, "neither a user, a query nor"),
    (lambda: ConsulSource("a", url=3), TypeError, "url is 3; it must be a str"),  # type: ignore[arg-type]
    (lambda: ConsulSource("a", wait=0), ValueError, "wait is 0; it must be seconds above 0"),
    (lambda: ConsulSource("a", wait=601), ValueError, "wait is 601; it must be seconds above 0"),
]


@pytest.mark.parametrize(("make", "error", "text"), WRONG)
def test_wrong_arguments_are_refused_at_once(
    make: Callable[[], object], error: type[Exception], text: str
) -> None:
    """With the value and the remedy."""
    with pytest.raises(error) as raised:
        make()
    assert text in str(raised.value)
