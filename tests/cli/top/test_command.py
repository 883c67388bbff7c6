"""The command ``top`` as its users run it: against a page, against none, and in a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from tests.ports import free_port
from typer.testing import CliRunner, Result

from loadwise import Balancer, ConsecutiveFailurePolicy, HealthTracker
from loadwise.cli.app import app
from loadwise.cli.top.fetching import address_of
from loadwise.integrations.status_page import StatusPage
from loadwise.testing import ManualClock

ATTACK = "\x1b[2J\x1b]0;title\x07\u202e\r\n[bold]x[/bold]\x9b"
PATIENCE = 60.0

Respond = Callable[[str], tuple[int, bytes]]


@contextmanager
def serving(respond: Respond) -> Iterator[str]:
    """Serve what a function of the path returns; the block gets host and port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = respond(self.path)
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def page_of(*balancers: Balancer[Any], mount: str = "") -> Respond:
    """Return what a status page of these answers, below a path."""
    page = StatusPage(*balancers)

    def respond(path: str) -> tuple[int, bytes]:
        if path != f"{mount}/status.json":
            return 404, b"nothing here"
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/status.json"}
        return 200, b"".join(page.wsgi(environ, lambda *_: print))

    return respond


def fleet(names: str = "{}") -> Balancer[str]:
    """Return a balancer with a node that is down, one on cooldown and one that is drained."""
    clock = ManualClock()
    health = HealthTracker(ConsecutiveFailurePolicy(1), clock=clock)
    ids = [names.format(each) for each in ("api-1", "api-2", "api-3", "api-4")]
    balancer = Balancer(ids, health=health, clock=clock, name=names.format("search"))
    balancer.acquire(exclude=ids[1:]).rate_limited(60.0, reason=names.format("told so"))
    balancer.drain(ids[1])
    for _ in range(3):
        balancer.acquire(exclude=ids[2:3]).success()
    clock.advance(5.0)
    health.report_failure(ids[2], names.format("refused"))
    return balancer


def top(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["top", *arguments], env={"COLUMNS": "100"})


def test_problems_come_first_and_say_why() -> None:
    """Each with its reason below it; without a terminal it is shown once."""
    with serving(page_of(fleet(), mount="/ops/status")) as host:
        for address in (
            f"{host}/ops/status",
            f"http://{host}/ops/status/",
            f"{host}/ops/status/status.json",
        ):
            done = top(address)
            assert done.exit_code == 0, done.output
    lines = [line.rstrip() for line in done.output.splitlines()]
    assert lines[0].startswith(f"http://{host}/ops/status/status.json  process {os.getpid()} on ")
    assert lines[1] == "1 down and 1 in trouble of 4 nodes."
    assert lines[3].startswith("search  PowerOfTwoChoices   2 of 3 available")
    begun = [
        "down 0 s api-3 ",
        "1 failure, the last: refused; probe in 10 s",
        "cooldown api-1 ",
        "told so, retry after 60 s; back in 55 s",
        "drained api-2 ",
        "gets no new requests",
        "up 5 s api-4 ",
    ]
    for line, begin in zip(lines[5:], begun, strict=True):
        assert " ".join(line.split()).startswith(begin)


def test_json_is_what_the_page_told() -> None:
    """All of it, for a program."""
    respond = page_of(fleet())
    with serving(respond) as host:
        done = top(host, "--json", "--once")
    assert done.exit_code == 0
    assert (
        json.loads(done.output)["balancers"] == json.loads(respond("/status.json")[1])["balancers"]
    )


