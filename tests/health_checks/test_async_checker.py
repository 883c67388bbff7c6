"""The checker that runs in an event loop."""

from __future__ import annotations

import asyncio
import functools
import os
from typing import Any

import pytest
from tests.health_checks.support import TIMEOUT, PushedTime
from tests.health_checks.test_thread_checker import run_script

from loadwise import Balancer, ConsecutiveFailurePolicy, HealthStatus, HealthTracker
from loadwise.health_checks import AsyncHealthChecker, AsyncNodeProbe

UNHEALTHY, HEALTHY = HealthStatus.UNHEALTHY, HealthStatus.HEALTHY


class Asked:
    """A coroutine function, as an object, that writes down what happens to it."""

    def __init__(self) -> None:
        self.nodes: asyncio.Queue[str] = asyncio.Queue()
        self.cancelled: asyncio.Queue[str] = asyncio.Queue()
        self.hanging: set[str] = set()
        self.stubborn: set[str] = set()
        self.verdicts: dict[str, bool | BaseException | None] = {}

    async def __call__(self, node: str) -> bool | None:
        self.nodes.put_nowait(node)
        if node in self.hanging:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.put_nowait(node)
                if node not in self.stubborn:
                    raise
        verdict = self.verdicts.get(node)
        if isinstance(verdict, BaseException):
            raise verdict
        return verdict

    async def next(self, count: int) -> list[str]:
        """The next nodes that are asked about, sorted."""
        async with asyncio.timeout(TIMEOUT):
            return sorted([await self.nodes.get() for _ in range(count)])


def fragile() -> HealthTracker:
    """A tracker for which one failure is enough, and one success mends it; no live probes."""
    return HealthTracker(ConsecutiveFailurePolicy(1, 1, 3600.0))


def pushed(
    balancer: Balancer[str], probe: AsyncNodeProbe[str], time: PushedTime, **options: Any
) -> AsyncHealthChecker[str]:
    """A checker without jitter whose time only goes on when it is pushed."""
    return AsyncHealthChecker(
        balancer, probe, clock=time, wait=time.async_wait, jitter=0.0, **options
    )


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        (False, "the probe returned False"),
        (OSError("no route"), "OSError: no route"),
        (asyncio.CancelledError(), "CancelledError"),
    ],
    ids=repr,
)
def test_verdicts_are_reported(verdict: Any, reason: str) -> None:
    """As by the thread checker; a probe that cancels itself has failed, too."""

    async def main() -> None:
        probe, balancer = Asked(), Balancer(["a", "b"], health=fragile())
        probe.verdicts = {"a": verdict, "b": True}
        async with pushed(balancer, probe, PushedTime()):
            assert await probe.next(2) == ["a", "b"]
            await settle()
        bad, good = balancer.status()
        assert bad.health_reason == f"1 failure, the last: active check: {reason}"
        assert (bad.health, good.health, bad.picks) == (UNHEALTHY, HEALTHY, 0)

    asyncio.run(main())


@pytest.mark.parametrize("stubborn", [False, True], ids=["yields", "swallows"])
def test_a_hanging_probe_is_cancelled_at_the_timeout(*, stubborn: bool) -> None:
    """It is one failure, even if the probe swallows the cancellation and returns a pass.

    Others are not held up, and the node is asked again when it is due.
    """

    async def main() -> None:
        time, probe, balancer = PushedTime(), Asked(), Balancer(["a", "b"], health=fragile())
        probe.hanging = {"a"}
        probe.stubborn = {"a"} if stubborn else set()
        async with pushed(balancer, probe, time, interval=5.0, timeout=1.0):
            assert await probe.next(2) == ["a", "b"]
            await settle()
            time.push(1.0)
            async with asyncio.timeout(TIMEOUT):
                assert await probe.cancelled.get() == "a"
            await settle()
            reason = balancer.status()[0].health_reason
            assert reason == "1 failure, the last: active check: no answer within 1 s"
            probe.hanging.clear()
            time.push(4.0)
            assert await probe.next(1) == ["b"]
            time.push(1.0)
            assert await probe.next(1) == ["a"]
            await settle()
            assert balancer.status()[0].health is HEALTHY

    asyncio.run(main())


