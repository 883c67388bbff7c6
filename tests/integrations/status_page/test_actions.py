"""Actions of a status page: what is carried out, and all that is refused, by ASGI and WSGI."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from typing import Any

import pytest
from tests.integrations.status_page.asking import WAYS, Ask, form, texts

from loadwise import Balancer, Outcome, OutlierDetection
from loadwise.integrations.status_page import StatusPage

TOKEN = "opensesame-üñ"  # noqa: S105 - of these tests alone
ENCODED = "opensesame-%C3%BC%C3%B1"
SAME = {"origin": "http://page.test"}


@pytest.fixture(params=[*WAYS])
def ask(request: pytest.FixtureRequest) -> Ask:
    """A way to ask a page."""
    return WAYS[request.param]


@pytest.fixture
def balancer() -> Balancer[Hashable]:
    """The second balancer of the page."""
    return Balancer(["a", "b", "c/d&e"], name="search")


@pytest.fixture
def page(balancer: Balancer[Hashable]) -> StatusPage:
    """A page with actions."""
    return StatusPage(Balancer(["other"]), balancer, actions=True, token=TOKEN)


def act(ask: Ask, page: StatusPage, name: str, node: str = "a", **changed: Any) -> Any:
    """Send the form that a button of the page sends, but for what is changed."""
    sent = form(token=TOKEN)
    sent["headers"] |= SAME | changed.pop("headers", {})
    query = changed.pop("query", f"balancer=2&node={node}")
    return ask(page, f"/{name}", **{**sent, "query": query, **changed})


def drained(balancer: Balancer[Hashable]) -> list[Hashable]:
    """Return the ids of the nodes that are drained."""
    return [each.id for each in balancer.status() if each.drained]


def test_a_node_is_drained_and_resumed(
    ask: Ask, page: StatusPage, balancer: Balancer[Hashable]
) -> None:
    """The right form does it, says so, and the page shows it at once."""
    assert "Drain: c/d&e" in texts(ask(page).text).values
    told = act(ask, page, "drain", "c%2Fd%26e")
    assert told.status == 200
    assert drained(balancer) == ["c/d&e"]
    assert "Node 'c/d&e' of balancer 'search' is drained" in "".join(texts(told.text).texts)
    assert "Resume: c/d&e" in texts(ask(page).text).values
    assert act(ask, page, "resume", "c%2Fd%26e").status == 200
    assert drained(balancer) == []


def test_a_cooldown_is_lifted(ask: Ask, page: StatusPage, balancer: Balancer[Hashable]) -> None:
    """And one that is over is no error."""
    balancer.acquire(exclude=["b", "c/d&e"]).rate_limited(60.0)
    assert "Lift: a" in texts(ask(page).text).values
    assert act(ask, page, "lift").status == 200
    assert balancer.status()[0].cooldown is None
    told = act(ask, page, "lift")
    assert told.status == 200
    assert "was neither on a cooldown nor ejected" in told.text


def test_an_ejection_is_lifted(ask: Ask) -> None:
    """By the same button; a node that is down for its failures has none."""
    detection = OutlierDetection(consecutive_failures=1, significance=None, probe=False)
    balancer = Balancer(["a", "b", "c"], outliers=detection)
    page = StatusPage(balancer, actions=True, token=TOKEN)
    balancer.report("a", Outcome.FAILURE)
    for _ in range(5):
        balancer.report("b", Outcome.FAILURE)
    shown = texts(ask(page).text)
    assert [each for each in shown.values if each.startswith("Lift")] == ["Lift: a"]
    assert act(ask, page, "lift", query="balancer=1&node=a").status == 200
    assert not detection.ejections
    assert "Lift: a" not in texts(ask(page).text).values


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://evil.test"},
        {"origin": "http://page.test.evil.test"},
        {"origin": "http://page.test:8080"},
        {"origin": "https://page.test:80"},
        {"origin": "http://evil.test", "host": "page.test, evil.test"},
        {"origin": "page.test"},
        {"origin": "file://page.test"},
        {"origin": "http://page.test:port"},
        {"origin": "http://[page.test"},
        {"origin": "http://page.test, http://page.test"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"content-type": "text/plain"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "application/json"},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["drain", "resume", "lift"])
def test_foreign_forms_are_refused(
    ask: Ask, page: StatusPage, balancer: Balancer[Hashable], name: str, headers: dict[str, str]
) -> None:
    """Whatever the origin says but this page's own, and whatever is no plain form."""
    told = act(ask, page, name, headers=headers)
    assert 400 <= told.status < 500
    assert drained(balancer) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"token=",
        b"token=wrong",
        b"token=opensesame-",
        b"token=opensesame-%C3%BC%C3%B1&token=opensesame-%C3%BC%C3%B1",
        b"token[]=opensesame-%C3%BC%C3%B1",
        b"token=opensesame-%C3%BC%C3%B1" + b"&x=1" * 30,
        b"token=opensesame-%C3%BC%C3%B1&x=" + b"y" * 9000,
        b"token=opensesame-%FC%F1",
        "token=opensesame-üñ".encode(),
        b"\x00\xff",
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)
def test_a_wrong_token_is_refused(
    ask: Ask, page: StatusPage, balancer: Balancer[Hashable], body: bytes
) -> None:
    """As is one that is missing, sent twice, or in a form that cannot be read."""
    told = act(ask, page, "drain", body=body)
    assert 400 <= told.status < 500
    assert drained(balancer) == []


