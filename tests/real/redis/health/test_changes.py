"""Health that processes share through a real server."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any, cast

import pytest
import redis
from tests.real.redis.health.support import ABRUPT, HEALTHY, UNHEALTHY, Share, sees
from tests.real.redis.support import DEADLINE, PATIENCE, Peer, Valkey, until

from loadwise import Balancer, NoNodeAvailable
from loadwise.integrations.redis import SharedEvent, SharedHealth

pytestmark = pytest.mark.slow


def test_other_processes_see_a_change_within_a_second(
    valkey: Valkey, prefix: str, peer: Callable[..., Peer]
) -> None:
    """What process A finds out, process B sees within a second, and the other way round.

    The clock is that of the machine, the same for both. The machine may be busy, so it is tried
    with other nodes until it lets them.
    """
    one, other = peer(valkey, prefix), peer(valkey, prefix)
    assert one.ask("ready")
    assert other.ask("ready")
    numbers = count()

    def is_quick(teller: Peer, listener: Peer) -> bool:
        node_id = f"node-{next(numbers)}"
        failed: float = teller.ask("fail", node_id, 3)
        seen: float = listener.ask("see", node_id, "UNHEALTHY", DEADLINE)
        return seen - failed < 1

    until(partial(is_quick, one, other))
    until(partial(is_quick, other, one))


def test_a_balancer_avoids_what_another_process_found_down(share: Share) -> None:
    """A failure that one balancer met keeps another off the node, and counts as a change there."""
    mine, yours = share(), share()
    began = time.monotonic()
    first = Balancer(["a", "b"], health=mine)
    second = Balancer(["a", "b"], health=yours)
    heard: list[tuple[Any, ...]] = []
    yours.subscribe(lambda *change: heard.append(change))
    first.acquire(exclude={"b"}).failure("refused")
    sees(yours, "a", UNHEALTHY)
    assert {second.pick() for _ in range(20)} == {"b"}
    until(lambda: heard)  # it is told of a moment after it can be seen
    assert heard == [("a", HEALTHY, UNHEALTHY)]
    reason = yours.health("a").reason
    assert reason == "1 failure, the last: refused (found out by another process)"
    with pytest.raises(NoNodeAvailable) as refusal:
        second.acquire(exclude={"b"})
    lasted = time.monotonic() - began
    assert refusal.value.retry_after == pytest.approx(10, abs=lasted + 0.1)
    mine.report_success("a")
    sees(yours, "a", HEALTHY)
    assert {second.pick() for _ in range(50)} == {"a", "b"}


def test_each_change_is_told_once(share: Share, client: redis.Redis, prefix: str) -> None:
    """What is taken over is not told again: two changes are two messages, among 5 trackers."""
    trackers = [share() for _ in range(5)]
    listener = cast("Any", client).pubsub(ignore_subscribe_messages=True)
    listener.subscribe(f"{prefix}:health")
    until(lambda: client.pubsub_numsub(f"{prefix}:health")[0][1] == 6)
    trackers[0].report_failure("a")
    for tracker in trackers:
        sees(tracker, "a", UNHEALTHY)
    trackers[3].report_success("a")
    for tracker in trackers:
        sees(tracker, "a", HEALTHY)
    trackers[1].report_failure("b")
    for tracker in trackers:
        sees(tracker, "b", UNHEALTHY)
    told: list[dict[str, Any]] = []

    def hear() -> bool:
        message = listener.get_message(timeout=0.1)
        if message is not None:
            told.append(json.loads(message["data"].split(b" ", 2)[2]))
        return message is None and len(told) >= 3

    until(hear)
    assert [(each["id"], each["status"]) for each in told] == [
        ("a", "UNHEALTHY"),
        ("a", "HEALTHY"),
        ("b", "UNHEALTHY"),
    ]
    listener.close()


@pytest.mark.parametrize("refused", ["resetchannels", "-publish", "-subscribe"])
def test_a_user_without_channels_polls(
    valkey: Valkey,
    share: Share,
    client: redis.Redis,
    prefix: str,
    caplog: pytest.LogCaptureFixture,
    refused: str,
) -> None:
    """Who may not publish or subscribe tells and finds out all the same; one error says why not.

    One event says so, too. It is no outage, nor is lost what somebody else has changed meanwhile.
    """
    user = f"{prefix}-user"
    cast("Any", client).execute_command(
        "ACL", "SETUSER", user, "on", "nopass", "~*", "&*", "+@all", refused
    )
    heard: list[SharedEvent] = []
    limited = share(
        valkey.client(username=user, password="any"),  # noqa: S106 - there is none
        poll=0.1,
        on_event=heard.append,
    )
    other = share(poll=0.1)
    with caplog.at_level(logging.WARNING, "loadwise"):
        for _ in range(3):
            limited.report_failure("a")
            sees(other, "a", UNHEALTHY)
            other.report_success("a")
            sees(limited, "a", HEALTHY)
        until(lambda: caplog.records)
    client.acl_deluser(user)
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert f"refuses the channel '{prefix}:health'" in record.getMessage()
    assert "found by polling" in record.getMessage()
    assert limited.connected
    assert limited.events == dict.fromkeys(limited.events, 0) | {"refused": 1}
    assert [event.kind for event in heard] == ["refused"]


def test_a_channel_that_is_allowed_again_is_used_after_an_outage(
    fragile: Valkey, share: Share, prefix: str
) -> None:
    """A user that was refused the channel asks for it when the server is back."""
    with fragile.client() as client:
        client.acl_setuser("limited", enabled=True, nopass=True, commands=["+@all"], keys=["*"])
        limited = share(
            fragile.client(username="limited", password="any"),  # noqa: S106 - there is none
            poll=0.1,
        )
        other = share(fragile.client())
        other.report_failure("a")
        sees(limited, "a", UNHEALTHY)
        channel = f"{prefix}:health"
        assert client.pubsub_numsub(channel)[0][1] <= 1
        client.acl_setuser("limited", enabled=True, channels=["*"])
        assert limited._sync is not None
        limited._sync.breaker.failed(TimeoutError("as it would be"))
        until(lambda: client.pubsub_numsub(channel)[0][1] == 2)


def test_a_broken_subscription_is_made_anew(share: Share, client: redis.Redis) -> None:
    """When the server cuts off all who listen, they subscribe again and go on."""
    teller, listener = share(poll=60.0), share(poll=60.0)
    for i in range(3):
        until(lambda: len(client.client_list(_type="pubsub")) >= 2)
        teller.report_failure(f"node-{i}")
        sees(listener, f"node-{i}", UNHEALTHY)
        client.client_kill_filter(_type="pubsub")
        until(lambda: len(client.client_list(_type="pubsub")) >= 2)


def test_who_starts_later_learns_what_is_known(
    share: Share, client: redis.Redis, prefix: str
) -> None:
    """States are kept for newcomers, with their times, in a HASH that expires."""
    began = time.monotonic()
    teller = share(policy=None, ttl=100.0)
    for _ in range(3):
        teller.report_failure("a", "refused")
    until(lambda: client.exists(f"{prefix}:health"))
    newcomer = share(policy=None)
    sees(newcomer, "a", UNHEALTHY)
    left = client.pttl(f"{prefix}:health")
    # What has waited on its way, for no longer than all this took, seems that much younger.
    lasted = time.monotonic() - began
    mine, theirs = teller.health("a"), newcomer.health("a")
    assert theirs.consecutive_failures == 3
    assert mine.last_failure is not None
    assert theirs.last_failure == pytest.approx(mine.last_failure, abs=lasted)
    assert theirs.down_since == pytest.approx(theirs.last_failure)
    assert newcomer.next_probe("a") == pytest.approx(mine.last_failure + 10.0, abs=lasted)
    assert 100_000 - 1000 * lasted - 1 <= left <= 100_000


def test_removed_nodes_stay_removed(share: Share) -> None:
    """A node that this process forgot does not come back by old news; it does by new ones."""
    one, other = share(poll=0.05), share(poll=0.05)
    one.report_failure("a")
    sees(other, "a", UNHEALTHY)
    other.remove("a")
    one.report_failure("b")
    sees(other, "b", UNHEALTHY)
    assert other.status("a") is HEALTHY
    one.report_success("a")
    one.report_failure("a")
    sees(other, "a", UNHEALTHY)


def test_ids_that_are_no_str_stay_here(share: Share, caplog: pytest.LogCaptureFixture) -> None:
    """They are judged like any other, in this process alone, and one warning says so."""
    one, other = share(), share()
    with caplog.at_level(logging.WARNING, "loadwise"):
        one.report_failure(5)
        one.report_failure(("a", 1))
    assert one.status(5) is UNHEALTHY
    assert caplog.messages == ["the health of 5 is not shared: its id is no str"]
    one.report_failure("a")
    sees(other, "a", UNHEALTHY)
    assert other.status(5) is HEALTHY
    one.remove(5)
    one.report_failure("x" * 2000)
    until(lambda: one.events["rejected"] == 1)


def test_closing(valkey: Valkey, prefix: str) -> None:
    """Closing tells the rest; the tracker works on alone, and closing twice is harmless."""
    tracker = SharedHealth(valkey.client(), prefix, ABRUPT, poll=60.0)
    tracker.report_failure("a")
    tracker.close()
    tracker.close()
    assert not tracker.connected
    tracker.report_failure("b")
    assert tracker.status("b") is UNHEALTHY
    with SharedHealth(valkey.client(), prefix) as other:
        sees(other, "a", UNHEALTHY)
        assert other.status("b") is HEALTHY


def test_closing_before_the_background_has_begun(valkey: Valkey, prefix: str) -> None:
    """What was found out until then is told, although nobody has looked at the server yet."""
    tracker = SharedHealth(valkey.client(), prefix, ABRUPT, timeout=PATIENCE)
    tracker.catch_up()
    sync = tracker._sync
    assert sync is not None
    sync._sender.close()
    sync._ahead = None  # as it is before the first look, should the thread be slow to begin
    tracker.report_failure("a")
    tracker.close()
    with SharedHealth(valkey.client(), prefix, timeout=PATIENCE) as other:
        sees(other, "a", UNHEALTHY)


def test_refuses_wrong_arguments(client: redis.Redis) -> None:
    """What is of the wrong kind or out of range is refused by name."""
    wrong: list[dict[str, Any]] = [{"ttl": 0}, {"poll": -1}, {"timeout": float("inf")}]
    for settings in [*wrong, {"prefix": ""}, {"prefix": "\ud800"}]:
        with pytest.raises(ValueError, match=next(iter(settings))):
            SharedHealth(client, **settings)
    with pytest.raises(TypeError, match="timeout is '1'; it must be a number"):
        SharedHealth(client, timeout="1")  # type: ignore[arg-type]  # the error under test
    with pytest.raises(TypeError, match="policy is 5"):
        SharedHealth(client, policy=5)  # type: ignore[arg-type]  # the error under test
    with pytest.raises(TypeError, match=r"it must be a redis\.Redis"):
        SharedHealth("localhost")  # type: ignore[arg-type]  # the error under test
