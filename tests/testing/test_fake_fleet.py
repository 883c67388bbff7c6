"""A fleet without servers: what it is told to do happens, and retries and failover go by it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from loadwise import (
    Backoff,
    Balancer,
    ConsecutiveFailurePolicy,
    Endpoint,
    HealthTracker,
    NoNodeAvailable,
    RoundRobin,
    UnknownNode,
)
from loadwise.testing import Call, FakeFleet, ManualClock

pytest_plugins = ["pytester"]


def ended(fleet: FakeFleet[Any], node: str, request: object = None) -> object:
    """Send a request, and return its answer or the kind of its error."""
    try:
        return fleet.send(node, request)
    except Exception as error:  # noqa: BLE001 - looked at by the caller
        return type(error)


def test_what_is_told_happens_in_order() -> None:
    """Scripts first, then what holds for all others; errors are raised, the rest is answered."""
    fleet = FakeFleet({"a": [ConnectionError, "one", TimeoutError("late")], "b": "two"})
    assert [ended(fleet, "a") for _ in range(4)] == [ConnectionError, "one", TimeoutError, "a"]
    assert [ended(fleet, "b") for _ in range(2)] == ["two", "b"]
    fleet.fail("a", OSError, times=2).answer("a", "three", times=1).fail("a", KeyError)
    assert [ended(fleet, "a") for _ in range(5)] == [OSError, OSError, "three", KeyError, KeyError]
    fleet.answer("a", lambda request: request * 2)
    assert ended(fleet, "a", 21) == 42


def test_a_node_that_is_down_refuses() -> None:
    """At once, whatever else it is told, which waits until it is up."""
    fleet = FakeFleet(["a"]).slow("a", 5.0).script("a", "first").down("a")
    assert ended(fleet, "a") is ConnectionRefusedError
    assert fleet.clock() == 0.0
    assert ended(fleet.up("a"), "a") == "first"
    assert fleet.clock() == 5.0


def test_latencies() -> None:
    """Each request takes its own time, of which failures take as much."""
    fleet = FakeFleet(["a", "b"], latency=1.0)
    fleet.slow("a", 0.5, times=2).fail("a", times=1).slow("b", lambda rng: rng.choice([3.0]))
    for node in "aaab":
        ended(fleet, node)
    took = [(call.ended or 0.0) - call.began for call in fleet.calls]
    assert took == [0.5, 0.5, 1.0, 3.0]


def test_chance_is_repeatable() -> None:
    """A share of failures comes out the same in each run, and another with another source."""

    def run(**options: Any) -> list[object]:
        fleet = FakeFleet(["a"], **options).fail("a", share=0.3)
        return [ended(fleet, "a") for _ in range(200)]

    assert run() == run() != run(rng=random.Random(5))
    assert 40 <= run().count(ConnectionError) <= 80


def test_the_record() -> None:
    """Who was asked for what, when, and how it ended; also as text."""
    fleet = FakeFleet(["a", "b"], latency=0.25).fail("b", OSError("gone"))
    assert fleet.send("a", "GET /") == "a"
    assert ended(fleet, "b") is OSError
    first, second = fleet.calls
    assert first == Call("a", "GET /", 0.0, 0.25, "a")
    assert first.ok
    assert not second.ok
    assert str(fleet) == (
        "0 to 0.25 s 'a' 'GET /': answered 'a'\n0.25 to 0.5 s 'b': OSError('gone')"
    )
    fleet.assert_asked("a", "b")
    with pytest.raises(AssertionError, match=r"asked were \['a', 'b'\], not \['b'\]:\n0 to 0.25 s"):
        fleet.assert_asked("b")
    fleet.assert_used_up()
    with pytest.raises(AssertionError, match=r"have not happened: \{'a': \[1, 'latency 2.0'\]\}"):
        fleet.script("a", 1).slow("a", 2.0, times=1).assert_used_up()


def test_attempts_fail_over() -> None:
    """A balancer of the fleet tries another node, and leaves alone the one that is down."""
    fleet = FakeFleet([Endpoint("a"), Endpoint("b")], latency=0.1).down("a")
    balancer = fleet.balancer(strategy=RoundRobin())
    for _ in range(10):
        for attempt in balancer.attempts(2, retry_on=ConnectionError):
            with attempt as lease:
                assert fleet.send(lease.node) == "b"
    assert fleet.asked.count("a") == 3
    assert balancer.status()[0].health_reason is not None
    fleet.up("a").clock.advance(10.0)
    fleet.clock.advance(0.0)
    for _ in range(6):
        with balancer.acquire() as lease:
            fleet.send(lease.node)
    assert fleet.asked.count("a") > 3


def test_tasks_are_served_side_by_side() -> None:
    """Ten requests of a second each take a second, in any loop."""
    for virtual in (True, False):
        fleet = FakeFleet(["a", "b"], latency=1.0).slow("b", 0.4)

        async def main(fleet: FakeFleet[str] = fleet) -> list[str]:
            finished: list[str] = []

            async def ask(node: str) -> None:
                finished.append(await fleet.asend(node))

            await asyncio.gather(*(ask("ab"[number % 2]) for number in range(10)))
            return finished

        finished = fleet.run(main()) if virtual else asyncio.run(main())
        assert finished == ["b"] * 5 + ["a"] * 5
        assert fleet.clock() == 1.0


def test_the_loads_are_seen() -> None:
    """The least loaded node is asked, for requests are in flight while others begin."""
    fleet = FakeFleet(["a", "b"], latency=1.0)
    balancer = fleet.balancer()

    async def ask() -> None:
        async with balancer.acquire() as lease:
            await fleet.asend(lease.node)

    async def main() -> None:
        await asyncio.gather(*(ask() for _ in range(20)))

    fleet.run(main())
    assert fleet.asked.count("a") == fleet.asked.count("b") == 10


def test_what_is_given_up_is_recorded() -> None:
    """A cancelled request ends as one, when it was cancelled; hung nodes are found."""
    fleet = FakeFleet(["a"]).slow("a", 60.0)
    balancer = fleet.balancer(hung_after=1.0)

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2.0), balancer.acquire() as lease:
                    await fleet.asend(lease.node)

    fleet.run(main())
    assert [(call.ended, type(call.error)) for call in fleet.calls] == [
        (2.0, asyncio.CancelledError),
        (4.0, asyncio.CancelledError),
        (6.0, asyncio.CancelledError),
    ]
    assert balancer.status()[0].health_reason == "3 failures in a row, the last: no answer in 2.0 s"


def test_an_answer_may_be_awaited() -> None:
    """A coroutine function as an answer runs in virtual time, too."""
    fleet = FakeFleet(["a"])

    async def think(request: object) -> object:
        await asyncio.sleep(7.0)
        return request

    fleet.answer("a", think)
    assert fleet.run(fleet.asend("a", "x")) == "x"
    assert fleet.calls[0].ended == 7.0
    with pytest.raises(TypeError, match=r"node 'a' returned .*, which is to be awaited; use asend"):
        fleet.send("a")


def test_waits_for_a_node_pass_in_virtual_time() -> None:
    """A thread that waits for a cooldown or a full node lets the time pass, and gets it."""
    fleet = FakeFleet(["a"])
    balancer = fleet.balancer()
    balancer.acquire().rate_limited(retry_after=30.0)
    with balancer.acquire(timeout=60.0):
        assert fleet.clock() == pytest.approx(30.0, abs=1e-6)
    busy = fleet.balancer(max_in_flight=1)
    with busy.acquire(), pytest.raises(NoNodeAvailable, match="1 full"):
        busy.acquire(timeout=5.0)
    assert fleet.clock() == pytest.approx(35.0, abs=1e-6)


def test_tasks_wait_for_a_node_in_virtual_time() -> None:
    """One node, one request at a time: ten tasks of a second take ten seconds."""
    fleet = FakeFleet(["a"], latency=1.0)
    balancer = fleet.balancer(max_in_flight=1)
    got: list[float] = []

    async def ask() -> None:
        async with balancer.acquire_async(timeout=20.0) as lease:
            await fleet.asend(lease.node)
            got.append(fleet.clock())

    async def main() -> None:
        await asyncio.gather(*(ask() for _ in range(10)))
        held = balancer.acquire()
        with pytest.raises(NoNodeAvailable):
            await balancer.acquire_async(timeout=5.0)
        held.cancel()

    fleet.run(main())
    assert got == pytest.approx(list(range(1, 11)))
    assert fleet.clock() == pytest.approx(15.0)


def test_probes_go_by_it() -> None:
    """A tracker of the fleet's clock probes a node that was down when its time has come."""
    fleet = FakeFleet(["a", "b"]).fail("a", times=1)
    health = HealthTracker(ConsecutiveFailurePolicy(1, 1, 10.0), fleet.clock)
    balancer: Balancer[str] = fleet.balancer(health=health, strategy=RoundRobin())

    def ask() -> object:
        with balancer.acquire() as lease:
            return ended_or_raise(lease.node)

    def ended_or_raise(node: str) -> object:
        return fleet.send(node)

    with pytest.raises(ConnectionError):
        ask()
    assert [ask() for _ in range(3)] == ["b"] * 3
    fleet.clock.sleep(10.0)
    assert "a" in [ask() for _ in range(2)]


