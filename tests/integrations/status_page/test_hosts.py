"""Names by which a page that serves itself may be asked for: DNS rebinding reads nothing."""

from __future__ import annotations

import errno
import http.client
import re
import socket
import time
from threading import Thread
from typing import Any

import pytest
from tests.ports import free_port

from loadwise import Balancer
from loadwise.integrations._status_page.hosts import NamedHosts, is_loopback
from loadwise.integrations.status_page import StatusPage

PATIENCE = 30.0


def asked(app: Any, host: str | None, method: str = "GET") -> tuple[str, bytes]:
    """Ask an application by a name."""
    told: list[str] = []

    def start(status: str, _: object) -> None:
        told.append(status)

    environ = {"REQUEST_METHOD": method, "PATH_INFO": "/status.json"}
    if host is not None:
        environ["HTTP_HOST"] = host
    body = b"".join(app(environ, start))
    return told[0][:3], body


@pytest.fixture(scope="module")
def page() -> StatusPage:
    """A page with one balancer."""
    return StatusPage(Balancer(["a"], name="search"))


@pytest.fixture(scope="module")
def port(page: StatusPage) -> int:
    """The port of a page that serves itself, by default and with one more name."""
    port = free_port()
    options: dict[str, Any] = {"allowed_hosts": ["Ops.Test"]}
    Thread(target=page.serve, args=(port,), kwargs=options, daemon=True).start()
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            continue
        break
    return port


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("rebound.example:8321", 403),
        ("localhost.example", 403),
        ("ops.test:8321", 200),
        ("127.0.0.1", 200),
    ],
)
def test_served_page_is_read_by_its_names_alone(port: int, host: str, status: int) -> None:
    """A served page refuses a foreign name, and says how to allow it."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        client.request("GET", "/status.json", headers={"host": host})
        answer = client.getresponse()
        text = answer.read().decode()
    finally:
        client.close()
    assert answer.status == status
    assert ("search" in text) == (status == 200)
    if status == 403:
        name = host.partition(":")[0]
        assert repr(host) in text
        assert f"allowed_hosts=[{name!r}]" in text


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:1", "localhost.", "a.localhost:8", "[::1]:8", "10.0.0.1:8", None],
)
def test_names_that_no_foreign_site_has_are_allowed(page: StatusPage, host: str | None) -> None:
    """Addresses and localhost are nobody else's."""
    assert asked(NamedHosts(page.wsgi, ()), host)[0] == "200"


@pytest.mark.parametrize(
    "host", ["", "evil.test", "127.0.0.1.evil.test", "evil.test,localhost", "[", "x@localhost"]
)
def test_other_names_are_refused(page: StatusPage, host: str) -> None:
    """Whatever else is asked for reads nothing."""
    status, body = asked(NamedHosts(page.wsgi, ("ops.test",)), host)
    assert status == "403"
    assert b"search" not in body
    assert asked(NamedHosts(page.wsgi, ()), host, "HEAD") == ("403", b"")


def test_mounted_page_leaves_names_to_its_application(page: StatusPage) -> None:
    """A mounted page answers by any name."""
    assert asked(page.wsgi, "ops.test")[0] == "200"


def test_loopback_is_this_machine_alone() -> None:
    """All addresses together are not this machine alone."""
    assert is_loopback("127.0.0.5")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")  # noqa: S104 - nothing listens there


@pytest.mark.parametrize(
    ("given", "kind", "told"),
    [
        ("ops.test", TypeError, "allowed_hosts is 'ops.test'; it must be a list of names"),
        (7, TypeError, "allowed_hosts is 7; it must be a list of names"),
        ([7], TypeError, "allowed_hosts has 7; each must be a str"),
        ([""], ValueError, "allowed_hosts has ''; give a name alone"),
        (["http://ops.test"], ValueError, "has 'http://ops.test'; give a name alone"),
        (["ops.test:80"], ValueError, "has 'ops.test:80'; give a name alone"),
        (["*.ops.test"], ValueError, "give a name alone, without scheme, port, path or *"),
    ],
)
def test_wrong_names_are_refused_with_a_remedy(
    page: StatusPage, given: Any, kind: type[Exception], told: str
) -> None:
    """Names that no request can have are refused."""
    with pytest.raises(kind, match=re.escape(told)):
        page.serve(0, allowed_hosts=given)


def test_port_that_is_taken_is_told_with_a_remedy(page: StatusPage) -> None:
    """An error tells the port, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port}: .*; stop what listens there") as caught:
            page.serve(port)
    assert caught.value.errno == errno.EADDRINUSE


def test_address_of_another_machine_is_told_with_a_remedy(page: StatusPage) -> None:
    """An error tells which addresses there are."""
    with pytest.raises(OSError, match="host must be an address of this machine"):
        page.serve(0, host="192.0.2.1")
