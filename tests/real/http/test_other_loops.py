"""The asynchronous transports outside asyncio, and by a real HTTP/2 server."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.ports import free_port
from tests.real.http.conversing import ASYNC, SYNC, Client, Scripted, failures

from loadwise import Balancer, RoundRobin

pytestmark = pytest.mark.slow

Start = Callable[..., Scripted]
GET = ("GET", "/")


@pytest.mark.parametrize("client", ASYNC, ids=str)
@pytest.mark.parametrize("given", [False, True], ids=["default", "given"])
def test_trio(
    client: Client,
    scripted: Start,
    given: bool,  # noqa: FBT001 - from pytest
) -> None:
    """Requests wait for connections and nodes, are cancelled and left early, and nothing stays."""
    balancer = Balancer(scripted("plain", 3).nodes, RoundRobin(), max_in_flight=4)
    limits = client.module.Limits(max_connections=2)
    options: dict[str, Any] = (
        {"transport": client.module.AsyncHTTPTransport(limits=limits)}
        if given
        else {"limits": limits}
    )
    came: list[int] = []

    async def main() -> None:
        session, send = client.open(balancer, options | {"deadline": 30.0}, said={"timeout": 30.0})

        async def ask() -> None:
            came.append(await send(*GET))

        async with session:
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(ask)
            if client.library == "httpx2" and not given:
                # The other connections leave generators open by themselves.
                async with (
                    session.stream("POST", "http://service/drip") as response,
                    aclosing(response.aiter_raw()) as pieces,
                ):
                    assert await anext(pieces) == b"x"
            with trio.move_on_after(0.1) as scope:
                await session.get("http://service/slow-head")
            assert scope.cancelled_caught
            await ask()

    trio.run(main)
    gc.collect()  # what was left open warns now
    assert came == [200] * 21
    assert failures(balancer) == [0, 0, 0]
    assert [status.in_flight for status in balancer.status()] == [0, 0, 0]


APPLICATION = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    version = scope["http_version"].encode()
    headers = [(b"content-length", b"%d" % len(version))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": version})
"""


@pytest.fixture
def hypercorns(tmp_path: Path, certificate: tuple[Path, Path]) -> Iterator[list[str]]:
    """Two real HTTP/2 servers, which end a connection after ten requests."""
    (tmp_path / "application.py").write_text(textwrap.dedent(APPLICATION))
    ports = [free_port(), free_port()]
    settings = tmp_path / "settings.toml"
    settings.write_text("keep_alive_max_requests = 10\n")
    command = [sys.executable, "-m", "hypercorn", "--config", str(settings)]
    command += ["--certfile", str(certificate[0]), "--keyfile", str(certificate[1])]
    processes = [
        subprocess.Popen(
            [*command, "--bind", f"127.0.0.1:{port}", "application:app"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for port in ports
    ]
    for process in processes:
        assert process.stdout is not None
        for line in process.stdout:
            if "Running on" in line:
                break
    yield [f"https://127.0.0.1:{port}" for port in ports]
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)  # its workers, too
        process.communicate()


@pytest.mark.parametrize("client", [*SYNC, *ASYNC], ids=str)
def test_a_real_http2_server(
    client: Client, hypercorns: list[str], monkeypatch: pytest.MonkeyPatch, certificate: Any
) -> None:
    """Sixty requests over connections that it ends after ten, and nothing is lost."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    balancer = Balancer(hypercorns, RoundRobin())
    versions: set[str] = set()

    def note(result: Any) -> None:
        if hasattr(result, "http_version"):
            versions.add(result.http_version)

    calls = [GET] * 60
    options = {"http2": True, "classify": note}
    assert client.converse(balancer, calls, options=options) == [200] * 60
    assert versions == {"HTTP/2"}
    assert failures(balancer) == [0, 0]
