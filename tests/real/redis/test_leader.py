"""One process of a fleet checks, and tells the others what it finds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.health_checks.support import until
from tests.health_checks.test_leader import Crowd
from tests.real.redis.support import PATIENCE, Valkey

from loadwise.integrations.redis import SharedLeader


@pytest.fixture
def leader(client: redis.Redis, prefix: str, stack: ExitStack) -> Callable[..., SharedLeader]:
    """Make leaders that are closed in the end."""

    def make(**options: Any) -> SharedLeader:
        options = {"timeout": PATIENCE, "ttl": 30.0} | options
        return stack.enter_context(SharedLeader(options.pop("client", client), prefix, **options))

    return make


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Callable[..., Crowd]]:
    """Start processes; end them in the end."""
    started: list[Crowd] = []

    def start(kind: str, where: str, prefix: str) -> Crowd:
        started.append(Crowd(tmp_path, kind, where, prefix, 3))
        return started[-1]

    yield start
    for each in started:
        for pid in list(each.processes):
            each.kill(pid)


@pytest.mark.parametrize("kind", ["thread", "asyncio"])
def test_the_others_hear_what_one_finds(
    crowd: Callable[..., Crowd], valkey: Valkey, prefix: str, tmp_path: Path, kind: str
) -> None:
    """Before and after the one that checks is killed."""
    three = crowd(kind, str(valkey.port), prefix)
    first = three.until_checks(20, set())

    def all_find(b: str) -> bool:
        states = {three.states(pid) for pid in three.processes}
        return states == {f'{{"a": "HEALTHY", "b": "{b}"}}\n'}

    (tmp_path / "b").touch()
    until(lambda: all_find("UNHEALTHY"))
    assert set(three.checks()) == {first}
    three.kill(first)
    assert three.until_checks(20, {first}) in three.processes
    (tmp_path / "b").unlink()
    until(lambda: all_find("HEALTHY"))
    assert len(set(three.checks())) == 2


def test_one_leads_until_it_resigns(leader: Callable[..., SharedLeader]) -> None:
    """The others do not, and then one of them does, without waiting for an expiry."""
    first, second = leader(), leader()
    until(first.leads)
    assert not second.leads()
    first.resign()
    until(second.leads)  # it looks every 10 s, and when it is asked for the first time
    assert not first.leads()


def test_the_lead_of_who_says_nothing_expires(
    leader: Callable[..., SharedLeader], client: redis.Redis, prefix: str
) -> None:
    """As a key does, after which another takes it."""
    client.set(f"{prefix}:leader", "somebody", px=300)
    waiting = leader(ttl=0.6)
    assert not waiting.leads()
    until(waiting.leads)
    assert client.pttl(f"{prefix}:leader") <= 600


def test_without_the_server_every_process_leads(
    leader: Callable[..., SharedLeader], fragile: Valkey
) -> None:
    """For none hears of the others; when it is back, one does."""
    events: list[str] = []
    options: dict[str, Any] = {"client": fragile.client(), "ttl": 1.0}
    two = [leader(**options, on_event=lambda event: events.append(event.kind)) for _ in range(2)]
    until(lambda: sum([each.leads() for each in two]) == 1)
    fragile.kill()
    until(lambda: all(each.leads() for each in two))
    fragile.start()
    until(lambda: sum([each.leads() for each in two]) == 1)
    # The one that led may not have noticed, if the server was back before it asked again.
    until(lambda: sorted(events) in (["outage", "restored"], ["outage"] * 2 + ["restored"] * 2))


def test_it_works_from_the_first_question_on(
    leader: Callable[..., SharedLeader], valkey: Valkey
) -> None:
    """A process that only forks workers has no thread, and asks nothing once it has a leader."""
    client, sent = valkey.counting_client()
    one = leader(client=client)
    sent.clear()
    time.sleep(0.05)
    assert not sent
    until(one.leads)


@pytest.mark.parametrize(
    ("options", "text"),
    [({"ttl": 0}, "ttl is 0"), ({"timeout": -1}, "timeout is -1")],
)
def test_wrong_options_are_refused(client: redis.Redis, options: dict[str, Any], text: str) -> None:
    """At construction."""
    with pytest.raises(ValueError, match=text):
        SharedLeader(client, **options)
