"""Nodes from Kubernetes, of a local server that speaks its documented protocol.

See kubernetes_server.py for what of it. No Kubernetes takes part.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tests.discovery.servers import Server
from tests.discovery.support import ids, logged, until, until_nodes

from loadwise import Balancer, Endpoint
from loadwise.discovery import KubernetesSource, SourceError, Watcher

pytest.importorskip("httpx2", reason="httpx2 is not installed")

NUMBERS = count()


def content(*addresses: str, ending: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """The content of a slice."""
    return {
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": [address],
                "conditions": {
                    "ready": address not in ending,
                    "serving": True,
                    "terminating": address in ending,
                },
                **more,
            }
            for address in addresses
        ],
    }


class Cluster:
    """The server, with a namespace for one test."""

    def __init__(self, server: Server, namespace: str, account: Path) -> None:
        self.server = server
        self.namespace = namespace
        self.account = account

    def put(self, name: str, *addresses: str, **more: Any) -> None:
        """Make or change a slice."""
        self.server.tell("put", self.namespace, "search", name, content(*addresses, **more))

    def delete(self, name: str) -> None:
        """Delete one."""
        self.server.tell("delete", self.namespace, name)

    def source(self, **options: Any) -> KubernetesSource:
        """A source of the service."""
        place = {"namespace": self.namespace, "url": self.server.url, "account": self.account}
        return KubernetesSource("search", **{**place, **options})

    def requests(self, kind: str) -> list[dict[str, str]]:
        """The queries of this namespace that were lists, or watches."""
        return [
            each["query"]
            for each in self.server.tell("requests")
            if f"/{self.namespace}/" in each["path"]
            and ("watch" in each["query"]) is (kind == "watch")
        ]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One server for all."""
    with Server("kubernetes_server") as server:
        yield server


@pytest.fixture
def cluster(server: Server, tmp_path: Path) -> Cluster:
    """The server, with two endpoints in a namespace of the test's own."""
    server.tell("token", "")
    cluster = Cluster(server, f"test-{next(NUMBERS)}", tmp_path)
    cluster.put("one", "10.0.0.1", "10.0.0.2")
    return cluster


def followed(cluster: Cluster, **options: Any) -> tuple[Balancer[Endpoint], Watcher[Endpoint]]:
    """A balancer, and what keeps its nodes."""
    balancer = Balancer[Endpoint]([])
    return balancer, Watcher(balancer, cluster.source(**options), debounce=0.0)


def test_endpoints_are_followed(cluster: Cluster) -> None:
    """Those of several slices, that come, change and go; nobody lists twice for that."""
    cluster.put("two", "10.0.0.3", zone="eu-1a")
    balancer, watcher = followed(cluster)
    with watcher:
        assert ids(balancer) == {"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"}
        assert [node.zone for node in balancer.nodes] == [None, None, "eu-1a"]
        cluster.put("one", "10.0.0.1", "10.0.0.4")
        until_nodes(balancer, "10.0.0.1:80", "10.0.0.4:80", "10.0.0.3:80")
        cluster.put("one", "10.0.0.1", "10.0.0.4", ending=("10.0.0.1",))
        until(lambda: watcher.status().draining == 1)
        assert {balancer.pick().id for _ in range(50)} == {"10.0.0.4:80", "10.0.0.3:80"}
        cluster.delete("two")
        until_nodes(balancer, "10.0.0.1:80", "10.0.0.4:80")
        cluster.put("one", "10.0.0.4")
        until_nodes(balancer, "10.0.0.4:80")
    assert len(cluster.requests("list")) == 1
    assert cluster.requests("list")[0]["labelSelector"] == "kubernetes.io/service-name=search"
    assert {query["allowWatchBookmarks"] for query in cluster.requests("watch")} == {"true"}


