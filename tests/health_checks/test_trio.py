"""The async checker under trio: what is other there than in asyncio."""

from __future__ import annotations

import ssl
from typing import Any, cast

import pytest
import trio
import trio.lowlevel
from tests.health_checks.support import TIMEOUT, Server
from trio.testing import wait_all_tasks_blocked

from loadwise import Balancer, ConsecutiveFailurePolicy, HealthStatus, HealthTracker
from loadwise.errors import LoadwiseError
from loadwise.health_checks import AsyncHealthChecker, HttpProbe, TcpProbe


def fragile() -> HealthTracker:
    """A tracker for which one failure is enough, and one success mends it; no live probes."""
    return HealthTracker(ConsecutiveFailurePolicy(1, 1, 3600.0))


async def passes(node: str) -> bool:
    """Pass, except for b."""
    await trio.lowlevel.checkpoint()
    return node != "b"


def test_check_now() -> None:
    """It works without a running checker, again and again, and in another run of trio."""
    checker = AsyncHealthChecker(Balancer(["a", "b"]), passes)

    async def main() -> None:
        with trio.fail_after(TIMEOUT):
            for _ in range(2):
                assert await checker.check_now() == {"a": None, "b": "the probe returned False"}

    trio.run(main)
    trio.run(main)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/early", None),
        ("/status/503", "HTTP 503 Service Unavailable"),
        ("/reset", "ConnectionError: the connection was closed without an answer"),
        ("/babble", "ConnectionError: what answered does not speak HTTP: b'220 mail"),
    ],
)
def test_probes(path: str, expected: str | None) -> None:
    """The verdicts are those in asyncio."""
    with Server() as server:

        async def main() -> str | None:
            with trio.fail_after(TIMEOUT):
                balancer = Balancer([server.address])
                assert await AsyncHealthChecker(balancer, TcpProbe()).check_now() == {
                    server.address: None
                }
                checker = AsyncHealthChecker(balancer, HttpProbe(path))
                return (await checker.check_now())[server.address]

        found = trio.run(main)
    assert found == expected or (expected and str(found).startswith(expected))


def test_tls(certificate: Any) -> None:
    """A certificate is verified, by the context given."""
    context = ssl.create_default_context(cafile=certificate[0])
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(*certificate)

    async def serve(stream: Any) -> None:
        async with stream:
            try:
                await stream.receive_some(1000)
                await stream.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            except trio.BrokenResourceError:
                pass

    async def main() -> list[Any]:
        with trio.fail_after(TIMEOUT):
            async with trio.open_nursery() as nursery:
                listeners = await trio.open_ssl_over_tcp_listeners(0, serving, host="127.0.0.1")
                nursery.start_soon(trio.serve_listeners, serve, listeners)
                port = cast("Any", listeners[0].transport_listener).socket.getsockname()[1]
                balancer = Balancer([f"https://127.0.0.1:{port}"])
                verdicts: list[Any] = []
                for probe in (HttpProbe(ssl_context=context), HttpProbe()):
                    checker = AsyncHealthChecker(balancer, probe, timeout=TIMEOUT)
                    verdicts += (await checker.check_now()).values()
                nursery.cancel_scope.cancel()
        return verdicts

    good, bad = trio.run(main)
    assert good is None
    assert "Error" in bad


def test_a_probe_that_hangs_is_cancelled_and_asked_again() -> None:
    """Its time is over, also where it waits in a nursery of its own; others go on."""
    balancer = Balancer(["a", "b"], health=fragile())
    asked: list[str] = []
    ended: list[str] = []
    enough = trio.Event()

    async def probe(node: str) -> None:
        asked.append(node)
        if asked.count("a") > 2 and asked.count("b") > 2:
            enough.set()
        if node == "a" and asked.count("a") == 1:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep_forever)
                    nursery.start_soon(trio.sleep_forever)
            finally:
                ended.append(node)

    async def main() -> None:
        with trio.fail_after(TIMEOUT):
            async with AsyncHealthChecker(balancer, probe, interval=0.05, timeout=0.05, jitter=0.0):
                await enough.wait()

    trio.run(main)
    assert ended == ["a"]
    assert [each.health for each in balancer.status()] == [HealthStatus.HEALTHY] * 2


def test_it_ends_with_its_run() -> None:
    """The probes under way are cancelled, which says nothing about their nodes."""
    balancer = Balancer(["a", "b"], health=fragile())
    ended: list[str] = []

    async def probe(node: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(node)

    async def main() -> AsyncHealthChecker[str]:
        checker = AsyncHealthChecker(balancer, probe, jitter=0.0)
        checker.start()
        await wait_all_tasks_blocked()
        assert checker.running
        return checker

    checker = trio.run(main)
    assert not checker.running
    assert sorted(ended) == ["a", "b"]
    assert balancer.health is not None
    assert balancer.health.snapshot() == {}


def test_it_is_stopped_where_its_block_is_cancelled() -> None:
    """Whoever waits for verdicts is told; nothing is left."""
    balancer = Balancer(["a"])
    told: list[BaseException] = []

    async def probe(node: str) -> None:
        await trio.sleep_forever()

    async def main() -> None:
        checker = AsyncHealthChecker(balancer, probe)

        async def wait() -> None:
            try:
                await checker.check_now()
            except LoadwiseError as error:
                told.append(error)

        with trio.fail_after(TIMEOUT):
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as scope:
                    async with checker:
                        nursery.start_soon(wait)
                        await wait_all_tasks_blocked()
                        scope.cancel()
                        await trio.sleep_forever()
        assert not checker.running

    trio.run(main)
    assert len(told) == 1


def test_it_needs_an_event_loop() -> None:
    """Which nobody runs here."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        AsyncHealthChecker(Balancer(["a"]), passes).start()
