"""Status page behind real servers: uvicorn, gunicorn, and its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread, active_count

import httpx2
import pytest
from tests.integrations.status_page.served import TOKEN
from tests.ports import free_port

from loadwise import Balancer
from loadwise.integrations._status_page.server import MOST_CONNECTIONS, PageServer
from loadwise.integrations._status_page.site import STREAM_SECONDS
from loadwise.integrations.status_page import StatusPage

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
SERVED = "tests.integrations.status_page.served"
PATIENCE = 60.0


@contextmanager
def running(*command: str, port: int, host: str = "127.0.0.1") -> Iterator[subprocess.Popen[str]]:
    """Run a server until the block ends; it listens when the block begins."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    server = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection((host, port), timeout=1).close()
            except OSError:
                if server.poll() is not None or time.monotonic() > end:
                    server.kill()
                    pytest.fail(server.communicate()[0])
                time.sleep(0.05)
            else:
                break
        yield server
    finally:
        # Not by SIGKILL, after which workers of gunicorn live on for a while.
        server.terminate()
        try:
            server.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            server.kill()
            server.communicate()


@pytest.fixture(scope="module", params=["uvicorn", "gunicorn", "alone"])
def base(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of the page on one of the servers."""
    port = free_port()
    bound = f"127.0.0.1:{port}"
    commands = {
        "uvicorn": ("-m", "uvicorn", "--port", str(port), f"{SERVED}_asgi:app"),
        "gunicorn": ("-m", "gunicorn", "--bind", bound, "--preload", f"{SERVED}:wsgi"),
        "alone": ("-m", SERVED, str(port), "127.0.0.1"),
    }
    with running(*commands[request.param], port=port):
        below = "" if request.param == "alone" else "/ops/status"
        yield f"http://{bound}{below}"


def events(client: httpx2.Client, base: str, most: int) -> Generator[str, None, None]:
    """Yield events as a browser gets them, which asks again where a stream ends."""
    seen = 0
    while True:
        with client.stream("GET", f"{base}/events") as stream:
            assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    seen += 1
                    yield line[6:]
                    if seen == most:
                        return


def test_the_page_its_json_and_an_action(base: str) -> None:
    """All that it has is found where it is mounted."""
    with httpx2.Client(timeout=PATIENCE) as client:
        moved = client.get(base, follow_redirects=True)
        assert bool(moved.history) is base.endswith("/ops/status")
        assert "fleet" in moved.text
        told = client.get(f"{base}/status.json").json()
        assert [node["id"] for node in told["balancers"][0]["nodes"]] == ["steady", "doomed"]
        host = base.split("/")[2]
        for name, origin, status in (
            ("drain", "http://elsewhere.test", 403),
            ("drain", f"http://{host}", 200),
            ("resume", f"http://{host}", 200),
        ):
            done = client.post(
                f"{base}/{name}?balancer=1&node=steady",
                data={"token": TOKEN},
                headers={"origin": origin},
            )
            assert done.status_code == status
        assert client.get(f"{base}/drain").status_code == 405


def test_events_follow_what_happens(base: str) -> None:
    """What an action or a kill changes is in one of the next two events."""
    drain = f"{base}/drain?balancer=1&node=doomed"
    with httpx2.Client(timeout=PATIENCE) as client:
        stream = events(client, base, most=4)
        assert "gets no new requests" not in next(stream)
        client.post(drain, data={"token": TOKEN})
        assert any("gets no new requests" in next(stream) for _ in range(2))
        stream.close()
        client.post(drain.replace("drain", "resume"), data={"token": TOKEN})
        parts = base.split("/")
        outside = "/".join(parts[:3])
        if client.get(f"{outside}/mend").status_code != 200:
            return  # this program is not changed from outside
        stream = events(client, base, most=4)
        assert "killed" not in next(stream)
        client.get(f"{outside}/kill")
        assert any("killed" in next(stream) for _ in range(2))
        stream.close()
        client.get(f"{outside}/mend")


def test_a_viewer_keeps_no_worker(base: str) -> None:
    """While several watch, the server answers others; gunicorn has one worker here."""
    with httpx2.Client(timeout=PATIENCE) as client:
        watched = [events(client, base, most=2) for _ in range(3)]
        for each in watched:
            next(each)
        assert client.get(f"{base}/status.json").status_code == 200
        for each in watched:
            next(each)
            each.close()


def test_uvicorn_ends_though_somebody_watches() -> None:
    """It waits for streams; so they end as soon as it is told to stop, and not in their time."""
    port = free_port()
    with (
        running("-m", "uvicorn", "--port", str(port), f"{SERVED}_asgi:app", port=port) as server,
        httpx2.Client(timeout=PATIENCE) as client,
        client.stream("GET", f"http://127.0.0.1:{port}/ops/status/events") as stream,
    ):
        lines = stream.iter_lines()
        while not next(lines).startswith("data: "):
            pass
        server.send_signal(signal.SIGTERM)
        after = sum(line.startswith("data: ") for line in lines)
        said, _ = server.communicate(timeout=PATIENCE)
    assert after < STREAM_SECONDS / 2
    assert "Finished server process" in said
    assert "Traceback" not in said


def test_connections_are_limited() -> None:
    """Whoever opens a thousand takes no thousand threads and files from the program."""
    server = PageServer("127.0.0.1", 0)
    server.set_app(StatusPage(Balancer(["a"])).wsgi)
    address = ("127.0.0.1", server.server_port)
    with server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        before = active_count()
        silent = [socket.create_connection(address, timeout=PATIENCE) for _ in range(1000)]
        refused = [each for each in silent[MOST_CONNECTIONS:] if each.recv(99)]
        assert len(refused) == 1000 - MOST_CONNECTIONS
        assert active_count() - before <= MOST_CONNECTIONS
        assert httpx2.get(f"http://127.0.0.1:{address[1]}/status.json").status_code == 503
        for each in silent:
            each.close()
        end = time.monotonic() + PATIENCE
        while active_count() > before and time.monotonic() < end:
            time.sleep(0.01)
        assert httpx2.get(f"http://127.0.0.1:{address[1]}/status.json").status_code == 200
        server.shutdown()
        thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_does_not_listen() -> None:
    """The port is free when the parent has closed it, whoever lives on."""
    server = PageServer("127.0.0.1", 0)
    address = ("127.0.0.1", server.server_port)
    mine, its = socket.socketpair()
    child = os.fork()
    if not child:
        mine.close()
        its.send(b"lives")
        its.recv(1)  # until the parent has closed its end
        os._exit(0)
    its.close()
    assert mine.recv(5) == b"lives"
    server.server_close()
    try:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=PATIENCE)
    finally:
        mine.close()
        os.waitpid(child, 0)


def test_ctrl_c_ends_its_own_server() -> None:
    """The port is free again, nothing is complained of, and the program goes on."""
    port = free_port()
    with (
        running("-m", SERVED, str(port), "127.0.0.1", port=port) as server,
        httpx2.Client(timeout=PATIENCE) as client,
        client.stream("GET", f"http://127.0.0.1:{port}/events") as stream,
    ):
        assert next(stream.iter_lines()).startswith("retry")
        server.send_signal(signal.SIGINT)
        said, _ = server.communicate(timeout=PATIENCE)
    assert (server.returncode, said) == (0, "closed\n")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_it_listens_by_ipv6_too() -> None:
    """Where there is IPv6."""
    try:
        server = PageServer("::1", 0)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    server.set_app(StatusPage(Balancer(["a"])).wsgi)
    with server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        told = httpx2.get(f"http://[::1]:{server.server_port}/status.json").json()
        server.shutdown()
        thread.join()
    assert told["balancers"][0]["nodes"][0]["id"] == "a"


def test_a_taken_port_is_an_error() -> None:
    """At once."""
    page = StatusPage(Balancer(["a"]))
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(OSError, match=r"on 127.0.0.1 port \d+: Address already in use"),
    ):
        page.serve(taken.getsockname()[1])
