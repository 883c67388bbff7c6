"""Shared quotas while the server is killed, restarted, frozen and flushed."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import chain
from threading import Event, Thread

import pytest
from tests.integrations.redis.limits import rpm
from tests.real.redis.support import (
    DEADLINE,
    PATIENCE,
    Peer,
    Valkey,
    all_at_once,
    hasten,
    most_in_any_window,
    until,
)

from loadwise import Balancer, NoNodeAvailable
from loadwise.integrations.redis import SharedEvent, SharedQuota

LIMIT, WINDOW = 30, 0.5


def is_back(peer: Peer) -> bool:
    """Whether a peer has met outages and all are over."""
    events = peer.ask("events")
    return bool(events["restored"] == events["outage"] >= 1)


def test_a_server_killed_and_restarted_under_load(
    fragile: Valkey, prefix: str, peer: Callable[..., Peer]
) -> None:
    """No exception reaches a pick, and the quota holds again once the server is back.

    2 processes ask through balancers all the time while the server is killed and restarted on its
    port, twice. A peer that met anything but a lease or `NoNodeAvailable` would have died. Each
    process by itself keeps to the limit all the time, so both together to twice that; from two
    windows after the last restart on they share one limit again.
    """
    peers = [peer(fragile, prefix, limit=LIMIT, window=WINDOW) for _ in range(2)]
    for each in peers:
        assert each.ask("ready")
    for each in peers:
        each.tell("hammer", 12 * WINDOW)
    pause = Event()
    for _ in range(2):
        pause.wait(WINDOW)  # under load for a while
        fragile.kill()
        pause.wait(WINDOW)
        fragile.start()
    during = [[(begin, end) for begin, end in each.answer()] for each in peers]
    for uses in during:
        assert len(uses) >= 2 * LIMIT
        assert most_in_any_window(uses, WINDOW) <= LIMIT
    assert most_in_any_window(chain.from_iterable(during), WINDOW) <= 2 * LIMIT
    for each in peers:
        until(partial(is_back, each))
    settled = time.monotonic() + 2 * WINDOW
    after: list[tuple[float, float]] = []

    def enough_is_used() -> bool:
        uses = chain.from_iterable(all_at_once(peers, "hammer", 5 * WINDOW))
        after.extend((begin, end) for begin, end in uses if begin > settled)
        return len(after) > LIMIT

    until(enough_is_used)
    assert most_in_any_window(after, WINDOW) <= LIMIT


def test_picks_ask_nothing_of_a_server_that_is_down(
    fragile: Valkey, prefix: str, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    """After the first failure picks send nothing; one warning and one event tell of the outage.

    The limit holds by what was known of it. Afterwards the server is told what was used.
    """
    client, sent = fragile.counting_client()
    heard: list[SharedEvent] = []
    quota = stack.enter_context(
        SharedQuota(client, prefix, timeout=PATIENCE, on_event=heard.append)
    )
    quota.register("node", rpm(100))
    for _ in range(30):
        assert quota.try_acquire("node")
    fragile.kill()
    with caplog.at_level(logging.INFO, "loadwise"):
        assert quota.try_acquire("node")
        until(lambda: not quota.connected)
        before = sent["MainThread"]
        assert sum(quota.try_acquire("node") is not None for _ in range(200)) == 69
        assert sent["MainThread"] == before
        balancer = Balancer(["node"], quota=quota)
        with pytest.raises(NoNodeAvailable):
            balancer.acquire()
        until(lambda: heard)
        assert [event.kind for event in heard] == ["outage"]
        fragile.start()
        until(lambda: len(heard) >= 2)  # which is counted first, then logged, then told
    assert [record.levelname for record in caplog.records][:2] == ["WARNING", "INFO"]
    assert "until it is back, each process enforces the limits on its own" in caplog.messages[0]
    assert quota.events["outage"] == quota.events["restored"] == 1
    # A process that only now joins in learns what was used before and during the outage.
    other = stack.enter_context(SharedQuota(fragile.client(), prefix, timeout=PATIENCE))
    other.register("node", rpm(100))
    until(lambda: other.try_acquire("node") is None and other.remaining("node", "rpm") == 0)


def test_refuses_while_the_server_is_down(fragile: Valkey, prefix: str, stack: ExitStack) -> None:
    """With ``on_outage="refuse"`` nodes with a quota are unavailable, and back when it is back."""
    quota = stack.enter_context(
        SharedQuota(fragile.client(), prefix, timeout=PATIENCE, on_outage="refuse")
    )
    quota.register("node", rpm(100))
    balancer = Balancer(["node", "free"], quota=quota)
    assert {balancer.pick() for _ in range(20)} == {"node", "free"}
    fragile.kill()
    assert quota.try_acquire("node") is None
    assert quota.unavailable() == ["node"]
    assert {balancer.pick() for _ in range(20)} == {"free"}
    with pytest.raises(NoNodeAvailable) as refusal:
        balancer.acquire(exclude={"free"})
    assert refusal.value.reasons == {"quota": 1, "excluded": 1}
    assert refusal.value.retry_after is not None
    fragile.start()
    until(lambda: quota.try_acquire("node"))
    assert until(lambda: {balancer.pick() for _ in range(20)} == {"node", "free"})


def test_a_frozen_server_holds_up_one_pick(fragile: Valkey, prefix: str, stack: ExitStack) -> None:
    """A server that hangs is asked once; then picks send nothing until it answers again."""
    client, sent = fragile.counting_client()
    quota = stack.enter_context(SharedQuota(client, prefix, timeout=0.5))
    quota.register("node", rpm(10_000_000))
    assert quota.try_acquire("node")
    fragile.freeze()
    before = sent["MainThread"]
    for _ in range(500):
        assert quota.try_acquire("node")
    assert sent["MainThread"] - before <= 1
    assert not quota.connected
    fragile.thaw()
    granted = 501

    def is_asked_again() -> bool:
        nonlocal granted
        before = sent["MainThread"]
        assert quota.try_acquire("node")
        granted += 1
        return sent["MainThread"] > before

    until(is_asked_again)
    # What was used is counted at least once: of the call that was not answered nobody knows.
    other = stack.enter_context(SharedQuota(fragile.client(), prefix, timeout=PATIENCE))
    other.register("node", rpm(10_000_000))
    until(lambda: other.remaining("node", "rpm") <= 10_000_000 - granted)
    assert other.remaining("node", "rpm") >= 10_000_000 - granted - 2


def test_a_flush_is_noticed_and_made_good(
    valkey: Valkey, fragile: Valkey, prefix: str, stack: ExitStack
) -> None:
    """After FLUSHALL each process tells its own use anew: the rest of the limit is what is left."""
    heard: list[SharedEvent] = []
    mine, yours = (
        hasten(
            stack.enter_context(
                SharedQuota(fragile.client(), prefix, timeout=PATIENCE, on_event=heard.append)
            )
        )
        for _ in range(2)
    )
    for quota, used in ((mine, 60), (yours, 25)):
        quota.register("node", rpm(100))
        assert quota.try_acquire("node", {"rpm": used})
    with fragile.client() as client:
        client.flushall()
        assert mine.try_acquire("node", {"rpm": 41}) is None  # of its own use it knows at once
        until(lambda: mine.events["resynchronised"] == yours.events["resynchronised"] == 1)
        assert mine.try_acquire("node", {"rpm": 16}) is None
        assert yours.try_acquire("node", {"rpm": 15})
        assert mine.try_acquire("node") is None
        client.script_flush()
        client.flushall()
    until(lambda: mine.events["resynchronised"] == yours.events["resynchronised"] == 2)
    assert {event.kind for event in heard} == {"resynchronised"}
    until(lambda: mine.try_acquire("node") is None and yours.try_acquire("node") is None)


def test_settling_across_a_restart_gives_nothing_back_twice(
    fragile: Valkey, prefix: str, stack: ExitStack
) -> None:
    """What was reserved before, during and after an outage can be settled at any time after."""
    quota = stack.enter_context(SharedQuota(fragile.client(), prefix, timeout=PATIENCE))
    quota.register("node", rpm(100))
    before = quota.try_acquire("node", {"rpm": 20})
    fragile.kill()
    during = quota.try_acquire("node", {"rpm": 30})
    assert before is not None
    assert during is not None
    before.settle({"rpm": 5})
    during.settle({"rpm": 10})
    assert quota.remaining("node", "rpm") == 85
    fragile.start()
    until(lambda: quota.connected)
    after = until(lambda: quota.try_acquire("node", {"rpm": 85}))
    assert quota.try_acquire("node") is None
    after.settle({"rpm": 80})
    until(lambda: quota.try_acquire("node", {"rpm": 5}))
    assert quota.try_acquire("node") is None


def test_a_server_that_is_not_there_yet(fragile: Valkey, prefix: str, stack: ExitStack) -> None:
    """A process may start before the server: it works alone, and joins in when the server is up."""
    fragile.kill()
    quota = stack.enter_context(SharedQuota(fragile.client(), prefix, timeout=PATIENCE))
    quota.register("node", rpm(10))
    assert sum(quota.try_acquire("node") is not None for _ in range(20)) == 10
    fragile.start()
    until(lambda: quota.connected)
    other = stack.enter_context(SharedQuota(fragile.client(), prefix, timeout=PATIENCE))
    other.register("node", rpm(10))
    until(lambda: other.try_acquire("node") is None)


def test_threads_meet_an_outage_together(fragile: Valkey, prefix: str, stack: ExitStack) -> None:
    """8 threads that pick while the server dies and returns see no exception; one event each."""
    quota = stack.enter_context(SharedQuota(fragile.client(), prefix, timeout=PATIENCE))
    quota.register("node", rpm(1_000_000))
    balancer = Balancer(["node"], quota=quota)
    done, errors = Event(), list[BaseException]()

    def work() -> None:
        try:
            while not done.is_set():
                with balancer.acquire(cost={"rpm": 2}) as lease:
                    pass
                lease.settle({"rpm": 1})
        except BaseException as error:
            errors.append(error)
            raise

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    fragile.kill()
    until(lambda: not quota.connected)
    fragile.start()
    until(lambda: quota.connected)
    done.set()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert not errors
    until(lambda: quota.events["restored"] == quota.events["outage"] >= 1)


def test_what_a_signal_handler_raises_is_the_programs(
    fragile: Valkey, prefix: str, stack: ExitStack
) -> None:
    """A time limit that strikes while the server is asked ends the request, and is no outage."""
    quota = stack.enter_context(SharedQuota(fragile.client(), prefix, timeout=DEADLINE))
    quota.register("node", rpm(100))

    def strike(*_: object) -> None:
        raise LimitExceeded

    before = signal.signal(signal.SIGALRM, strike)
    stack.callback(signal.signal, signal.SIGALRM, before)
    fragile.freeze()
    stack.callback(fragile.thaw)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    with pytest.raises(LimitExceeded):
        quota.try_acquire("node")
    fragile.thaw()
    assert quota.connected
    assert quota.events["outage"] == 0
    assert quota.try_acquire("node")


class LimitExceeded(Exception):  # noqa: N818 - named like celery's, which is an `Exception`, too
    """A time limit has struck."""


def test_after_closing_it_goes_on_alone(valkey: Valkey, prefix: str) -> None:
    """A quota that was closed asks nothing any more, and keeps to the limit by what it knows."""
    client, sent = valkey.counting_client()
    with SharedQuota(client, prefix, timeout=PATIENCE) as quota:
        quota.register("node", rpm(10))
        reservation = quota.try_acquire("node", {"rpm": 8})
    quota.close()
    assert reservation is not None
    before = sum(sent.values())
    assert sum(quota.try_acquire("node") is not None for _ in range(10)) == 2
    reservation.settle({"rpm": 7})
    assert quota.try_acquire("node")
    assert sum(sent.values()) == before
    assert not quota.connected


def test_a_server_that_only_answers_is_no_use(
    valkey: Valkey, prefix: str, stack: ExitStack
) -> None:
    """One that answers and refuses the work counts as away, for as long as it does: one event."""
    with valkey.client() as client:
        client.acl_setuser(
            f"{prefix}-user",
            enabled=True,
            nopass=True,
            commands=["+@all", "-@scripting"],
            keys=["*"],
        )
        user = valkey.client(username=f"{prefix}-user", password="any")  # noqa: S106 - there is none
        quota = stack.enter_context(SharedQuota(user, prefix, timeout=PATIENCE))
        quota.register("node", rpm(10))
        assert not quota.connected
        assert sum(quota.try_acquire("node") is not None for _ in range(20)) == 10
        until(lambda: quota._circuit.wait >= 0.4)
        assert (quota.events["outage"], quota.events["restored"]) == (1, 0)
        client.acl_setuser(f"{prefix}-user", enabled=True, commands=["+@all"])
        until(lambda: quota.connected)
        client.acl_deluser(f"{prefix}-user")