def test_it_ends_with_its_loop_and_reports_no_cancellation() -> None:
    """A loop that shuts down cancels the probes, which says nothing about the nodes."""
    probes: list[Asked] = []
    balancer = Balancer(["a", "b"], health=fragile())

    async def main() -> AsyncHealthChecker[str]:
        probes.append(Asked())
        probes[0].hanging = {"a", "b"}
        checker = pushed(balancer, probes[0], PushedTime())
        checker.start()
        assert await probes[0].next(2) == ["a", "b"]
        assert checker.running
        return checker

    checker = asyncio.run(main())
    assert probes[0].cancelled.qsize() == 2
    assert not checker.running
    assert repr(checker) == "<AsyncHealthChecker of balancer 'default': stopped>"
    assert balancer.health is not None
    assert balancer.health.snapshot() == {}


def test_it_ends_with_a_loop_that_is_closed_as_it_is_and_starts_in_another() -> None:
    """A loop that is closed without cancelling its tasks leaves them, but they run no more."""

    async def main() -> AsyncHealthChecker[str]:
        probe = Asked()
        checker = pushed(Balancer(["a"]), probe, PushedTime())
        checker.start()
        assert await probe.next(1) == ["a"]
        return checker

    async def again(checker: AsyncHealthChecker[str]) -> None:
        assert not checker.running
        await checker.stop()
        checker.start()
        assert checker.running
        await checker.stop()
        assert not checker.running

    loop = asyncio.new_event_loop()
    checker = loop.run_until_complete(main())
    loop.close()
    asyncio.run(again(checker))


def test_stop_ends_the_probes_and_it_can_start_again() -> None:
    """After stop no task is left and nothing is reported; twice the same changes nothing."""

    async def main() -> None:
        probe, balancer = Asked(), Balancer(["a"], health=fragile())
        probe.hanging, probe.verdicts = {"a"}, {"a": False}
        probe.stubborn = {"a"}
        checker = pushed(balancer, probe, PushedTime())
        await checker.stop()
        for _ in range(2):
            checker.start()
            checker.start()
            assert await probe.next(1) == ["a"]
            await checker.stop()
            await checker.stop()
            assert probe.cancelled.get_nowait() == "a"
            assert asyncio.all_tasks() == {asyncio.current_task()}
        assert probe.nodes.empty()
        assert balancer.status()[0].health_reason is None

    asyncio.run(main())


FORK = """
import asyncio, os
from loadwise import Balancer
from loadwise.health_checks import AsyncHealthChecker

async def probe(node):
    await asyncio.sleep(0.001)

async def main():
    checker = AsyncHealthChecker(Balancer(["a"]), probe, interval=0.01)
    async with checker:
        await asyncio.sleep(0.01)
        child = os.fork()
        if child == 0:
            ok = not checker.running
            async def again():
                async with checker:
                    return checker.running
            ok = ok and asyncio.run(again())
            os._exit(0 if ok and not checker.running else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert checker.running

asyncio.run(main())
print("end")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_in_a_forked_child_it_is_stopped_and_can_be_started() -> None:
    """An event loop does not survive a fork; the parent's goes on."""
    assert run_script(FORK) == "end\n"


def plain(node: str) -> bool:
    """Pass."""
    return True


@pytest.mark.parametrize("probe", [plain, functools.partial(plain), "http://a/healthz"])
def test_a_probe_must_be_a_coroutine_function(probe: Any) -> None:
    """A plain function would block the event loop, so it is refused at once."""
    with pytest.raises(TypeError, match="it must be a coroutine function of a node"):
        AsyncHealthChecker(Balancer(["a"]), probe)


def test_starting_needs_an_event_loop() -> None:
    """Outside of one it is an error, not a checker that never runs."""

    async def probe(node: str) -> None:
        pass

    with pytest.raises(RuntimeError, match="no running event loop"):
        AsyncHealthChecker(Balancer(["a"]), probe).start()
