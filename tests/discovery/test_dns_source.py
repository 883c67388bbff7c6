"""Nodes from DNS, of a real server: dnsmasq, in its own process."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.discovery.support import TIMEOUT, ids, logged, until, until_nodes
from tests.ports import free_port

from loadwise import Balancer, Endpoint
from loadwise.discovery import DnsSource, SourceError, Watcher

dns_resolver: Any = pytest.importorskip("dns.resolver", reason="dnspython is not installed")
DNSMASQ = shutil.which("dnsmasq", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
needs_dnsmasq = pytest.mark.skipif(DNSMASQ is None, reason="dnsmasq is not installed")

HOSTS = """
10.0.0.1 search.test
10.0.0.2 search.test
fd00::1 search.test
10.0.0.9 four.test
fd00::9 six.test
"""
SERVERS = """
srv-host=_http._tcp.search.test,B.search.test,8081,1,30
srv-host=_http._tcp.search.test,a.search.test,8080,1,10
srv-host=_http._tcp.search.test,spare.search.test,80,2,0
srv-host=_mixed._tcp.search.test,a.search.test,1,0,0
srv-host=_mixed._tcp.search.test,b.search.test,1,0,200
srv-host=_equal._tcp.search.test,a.search.test,1,0,0
srv-host=_equal._tcp.search.test,b.search.test,1,0,0
srv-host=_odd._tcp.search.test,noport.search.test,0,0,0
srv-host=_odd._tcp.search.test,good.search.test,80,0,0
srv-host=_none._tcp.search.test
cname=alias.test,search.test
host-record=ready.test,10.0.9.9
"""


class Dnsmasq:
    """A server of names on a port of its own, with files that can be changed."""

    def __init__(self, folder: Path) -> None:
        self.hosts = folder / "hosts"
        self.conf = folder / "conf"
        self.hosts.write_text(HOSTS)
        self.conf.write_text(SERVERS)
        self.port = free_port()
        self.start()

    def start(self) -> None:
        """Start it, and return when it answers."""
        options = (
            "--keep-in-foreground --no-resolv --no-hosts --bind-interfaces --pid-file= "
            f"--listen-address=127.0.0.1 --port={self.port} --local=/test/ --local-ttl=1 "
            f"--addn-hosts={self.hosts} --conf-file={self.conf} --user={_user()} "
            "--log-facility=/dev/null"
        )
        self.process = subprocess.Popen(
            [str(DNSMASQ), *options.split()], stderr=subprocess.PIPE, text=True
        )
        until(self._answers)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()
        with suppress(Exception):
            self.resolver().resolve("ready.test", "A")
            return True
        return False

    def resolver(self) -> Any:
        """A resolver that asks it."""
        resolver = dns_resolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = self.port
        resolver.lifetime = 0.5
        return resolver

    def list(self, hosts: str) -> None:
        """Replace its list of hosts."""
        self.hosts.write_text(hosts)
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.communicate(timeout=TIMEOUT)


def _user() -> str:
    import pwd  # noqa: PLC0415 - not on every system, and neither is dnsmasq

    return pwd.getpwuid(os.getuid()).pw_name


@contextmanager
def running(folder: Path) -> Iterator[Dnsmasq]:
    """A server for a while."""
    server = Dnsmasq(folder)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dnsmasq]:
    """A server whose files nobody changes."""
    with running(tmp_path_factory.mktemp("dns")) as server:
        yield server


def answer(server: Dnsmasq, name: str, **options: Any) -> Any:
    """What a source finds at first."""
    return DnsSource(name, resolver=server.resolver(), **options).open().fetch()


@needs_dnsmasq
@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("search.test", None, {"10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:80"}),
        ("SEARCH.test.", "A", {"10.0.0.1:80", "10.0.0.2:80"}),
        ("search.test", "aaaa", {"[fd00::1]:80"}),
        ("four.test", None, {"10.0.0.9:80"}),
        ("six.test", None, {"[fd00::9]:80"}),
        ("alias.test", None, {"10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:80"}),
    ],
)
def test_addresses_are_nodes(
    server: Dnsmasq, name: str, kind: str | None, expected: set[str]
) -> None:
    """Of both families, sorted, for as long as the server says."""
    found = answer(server, name, type=kind, port=80)
    assert [node.id for node in found.nodes] == sorted(expected)
    assert found.again == 1.0
    assert not found.complaints


@needs_dnsmasq
def test_servers_are_nodes_with_ports_weights_and_priorities(server: Dnsmasq) -> None:
    """Their names are kept, in small letters and without the last dot."""
    assert answer(server, "_http._tcp.search.test").nodes == (
        Endpoint("a.search.test:8080", weight=10, priority=1),
        Endpoint("b.search.test:8081", weight=30, priority=1),
        Endpoint("spare.search.test:80", weight=1, priority=2),
    )
    assert [node.weight for node in answer(server, "_equal._tcp.search.test").nodes] == [1, 1]
    assert [node.weight for node in answer(server, "_mixed._tcp.search.test").nodes] == [2, 200]


@needs_dnsmasq
def test_records_without_a_port_are_left_out(server: Dnsmasq) -> None:
    """And told of; a service that says that it is nowhere is an empty answer."""
    found = answer(server, "_odd._tcp.search.test")
    assert [node.id for node in found.nodes] == ["good.search.test:80"]
    assert found.complaints == {
        "dropped": "1 records are left out, such as 'noport.search.test.', which has no port"
    }
    assert answer(server, "_none._tcp.search.test").nodes == ()


@needs_dnsmasq
@pytest.mark.parametrize("name", ["no.test", "_no._tcp.search.test"])
def test_names_that_are_none_are_empty_answers(server: Dnsmasq, name: str) -> None:
    """Asked again soon."""
    found = answer(server, name, port=None if name.startswith("_") else 80)
    assert (found.nodes, found.again) == ((), 5.0)


@needs_dnsmasq
def test_a_fleet_follows_a_name_through_outages(tmp_path: Path) -> None:
    """The last good set stays while the server is away, says nothing, or is not a server at all."""
    with running(tmp_path) as server, logged() as log:
        source = DnsSource("search.test", type="A", port=80, resolver=server.resolver())
        balancer = Balancer[Endpoint]([])
        with Watcher(balancer, source, debounce=0.0) as watcher:
            assert ids(balancer) == {"10.0.0.1:80", "10.0.0.2:80"}
            server.list("10.0.0.2 search.test\n10.0.0.3 search.test\n")
            until_nodes(balancer, "10.0.0.2:80", "10.0.0.3:80")
            server.stop()
            until(lambda: watcher.status().failures >= 2)
            assert ids(balancer) == {"10.0.0.2:80", "10.0.0.3:80"}
            server.hosts.write_text("10.0.0.4 search.test\n10.0.0.5 search.test\n")
            server.start()
            until_nodes(balancer, "10.0.0.4:80", "10.0.0.5:80")
            server.list("10.0.0.9 other.test\n")
            until(lambda: log.having("it lists no nodes"))
            assert ids(balancer) == {"10.0.0.4:80", "10.0.0.5:80"}
    assert len(log.having("cannot be looked up (A)")) == 1
    assert len(log.having("2 of 2 nodes are gone at once")) == 1


class Answers:
    """Answers of a server that no server of the tests gives: TTLs, faults, hostile targets."""

    def __init__(self, texts: dict[str, str | Exception]) -> None:
        self.texts = texts

    def resolve(self, name: str, kind: str) -> Any:
        """Return what the text of a zone says."""
        import dns.message  # noqa: PLC0415 - is skipped without it
        import dns.name  # noqa: PLC0415
        import dns.rdataclass  # noqa: PLC0415
        import dns.rdatatype  # noqa: PLC0415

        text = self.texts[kind]
        if isinstance(text, Exception):
            raise text
        lines = [line.split(maxsplit=2) for line in text.splitlines()]
        response: Any = dns.message.from_text(
            f"id 1\nflags QR RD RA\n;QUESTION\n{name}. IN {kind}\n;ANSWER\n"
            + "\n".join(f"{owner}. {ttl} IN {rest}" for owner, ttl, rest in lines)
        )
        return dns_resolver.Answer(
            dns.name.from_text(name), dns.rdatatype.from_text(kind), dns.rdataclass.IN, response
        )


def of(texts: dict[str, str | Exception], name: str = "n.test") -> DnsSource:
    """A source that is given these answers."""
    port = None if name.startswith("_") else 80
    return DnsSource(name, port=port, resolver=Answers(texts))


def test_a_ttl_is_respected() -> None:
    """The least of all records and of the aliases that lead to them."""
    a, b = "n.test 300 A 10.0.0.1", "n.test 60 CNAME o.test.\no.test 90 AAAA fd00::1"
    assert of({"A": a, "AAAA": b}).open().fetch().again == 60.0
    assert of({"A": a, "AAAA": _no_answer()}).open().fetch().again == 300.0
    assert of({"A": "n.test 0 A 10.0.0.1", "AAAA": _no_answer()}).open().fetch().again == 1.0
    huge = "n.test 2147483647 A 10.0.0.1"
    assert of({"A": huge, "AAAA": _no_answer()}).open().fetch().again == 86_400.0


def _no_answer() -> Exception:
    import dns.message  # noqa: PLC0415 - is skipped without it

    error: Exception = dns_resolver.NoAnswer(response=dns.message.make_query("n.test", "AAAA"))
    return error


def test_one_family_that_cannot_be_asked_takes_no_nodes_away() -> None:
    """What was known of it is kept; if neither can be asked, that is an error."""
    a, b = "n.test 300 A 10.0.0.1", "n.test 300 AAAA fd00::1"
    answers = Answers({"A": a, "AAAA": b})
    feed = DnsSource("n.test", port=80, resolver=answers).open()
    both = ("10.0.0.1:80", "[fd00::1]:80")
    assert tuple(node.id for node in feed.fetch().nodes) == both
    answers.texts["AAAA"] = dns_resolver.LifetimeTimeout(timeout=1.0, errors=[])
    found = feed.fetch()
    assert tuple(node.id for node in found.nodes) == both
    assert found.again == 5.0
    assert "n.test cannot be looked up (AAAA)" in found.complaints["partly"]
    answers.texts["A"] = OSError("no route to host")
    with pytest.raises(SourceError, match=r"n\.test cannot be looked up \(A\)"):
        feed.fetch()


def test_hostile_targets_are_left_out() -> None:
    """Nothing of theirs gets into an id, and into the log only what can be seen."""
    lines = [
        "_s.test 60 SRV 0 1 80 good.test.",
        r"_s.test 60 SRV 0 1 80 a\027[2J.test.",
        r"_s.test 60 SRV 0 1 80 a\010b.test.",
        r"_s.test 60 SRV 0 1 80 a\.b\@c.test.",
        "_s.test 60 SRV 0 1 80 -a.test.",
        "_s.test 60 SRV 0 1 0 port.test.",
        "_s.test 60 SRV 0 1 80 .",
    ]
    found = of({"SRV": "\n".join(lines)}, "_s.test").open().fetch()
    assert [node.id for node in found.nodes] == ["good.test:80"]
    assert found.complaints["dropped"].startswith("5 records are left out, such as ")
    assert found.complaints["dropped"].isprintable()


WITHOUT = """
import sys
sys.modules["dns"] = None
sys.modules["dns.resolver"] = None
import socket
from loadwise import Balancer
from loadwise.discovery import DnsSource, Watcher
balancer = Balancer([])
with Watcher(balancer, DnsSource("localhost", type="A", port=8080)):
    print([node.id for node in balancer.nodes])
