"""The checker in an event loop when all verdicts are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.health_checks.support import TIMEOUT, PushedTime
from tests.health_checks.test_async_checker import Asked, fragile, pushed, settle
from tests.health_checks.test_check_now import STOPPED, health_of

from loadwise import Balancer, HealthStatus, LoadwiseError
from loadwise.health_checks import AsyncHealthChecker

UNHEALTHY, HEALTHY = HealthStatus.UNHEALTHY, HealthStatus.HEALTHY


def asynchronously(main: Callable[[], Awaitable[Any]]) -> Any:
    """Run a coroutine function, for not too long."""

    async def limited() -> Any:
        async with asyncio.timeout(TIMEOUT):
            return await main()

    return asyncio.run(limited())


def test_at_rest_and_running() -> None:
    """As in threads: everybody once, no task at rest, the schedule from there, thresholds on."""

    async def main() -> None:
        probe, time = Asked(), PushedTime()
        balancer = Balancer(["a", "b"], health=fragile())
        checker = pushed(balancer, probe, time, interval=5.0, unhealthy_threshold=2)
        probe.verdicts = {"b": False}
        for status in (HEALTHY, UNHEALTHY):
            verdicts = await checker.check_now()
            assert verdicts == {"a": None, "b": "the probe returned False"}
            assert await probe.next(2) == ["a", "b"]
            assert health_of(balancer).status("b") is status
            assert not checker.running
            await settle()
            assert asyncio.all_tasks() == {asyncio.current_task()}
        time.push(2.0)
        async with checker:
            assert checker.running
            await settle()
            assert probe.nodes.empty()
            time.push(3.0)
            assert await probe.next(2) == ["a", "b"]
            time.push(1.0)
            await checker.check_now()
            assert await probe.next(2) == ["a", "b"]
            time.push(4.5)
            await settle()
            assert probe.nodes.empty()
            time.push(0.5)
            assert await probe.next(2) == ["a", "b"]

    asynchronously(main)


def test_calls_share_their_checks_and_take_no_old_verdict() -> None:
    """A probe under way is not doubled; a hang is the verdict, at the timeout."""

    async def main() -> None:
        probe, time = Asked(), PushedTime()
        probe.hanging = {"a"}
        async with pushed(Balancer(["a", "b"]), probe, time, timeout=1.0) as checker:
            assert await probe.next(2) == ["a", "b"]
            calls = [asyncio.create_task(checker.check_now()) for _ in range(3)]
            await settle()
            assert await probe.next(1) == ["b"]
            time.push(1.0)
            for verdicts in await asyncio.gather(*calls):
                assert verdicts == {"a": "no answer within 1 s", "b": None}
            assert probe.nodes.empty()

    asynchronously(main)


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("early", [False, True])
def test_stopping_tells_who_waits(*, running: bool, early: bool) -> None:
    """At once, be it before the checker's task has begun; and it can be called again."""

    async def main() -> None:
        probe = Asked()
        probe.hanging = {"a"}
        checker = pushed(Balancer(["a"]), probe, PushedTime(), timeout=3600.0)
        if running:
            checker.start()
        waiting = asyncio.create_task(checker.check_now())
        await asyncio.sleep(0)
        if not early:
            await settle()
        await checker.stop()
        with pytest.raises(LoadwiseError, match=STOPPED):
            await waiting
        assert asyncio.all_tasks() == {asyncio.current_task()}
        probe.hanging.clear()
        assert await checker.check_now() == {"a": None}

    asynchronously(main)


def test_cancelling_who_waits_leaves_the_checks_to_go_on() -> None:
    """So asyncio.timeout limits the waiting, and another who waits is not concerned."""

    async def main() -> None:
        probe, time = Asked(), PushedTime()
        probe.hanging = {"a"}
        balancer = Balancer(["a"], health=fragile())
        checker = pushed(balancer, probe, time, timeout=1.0)
        first, second = (asyncio.create_task(checker.check_now()) for _ in range(2))
        assert await probe.next(1) == ["a"]
        first.cancel()
        await settle()
        assert first.cancelled()
        time.push(1.0)
        assert await second == {"a": "no answer within 1 s"}
        assert health_of(balancer).status("a") is UNHEALTHY

    asynchronously(main)


def test_another_loop_is_refused_while_it_runs() -> None:
    """To wait for another loop's event would be to wait for ever; the message says what to do."""

    async def main() -> AsyncHealthChecker[str]:
        probe = Asked()
        async with pushed(Balancer(["a"]), probe, PushedTime()) as checker:
            with ThreadPoolExecutor(1) as pool:
                elsewhere = pool.submit(lambda: asyncio.run(checker.check_now()))
                with pytest.raises(RuntimeError, match=r"runs in another event loop.*threadsafe"):
                    elsewhere.result(TIMEOUT)
            loop = asyncio.get_running_loop()
            safe = asyncio.to_thread(
                lambda: asyncio.run_coroutine_threadsafe(checker.check_now(), loop).result(TIMEOUT)
            )
            assert await safe == {"a": None}
        return checker

    checker = asynchronously(main)
    assert asyncio.run(checker.check_now()) == {"a": None}
    assert asyncio.run(checker.check_now()) == {"a": None}
