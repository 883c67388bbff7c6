"""Both checkers with a balancer in front of real servers, of which some hang and some die."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from typing import Any

import pytest
from tests.health_checks.support import KINDS, TIMEOUT, Server, Watch, checking

from loadwise import Balancer, ConsecutiveFailurePolicy, HealthStatus, HealthTracker
from loadwise.health_checks import HttpProbe

UNHEALTHY, HEALTHY = HealthStatus.UNHEALTHY, HealthStatus.HEALTHY
QUICK: dict[str, Any] = {"interval": 0.05, "timeout": 1.0, "unhealthy_interval": 0.02}


def until_reason(balancer: Balancer[str], node: str, text: str) -> None:
    """Wait until the reason for a node's state has this text in it."""
    end = time.monotonic() + TIMEOUT
    while True:
        (reason,) = (each.health_reason for each in balancer.status() if each.id == node)
        if text in str(reason):
            return
        assert time.monotonic() < end, reason
        time.sleep(0.002)


@pytest.mark.parametrize("kind", KINDS)
def test_servers_that_hang_and_die_and_come_back(kind: str) -> None:
    """SIGSTOP shows as a timeout, SIGKILL as a refusal, and both nodes are avoided.

    After SIGCONT and a restart on the same port they recover, all without a request to them.
    """
    with ExitStack() as stack:
        healthy, hanging, dead = (stack.enter_context(Server()) for _ in range(3))
        tracker = HealthTracker(ConsecutiveFailurePolicy(2, 2, probe_interval=3600.0))
        balancer = Balancer([each.address for each in (healthy, hanging, dead)], health=tracker)
        watch = Watch(tracker)
        stack.enter_context(checking(kind, balancer, HttpProbe(), **QUICK))

        hanging.send(signal.SIGSTOP)
        dead.kill()
        watch.until(hanging.address, UNHEALTHY)
        watch.until(dead.address, UNHEALTHY)
        # The first failure may be of a check that was under way, or a second one for the same.
        until_reason(balancer, hanging.address, "active check: no answer within 1 s")
        until_reason(balancer, dead.address, "active check: ConnectionRefusedError")
        watch.until(healthy.address, HEALTHY)
        assert {balancer.pick() for _ in range(50)} == {healthy.address}

        hanging.send(signal.SIGCONT)
        dead.start()
        watch.until(hanging.address, HEALTHY)
        watch.until(dead.address, HEALTHY)
        watch.until(healthy.address, HEALTHY)
        assert [each.picks for each in balancer.status()] == [50, 0, 0]
        assert len({balancer.pick() for _ in range(200)}) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_checks_follow_a_changing_fleet_of_real_servers(kind: str) -> None:
    """A server that is added dead is found so; when it leaves, nothing is remembered of it."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(Server()) for _ in range(2))
        tracker = HealthTracker(ConsecutiveFailurePolicy(1, 1, probe_interval=3600.0))
        balancer = Balancer([first.address], health=tracker)
        watch = Watch(tracker)
        stack.enter_context(checking(kind, balancer, HttpProbe("/status/200"), **QUICK))
        second.kill()
        balancer.add(second.address)
        watch.until(second.address, UNHEALTHY)
        balancer.remove(second.address)
        assert second.address not in tracker.snapshot()
        second.start()
        balancer.add(second.address)
        watch.until(second.address, HEALTHY)
        first.kill()
        watch.until(first.address, UNHEALTHY)
        watch.until(second.address, HEALTHY)
        assert balancer.pick() == second.address
        balancer.remove(first.address)
        first.start()
        watch.until(second.address, HEALTHY)
    assert first.address not in tracker.snapshot()