def test_the_token_counts_in_the_form_alone(
    ask: Ask, page: StatusPage, balancer: Balancer[Hashable]
) -> None:
    """Not in the address, which ends up in logs."""
    told = act(
        ask, page, "drain", body=b"", query="balancer=2&node=a&token=opensesame-%C3%BC%C3%B1"
    )
    assert told.status == 403
    assert drained(balancer) == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_refused(
    ask: Ask, page: StatusPage, balancer: Balancer[Hashable], method: str
) -> None:
    """An action is for POST, and nothing else is."""
    assert act(ask, page, "drain", method=method).status == 405
    assert drained(balancer) == []
    assert ask(page, **form(token=TOKEN)).status == 405
    assert ask(page, "/status.json", **form(token=TOKEN)).status == 405


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("balancer=2&node=nobody", 404),
        ("balancer=2", 404),
        ("balancer=3&node=a", 404),
        ("balancer=0&node=a", 404),
        ("balancer=-1&node=a", 404),
        ("balancer=search&node=a", 404),
        ("node=a", 404),
        ("&".join(["balancer=2"] * 40), 400),
        ("balancer=2&node=%ff%fe", 400),
    ],
)
def test_a_node_that_is_not_there(
    ask: Ask, page: StatusPage, balancer: Balancer[Hashable], query: str, status: int
) -> None:
    """Such a form does nothing, and says what is wrong."""
    told = act(ask, page, "drain", query=query)
    assert told.status == status
    assert "Refused:" in told.text
    assert drained(balancer) == []


def test_an_address_without_a_node(ask: Ask, page: StatusPage) -> None:
    """Who put the node into the form is told where it belongs."""
    told = act(ask, page, "drain", query="balancer=2")
    assert "the address names no node" in told.text


def test_ids_that_read_alike(ask: Ask) -> None:
    """Of two nodes whose ids read alike, neither is meant."""
    balancer: Balancer[Hashable] = Balancer([1, "1", (2, "x")])
    page = StatusPage(balancer, actions=True, token=TOKEN)
    assert act(ask, page, "drain", query="balancer=1&node=1").status == 409
    assert act(ask, page, "drain", query="balancer=1&node=%282%2C+%27x%27%29").status == 200
    assert drained(balancer) == [(2, "x")]


@pytest.mark.parametrize("token", [None, TOKEN])
def test_without_actions_there_are_none(ask: Ask, token: str | None) -> None:
    """No button, no field, and every form is refused."""
    balancer = Balancer(["a"])
    page = StatusPage(balancer, token=token)
    told = ask(page).text
    assert "<button form" not in told
    assert 'type="password"' not in told
    assert act(ask, page, "drain", query="balancer=1&node=a").status == 403
    assert not balancer.status()[0].drained


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("page.test", "https://page.test"),
        ("page.test:443", "https://page.test"),
        ("PAGE.test:8080", "http://page.test:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_its_own_origin_in_every_form(ask: Ask, page: StatusPage, host: str, origin: str) -> None:
    """Ports that go without saying may be said, and a proxy may have taken off TLS."""
    assert act(ask, page, "drain", headers={"host": host, "origin": origin}).status == 200


def test_a_program_needs_no_origin(ask: Ask, page: StatusPage) -> None:
    """Only browsers send one; the token is what counts."""
    told = ask(page, "/drain", query="balancer=2&node=a", **form(token=TOKEN))
    assert told.status == 200


def test_the_log_tells_who_did_what(
    ask: Ask, page: StatusPage, caplog: pytest.LogCaptureFixture
) -> None:
    """Of what was done and of what was refused, and never the token."""
    with caplog.at_level(logging.INFO, "loadwise"):
        act(ask, page, "drain")
        act(ask, page, "drain", node="b%1b", body=b"token=wr%1bong")
    done, refused = (record.getMessage() for record in caplog.records)
    assert done == (
        "status page: drain asked by 192.0.2.1: Node 'a' of balancer 'search' is drained: it gets "
        "no new requests."
    )
    assert refused == "status page: drain asked by 192.0.2.1 is refused: the token is wrong"
    assert TOKEN not in caplog.text
