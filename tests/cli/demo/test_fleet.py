"""The demo's servers: real processes that start, fail, die, return and leave nothing behind."""

from __future__ import annotations

import http.client
import os

import pytest

from loadwise.cli.demo.fleet import DemoFleet
from loadwise.cli.demo.server import Profile, RestartingServer, ServerError

QUICK = (
    Profile("one", (0.0, 0.0), 0.0, 1, "quick"),
    Profile("two", (0.0, 0.0), 0.0, 1, "quick"),
)


def ask(server: RestartingServer, number: int) -> tuple[int, bytes]:
    """Return the status and the body of a server's answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("GET", f"/requests/{number}")
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def is_alive(pid: int) -> bool:
    """Return whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_servers_are_processes_that_end_with_the_block() -> None:
    """Each server is a process of its own, on a port of its own; after the block none is left."""
    with DemoFleet(1, QUICK) as fleet:
        pids = {server.pid for server in fleet}
        assert len(pids) == len({server.port for server in fleet}) == 2
        assert all(map(is_alive, pids))
        assert ask(fleet["two"], 7) == (200, b'{"server": "two", "request": "7"}')
    assert not any(map(is_alive, pids))


def test_killed_server_keeps_its_account_and_returns_on_its_port() -> None:
    """A server's answers before SIGKILL are known after it; the next process adds to them."""
    with DemoFleet(1, QUICK) as fleet:
        one = fleet["one"]
        ask(one, 1)
        pid, port = one.pid, one.port
        one.kill()
        assert not is_alive(pid)
        assert one.answered == {1}
        with pytest.raises(ConnectionError):
            ask(one, 2)
        one.start()
        assert one.is_ready(20)
        assert one.port == port
        assert one.pid != pid
        assert ask(one, 3)[0] == 200
    assert one.answered == {1, 3}


def test_server_fails_as_often_as_it_should() -> None:
    """A server that should fail half its requests does, and logs which.

    Of 200 fair draws fewer than 60 or more than 140 fail in 1 of 10^8 runs.
    """
    with DemoFleet(1, (Profile("flaky", (0.0, 0.0), 0.5, 1, "fails"),)) as fleet:
        flaky = fleet["flaky"]
        statuses = [ask(flaky, number)[0] for number in range(200)]
    assert 60 <= statuses.count(503) <= 140
    assert set(statuses) == {200, 503}
    assert flaky.refused == statuses.count(503)
    assert flaky.answered == {number for number in range(200) if statuses[number] == 200}


def test_server_that_cannot_start_says_why() -> None:
    """A process that ends before it listens is an error with its output, and leaves none."""
    fleet = DemoFleet(1, QUICK)
    fleet["two"].port = 99_999
    with pytest.raises(ServerError, match=r"'two' ended before it listened; .* 0-65535"):
        fleet.__enter__()
    assert not any(is_alive(server.pid) for server in fleet)