WRONG: Any = "wrong"


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: FakeFleet("ab"), TypeError, "the nodes are 'ab'"),
        (lambda: FakeFleet(["a", "a"]), ValueError, "a node with the id 'a' already"),
        (lambda: FakeFleet(["a"], latency=-1.0), ValueError, "a latency is -1.0; it must be"),
        (lambda: FakeFleet(["a"], latency=WRONG), TypeError, "a latency is 'wrong'"),
        (lambda: FakeFleet(["a"], clock=ManualClock()), TypeError, "it must be a VirtualClock"),  # type: ignore[arg-type]
        (lambda: FakeFleet(["a"]).fail("a", WRONG), TypeError, "error is 'wrong'; it must be"),
        (lambda: FakeFleet(["a"]).fail("a", share=0.0), ValueError, "share is 0.0"),
        (lambda: FakeFleet(["a"]).fail("a", times=0), ValueError, "times is 0; it must be at"),
        (lambda: FakeFleet(["a"]).fail("a", times=1, share=0.5), ValueError, "not both"),
        (lambda: FakeFleet(["node-1"]).down("node1"), UnknownNode, "did you mean 'node-1'"),
        (lambda: FakeFleet(["a"]).send("z"), UnknownNode, "the fake fleet has no node"),
    ],
)
def test_refuses_what_makes_no_sense(
    make: Callable[[], object], kind: type[Exception], message: str
) -> None:
    """Where it is given, by value."""
    with pytest.raises(kind, match=message):
        make()