@pytest.mark.parametrize("option", ["--once", "--json"])
def test_names_do_nothing_to_a_terminal(option: str) -> None:
    """Nor does markup of rich's count, whatever the field."""
    with serving(page_of(fleet(f"{{}}{ATTACK}"))) as host:
        done = top(host, option)
    assert done.exit_code == 0
    seen = {each for each in done.output if unicodedata.category(each) in ("Cc", "Cf", "Zl")}
    assert seen <= {"\n"}
    assert "[bold]" in done.output


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, b"", "answers 404; give the path at which the page is mounted"),
        (401, b"", "answers 401; it wants to know who you are"),
        (500, b"", "answers 500\n"),
        (200, b"<!doctype html>", "is no status page: the answer is no JSON"),
        (200, b"", "is no status page: the answer is no JSON"),
        (200, b"\xff\xfe", "is no status page: the answer is no JSON"),
        (200, b"[" * 100_000, "is no status page: the answer is no JSON"),
        (200, b'{"pid": NaN}', "is no status page: the answer is no JSON: it has NaN"),
        (200, b"[]", "is no status page: the answer is []; it must be an object"),
        (200, b'{"status": "ok"}', "is no status page: the answer has no pid"),
        (200, b'{"pid": "\\u001b[2J"}', r"the answer.pid is '\x1b[2J'; it must be a number"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_status_page(status: int, body: bytes, message: str) -> None:
    """Each ends with exit code 1 and a line that says what is wrong."""
    with serving(lambda _: (status, body)) as host:
        done = top(host)
    assert done.exit_code == 1
    assert message in done.output.replace("\x1b", "RAW")
    assert done.output.startswith(f"http://{host}/status.json ")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("balancers",), None, "the answer.balancers is null; it must be a list"),
        (("balancers", 0), 5, "the answer.balancers[0] is 5; it must be an object"),
        (("balancers", 0, "waiting"), True, "balancers[0].waiting is True; it must be a number"),
        (("balancers", 0, "nodes", 1, "id"), [], "nodes[1].id is []; it must be a text"),
        (
            ("balancers", 0, "nodes", 1, "latency"),
            "x",
            "nodes[1].latency is 'x'; it must be",
        ),
        (("balancers", 0, "nodes", 1, "picks"), 10**400, "picks is 1000"),
        (("balancers", 0, "panic"), "yes", "panic is 'yes'; it must be an object"),
    ],
    ids=lambda value: str(value)[-30:],
)
def test_a_page_of_another_shape(path: tuple[Any, ...], value: Any, message: str) -> None:
    """The error names the place, the value, and what it must be."""
    told = json.loads(page_of(fleet())("/status.json")[1])
    at = told
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    with serving(lambda _: (200, json.dumps(told).encode())) as host:
        done = top(host)
    assert done.exit_code == 1
    assert message in done.output


def test_nobody_answers() -> None:
    """A refused connection is told as one, and no password with it."""
    done = top(f"http://user:secret@127.0.0.1:{free_port()}")
    assert done.exit_code == 1
    assert "does not answer" in done.output
    assert "refused" in done.output
    assert "look whether the program runs" in done.output
    assert "secret" not in done.output


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("ftp://localhost", "it must be http or https"),
        ("http://", "has no host"),
        ("http://[::", "is no address"),
        ("localhost:99999", "is no address"),
        ("local host:80", "has no host"),
        ("", "has no host"),
    ],
)
def test_wrong_addresses(address: str, why: str) -> None:
    """Are refused before anything is asked, with exit code 2."""
    with pytest.raises(ValueError, match=why):
        address_of(address)
    assert top(address).exit_code == 2


def test_in_a_terminal_it_is_live_until_ctrl_c() -> None:
    """It follows the page, tells when there is none any more, and leaves the screen as it was."""
    balancer = fleet()
    respond = page_of(balancer)
    away: list[None] = []
    with serving(lambda path: (503, b"") if away else respond(path)) as host:
        parent, child = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "loadwise", "top", host],
            stdin=child,
            stdout=child,
            stderr=child,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "24"},
        )
        os.close(child)
        try:
            seen = read_until(parent, "1 failure, the last: refused")
            assert "\x1b[?1049h" in seen, "it has a screen of its own"
            balancer.drain("api-4")
            read_until(parent, "1 of 2 available")
            away.append(None)
            read_until(parent, "answers 503; trying again")
            away.clear()
            process.send_signal(signal.SIGINT)
            rest = read_until(parent, "\x1b[?1049l")
            assert "Traceback" not in rest
            assert process.wait(PATIENCE) == 130
        finally:
            process.kill()
            process.wait()
            os.close(parent)


def read_until(terminal: int, text: str) -> str:
    """Return what a terminal shows until a text comes."""
    seen, end = "", time.monotonic() + PATIENCE
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"{text!r} never came; there was:\n{seen}"
        seen += os.read(terminal, 65_536).decode(errors="replace")
    return seen
