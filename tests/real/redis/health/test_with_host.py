"""Health that is shared by Redis and by a host's memory at once, through a real server."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.real.redis.support import PATIENCE, until

from loadwise import Balancer, ConsecutiveFailurePolicy, HealthStatus, NodeHealth
from loadwise.integrations.redis import SharedHealth
from loadwise.shared_memory import HostState, read_host

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the locks of a host"),
]

ABRUPT = ConsecutiveFailurePolicy(failure_threshold=1, recovery_successes=1)
DOWN, UP = HealthStatus.UNHEALTHY, HealthStatus.HEALTHY


class Hosts:
    """Two trackers on one host, and one on another; all share by the server."""

    def __init__(self, client: redis.Redis, prefix: str, path: Path, stack: ExitStack) -> None:
        self.path = path
        self.one, self.mate, self.far = (
            stack.enter_context(SharedHealth(client, prefix, policy=ABRUPT, timeout=PATIENCE))
            for _ in range(3)
        )
        self.balancers: list[Balancer[Any]] = [
            Balancer(list("abcdef"), health=self.one, host=HostState(path)),
            Balancer(list("abcdef"), health=self.mate, host=HostState(path)),
            Balancer(list("abcdef"), health=self.far),
        ]
        self.messages: Any = client.pubsub(  # type: ignore[no-untyped-call]
            ignore_subscribe_messages=True
        )
        stack.callback(self.messages.close)
        self.messages.subscribe(f"{prefix}:health")
        for balancer in self.balancers:
            balancer.pick()

    def told(self, of: SharedHealth, marker: str) -> list[str]:
        """Have a tracker tell of one more node; return of whom all have told until then.

        What it had to tell before that has come with it.
        """
        of.report_failure(marker)
        until(lambda: all(t.status(marker) is DOWN for t in (self.one, self.mate, self.far)))
        found: list[str] = []

        def is_told() -> bool:
            message = self.messages.get_message(timeout=1.0)
            if message is not None:
                found.append(json.loads(message["data"].split(b" ", 2)[2])["id"])
            return marker in found

        until(is_told)
        return found

    def in_host(self, node: str) -> HealthStatus:
        """What the host's memory tells of a node."""
        return next(each.health for each in read_host(self.path).nodes if each.id == node)


@pytest.fixture
def hosts(client: redis.Redis, prefix: str, tmp_path: Path, stack: ExitStack) -> Hosts:
    """The trackers."""
    return Hosts(client, prefix, tmp_path / "host", stack)


def test_who_finds_out_tells_both_and_who_hears_tells_nobody(hosts: Hosts) -> None:
    """The host at once, the server once; and what comes from beyond the host stays out of it."""
    hosts.one.report_failure("a", "refused")
    assert hosts.mate.status("a") is DOWN  # by the host, as nothing else was waited for
    hosts.one.report_success("a")
    assert hosts.mate.status("a") is UP
    assert set(hosts.told(hosts.one, "b")) == {"a", "b"}
    assert hosts.told(hosts.mate, "c") == ["c"]
    assert hosts.in_host("c") is DOWN
    assert hosts.told(hosts.far, "d") == ["d"]
    assert hosts.in_host("d") is UP
    assert hosts.told(hosts.mate, "e") == ["e"]
    assert hosts.told(hosts.one, "f") == ["f"]


def test_the_newest_holds_whichever_way_it_came(hosts: Hosts) -> None:
    """What is older than what is known from the other side changes nothing."""
    hosts.told(hosts.far, "b")
    mate, clock = hosts.mate, hosts.mate.clock
    known = clock()
    old = NodeHealth("b", UP)
    assert not mate.take_over(old, known - 60.0)
    assert mate.status("b") is DOWN
    assert mate.take_over(old, known + 60.0)
    assert mate.status("b") is UP
    hosts.far.report_success("b")
    hosts.far.report_failure("b")
    hosts.told(hosts.far, "c")
    assert mate.status("b") is UP  # for the host has said so later