def test_the_fixture_shows_what_was_sent(pytester: pytest.Pytester) -> None:
    """Named in a conftest, it makes fleets; the report of a test that fails has their record."""
    pytester.makeconftest('pytest_plugins = ["loadwise.testing.pytest_plugin"]')
    pytester.makepyfile(
        """
        def test_well(fake_fleet, virtual_clock):
            fleet = fake_fleet(["a"], latency=1.0)
            fleet.send("a")
            assert virtual_clock() == 1.0

        def test_ill(fake_fleet):
            fleet = fake_fleet({"a": "hello"})
            assert fleet.send("a", "GET /") == "goodbye"
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["*FakeFleet of 1: 1 calls*", "0 to 0 s 'a' 'GET /': answered 'hello'"]
    )


def test_call_backs_off_in_virtual_time() -> None:
    """Rounds, their pauses and the deadline go by the fleet's clock, in threads and in tasks."""
    for later in (False, True):
        fleet = FakeFleet(["a", "b"], latency=0.1).fail("a", times=1).fail("b", times=1)
        balancer = fleet.balancer()
        backoff = Backoff(base=3600.0, cap=3600.0, jitter=False)
        if later:
            answer = fleet.run(balancer.call_async(fleet.asend, attempts=3, backoff=backoff))
        else:
            answer = balancer.call(fleet.send, attempts=3, backoff=backoff)
        assert answer in {"a", "b"}
        assert [call.began for call in fleet.calls] == pytest.approx([0.0, 0.1, 3600.2])
        fleet.slow("a", 60.0).slow("b", 60.0)
        with pytest.raises(TimeoutError, match="the deadline of 5 s has passed"):
            fleet.run(balancer.call_async(fleet.asend, deadline=5.0))
        assert fleet.clock() == pytest.approx(3605.3)