for options in ({}, {"resolver": socket}):
    try:
        DnsSource("_http._tcp.localhost" if not options else "localhost", port=None, **options)
    except (ImportError, TypeError, ValueError) as error:
        print(type(error).__name__, error)
"""


def test_without_dnspython_the_system_is_asked() -> None:
    """For addresses; servers need it, and say so."""
    if not any(each[4][0] == "127.0.0.1" for each in socket.getaddrinfo("localhost", 80)):
        pytest.skip("localhost has no address of IPv4 here")
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.stdout.splitlines()[:2] == [
        "['127.0.0.1:8080']",
        "ImportError SRV records need dnspython: pip install 'loadwise[dns]'",
    ], run.stderr


WRONG: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: DnsSource("a.test"), ValueError, "port is missing: A and AAAA records of 'a.test'"),
    (lambda: DnsSource("a.test", port=0), ValueError, "port is 0; it must be 1 to 65535"),
    (lambda: DnsSource("a.test", port="80"), TypeError, "port is '80'; it must be an int"),  # type: ignore[arg-type]
    (lambda: DnsSource("_a.test", port=80), ValueError, "port is 80, but SRV records have ports"),
    (lambda: DnsSource("a.test", port=80, type="MX"), ValueError, "type is 'MX' (the types are"),
    (lambda: DnsSource("a", port=80, type="AAA"), ValueError, "did you mean 'AAAA'?"),
    (lambda: DnsSource("a", port=80, type=1), TypeError, "type is 1; it must be one of A, AAAA"),  # type: ignore[arg-type]
    (lambda: DnsSource("http://a.test", port=80), ValueError, "without a scheme"),
    (lambda: DnsSource("a.test:80", port=80), ValueError, "the port is given as port="),
    (lambda: DnsSource("a\x1b", port=80), ValueError, "name is 'a\\x1b', which has '\\x1b' at"),
    (lambda: DnsSource(3, port=80), TypeError, "name is 3; it must be a str"),  # type: ignore[arg-type]
    (lambda: DnsSource("a", port=80, resolver=3), TypeError, "resolver is 3; it must have a"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "error", "text"), WRONG)
def test_wrong_arguments_are_refused_at_once(
    make: Callable[[], object], error: type[Exception], text: str
) -> None:
    """With the value and the remedy."""
    with pytest.raises(error) as raised:
        make()
    assert text in str(raised.value)