def test_a_long_list_comes_in_pages(cluster: Cluster) -> None:
    """Which belong together; a list that is too old on the way is begun again, whole."""
    for number in range(60):
        cluster.put(f"page-{number}", f"10.1.{number // 256}.{number % 256}")
    feed = cluster.source().open()
    assert len(feed.fetch().nodes) == 62
    assert [query.get("continue") for query in cluster.requests("list")] == [None, "50"]
    feed.close()
    cluster.server.tell("fault", (410, {"kind": "Status", "code": 410}))
    feed = cluster.source().open()
    assert len(feed.fetch().nodes) == 62
    assert "limit" not in cluster.requests("list")[-1]
    feed.close()


def test_a_watch_goes_on_where_the_last_one_ended(cluster: Cluster) -> None:
    """And misses nothing of what happened between."""
    balancer, watcher = followed(cluster)
    with watcher:
        until(lambda: cluster.requests("watch"))
        cluster.put("one", "10.0.0.4")
        until_nodes(balancer, "10.0.0.4:80")
        cluster.server.tell("cut")
        cluster.put("one", "10.0.0.5")
        until_nodes(balancer, "10.0.0.5:80")
    assert len(cluster.requests("list")) == 1
    versions = [int(query["resourceVersion"]) for query in cluster.requests("watch")]
    assert versions[0] < versions[-1]


def test_a_version_that_is_too_old_is_listed_anew(cluster: Cluster) -> None:
    """Whether the watch is told so as an event or by its status; what was deleted is gone."""
    balancer, watcher = followed(cluster)
    with logged(), watcher:
        until(lambda: cluster.requests("watch"))
        cluster.put("two", "10.0.0.7")
        until_nodes(balancer, "10.0.0.1:80", "10.0.0.2:80", "10.0.0.7:80")
        cluster.server.tell("drop", "one")  # nobody tells of it
        cluster.server.tell("compact")
        until_nodes(balancer, "10.0.0.7:80")
        assert len(cluster.requests("list")) == 2
        cluster.server.tell("cut")
        cluster.server.tell("compact")
        cluster.put("two", "10.0.0.8")
        until_nodes(balancer, "10.0.0.8:80")


def test_a_watch_that_ends_without_a_word_is_followed_by_a_list(cluster: Cluster) -> None:
    """For the server may have been set back, and count its versions from lower on."""
    balancer, watcher = followed(cluster)
    with watcher:
        until(lambda: cluster.requests("watch"))
        cluster.server.tell("drop", "one")  # nobody tells of it
        cluster.put("two", "10.0.0.7")
        until_nodes(balancer, "10.0.0.1:80", "10.0.0.2:80", "10.0.0.7:80")
        for _ in range(2):  # the first of these watches has told something
            count = len(cluster.requests("watch"))
            cluster.server.tell("cut")
            until(lambda count=count: len(cluster.requests("watch")) > count)  # type: ignore[misc]
        until_nodes(balancer, "10.0.0.7:80")
        assert len(cluster.requests("list")) == 2


def test_a_server_that_says_gone_for_ever_is_not_asked_for_ever() -> None:
    """After a list whose version is gone at once there is a pause, longer each time."""
    from loadwise.discovery.kubernetes_feed import KubernetesFeed  # noqa: PLC0415 - needs an extra

    lines = [json.dumps({"type": "ERROR", "object": {"code": 410, "message": "gone"}}).encode()]

    class Client:
        """Lists one version, whose watch is gone at once."""

        def get(self, *_: Any) -> Any:
            return {"metadata": {"resourceVersion": "1"}, "items": []}, {}

        def stream(self, _: str, params: dict[str, str], *__: Any) -> Any:
            asked.append(params["resourceVersion"])
            return self, {}

        def read(self) -> bytes:
            return lines[0] and lines[0] + b"\n"

        def close(self) -> None:
            """Do nothing."""

    asked: list[str] = []
    client: Any = Client()
    feed = KubernetesFeed(client, "n", "search", None, lambda: "")
    pauses = [feed.fetch().again for _ in range(9)]
    assert pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]
    assert feed.fetch().complaints == {
        "watch": "the watch of search ended: it says 'gone'; so it is listed again and again"
    }
    lines[0] = json.dumps(
        {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "2"}}}
    ).encode()
    for _ in range(2):
        well = feed.fetch()
        assert (well.again, well.complaints) == (0.0, {})
    assert feed.fetch() is well
    lines[0] = b""
    assert feed.fetch().again == 1.0
    lines[0] = json.dumps({"type": "ERROR", "object": {"code": 410}}).encode()
    again = feed.fetch()  # as happens in any cluster now and then
    assert (again.again, again.complaints) == (0.5, {})
    assert asked[-2:] == ["1", "2"]


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ((500, {"message": "etcdserver: request timed out"}), "status 500"),
        ((403, {"message": "endpointslices is forbidden\x1b"}), "is forbidden"),
        ((200, "{"), "the answer is not JSON"),
        ((200, []), "the list is []; it must be a table: is this Kubernetes?"),
        ((200, {"metadata": {}, "items": []}), "the resourceVersion is None; it must be text"),
        ((200, {"metadata": {"resourceVersion": "1"}, "items": [3]}), "a slice is 3; it must be"),
        ((200, {"metadata": {"resourceVersion": "1"}, "items": [{"metadata": {}}]}), "the name"),
        ("reset", "RemoteProtocolError"),
    ],
)
def test_a_list_that_fails_says_why(cluster: Cluster, fault: Any, text: str) -> None:
    """And is asked for again."""
    feed = cluster.source().open()
    cluster.server.tell("fault", fault)
    with pytest.raises(SourceError) as error:
        feed.fetch()
    assert text in str(error.value)
    assert str(error.value).isprintable()
    assert len(feed.fetch().nodes) == 2
    feed.close()


@pytest.mark.parametrize(
    "noise",
    [
        "half an event {",
        "[]",
        '{"type": "ADDED"}',
        '{"type": "ADDED", "object": {"metadata": {}}}',
        '{"type": "MODIFIED", "object": {"metadata": {"name": "x"}}}',
        '{"type": "ERROR", "object": {"code": 500, "message": "no"}}',
        '{"type": "ERROR", "object": {"code": "x"}}',
        '{"type": "NEW", "object": {}}',
    ],
)
def test_a_watch_that_lies_loses_nothing(cluster: Cluster, noise: str) -> None:
    """The fleet stays as it was, and the next change is seen."""
    balancer, watcher = followed(cluster)
    with logged(), watcher:
        until(lambda: cluster.requests("watch"))
        cluster.server.tell("noise", noise)
        cluster.put("two", "10.0.0.3")
        until_nodes(balancer, "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")


def test_an_outage_and_a_restart_lose_nothing(tmp_path: Path) -> None:
    """The last good nodes stay, also when a server comes back that knows of none."""
    with Server("kubernetes_server") as server, logged() as log:
        cluster = Cluster(server, "shop", tmp_path)
        cluster.put("one", "10.0.0.1", "10.0.0.2")
        balancer, watcher = followed(cluster)
        with watcher:
            until(lambda: cluster.requests("watch"))
            server.kill()
            until(lambda: watcher.status().failures >= 3)
            assert ids(balancer) == {"10.0.0.1:80", "10.0.0.2:80"}
            server.start()
            for _ in range(3):
                server.tell("compact")
            until(lambda: log.having("it lists no nodes"))
            assert ids(balancer) == {"10.0.0.1:80", "10.0.0.2:80"}
            cluster.put("one", "10.0.0.3")
            until_nodes(balancer, "10.0.0.3:80")
    assert len(log.having("what there is, 2 nodes, stays as it is, and it is asked")) <= 2


def test_a_stop_cuts_the_watch_short(cluster: Cluster) -> None:
    """Which would last for minutes: its thread is gone when the watcher has stopped."""
    _, watcher = followed(cluster)
    with watcher:
        until(lambda: cluster.requests("watch"))
        (asking,) = (each for each in threading.enumerate() if each.name.endswith("-source"))
    assert not asking.is_alive()


def test_the_files_of_the_service_account_are_used(cluster: Cluster) -> None:
    """Its namespace, and its token, which is read again because it is renewed."""
    account = cluster.account
    (account / "namespace").write_text(f"{cluster.namespace}\n")
    cluster.server.tell("token", "token-1")
    feed = cluster.source(namespace=None).open()
    with pytest.raises(SourceError, match="status 401"):
        feed.fetch()
    (account / "token").write_text("token-1\n")
    assert len(feed.fetch().nodes) == 2
    feed.close()
    cluster.server.tell("token", "token-2")
    (account / "token").write_text("token-2")
    feed = cluster.source(namespace=None).open()
    assert len(feed.fetch().nodes) == 2
    feed.close()
    cluster.server.tell("token", "")


def test_files_that_are_wrong_say_so(cluster: Cluster) -> None:
    """With their path."""
    with pytest.raises(SourceError, match="namespace is not there: this is no pod"):
        cluster.source(namespace=None).open()
    (cluster.account / "ca.crt").write_text("no certificate")
    with pytest.raises(SourceError, match=r"ca\.crt holds no certificates"):
        cluster.source().open()
    (cluster.account / "token").write_bytes(b"\xff")
    (cluster.account / "ca.crt").unlink()
    feed = cluster.source().open()
    with pytest.raises(SourceError, match="token cannot be read"):
        feed.fetch()
    feed.close()


TLS = """
import http.server, json, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"metadata": {"resourceVersion": "1"}, "items": []}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


def test_the_certificate_is_checked_by_that_of_the_account(
    certificate: tuple[Path, Path], tmp_path: Path, monkeypatch: Any
) -> None:
    """At the place that the environment of a pod tells."""
    with subprocess.Popen(
        [sys.executable, "-c", TLS, *map(str, certificate)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            monkeypatch.setenv("KUBERNETES_SERVICE_PORT", process.stdout.readline().strip())
            source = KubernetesSource("search", namespace="shop", account=tmp_path)
            feed = source.open()
            with pytest.raises(SourceError, match="CERTIFICATE_VERIFY_FAILED"):
                feed.fetch()
            feed.close()
            (tmp_path / "ca.crt").write_bytes(certificate[0].read_bytes())
            feed = source.open()
            assert feed.fetch().nodes == ()
            feed.close()
        finally:
            process.kill()


WRONG: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: KubernetesSource(""), ValueError, "service is ''; it must be a name"),
    (lambda: KubernetesSource("a/b"), ValueError, "service is 'a/b'; it must be a name"),
    (lambda: KubernetesSource(3), TypeError, "service is 3; it must be a str"),  # type: ignore[arg-type]
    (lambda: KubernetesSource("a", namespace="b,c"), ValueError, "namespace is 'b,c'"),
    (lambda: KubernetesSource("a", port=0), ValueError, "port is 0; it must be 1 to 65535"),
    (lambda: KubernetesSource("a", port=1.5), TypeError, "port is 1.5; it must be an int"),  # type: ignore[arg-type]
    (lambda: KubernetesSource("a"), ValueError, "url is missing, and KUBERNETES_SERVICE_HOST is"),
    (lambda: KubernetesSource("a", url="x"), ValueError, "url is 'x'; it must be an http or"),
    (lambda: KubernetesSource("a", url="http://a", account=3), TypeError, "account is 3; it"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "error", "text"), WRONG)
def test_wrong_arguments_are_refused_at_once(
    make: Callable[[], object], error: type[Exception], text: str, monkeypatch: Any
) -> None:
    """With the value and the remedy."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(error) as raised:
        make()
    assert text in str(raised.value)
