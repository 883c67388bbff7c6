"""Both checkers with real servers, and the one in threads, when all verdicts are asked for."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import Counter
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from decimal import Decimal
from fractions import Fraction
from queue import Queue
from threading import Barrier, Event, Thread
from typing import Any

import pytest
from tests.health_checks.support import KINDS, TIMEOUT, PushedTime, Server, Told, until
from tests.health_checks.test_thread_checker import Asked, fragile, pushed, run_script

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    HealthStatus,
    HealthTracker,
    LoadwiseError,
)
from loadwise.health_checks import AsyncHealthChecker, HealthChecker, HttpProbe

UNHEALTHY, HEALTHY = HealthStatus.UNHEALTHY, HealthStatus.HEALTHY
STOPPED = "checker of balancer 'default' was stopped before check_now"

Verdicts = dict[Hashable, str | None]


def health_of(balancer: Balancer[str]) -> HealthTracker:
    """The tracker of a balancer that has one."""
    assert balancer.health is not None
    return balancer.health


def call(checker: HealthChecker[str]) -> Queue[Verdicts | BaseException]:
    """Call check_now in a thread; what it returns or raises will be in the queue."""
    result: Queue[Verdicts | BaseException] = Queue()

    def run() -> None:
        try:
            result.put(checker.check_now())
        except BaseException as error:  # noqa: BLE001 - for the test to see
            result.put(error)

    Thread(target=run, daemon=True).start()
    return result


def until_at_rest() -> None:
    """Wait until no checker has a thread of its own."""
    for thread in threading.enumerate():
        if thread.name == "loadwise-health":
            thread.join(TIMEOUT)
            assert not thread.is_alive()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("running", [False, True])
def test_real_servers_before_the_first_request(kind: str, *, running: bool) -> None:
    """Verdicts and health are there when it returns: of one that is well, hangs, is down, drains.

    It is one check of each, which the policy here takes for enough.
    """
    with ExitStack() as stack:
        well, hanging, dead, draining = (stack.enter_context(Server()) for _ in range(4))
        hanging.send(signal.SIGSTOP)
        dead.kill()
        tracker = HealthTracker(ConsecutiveFailurePolicy(1, 1, probe_interval=3600.0))
        nodes = [well.address, hanging.address, dead.address, f"{draining.address}/status"]
        balancer = Balancer([f"http://{node}" for node in nodes], health=tracker)
        options: Any = {"interval": 3600.0, "jitter": 0.0}

        async def main() -> Verdicts:
            checker = AsyncHealthChecker(balancer, HttpProbe("/503"), **options)
            if not running:
                return await checker.check_now()
            async with checker:
                return await checker.check_now()

        if kind == "asyncio":
            verdicts = asyncio.run(main())
        else:
            checker = HealthChecker(balancer, HttpProbe("/503"), **options)
            if running:
                checker.start()
            verdicts = checker.check_now()
            checker.stop()

        assert list(verdicts) == [f"http://{node}" for node in nodes]
        passed, *faults = (verdicts[f"http://{node}"] or "passed" for node in nodes)
        assert passed == "passed"
        for fault, text in zip(
            faults, ["no answer within 1 s", "ConnectionRefusedError", "HTTP 503"], strict=True
        ):
            assert text in fault
        assert [status.health for status in balancer.status()] == [HEALTHY] + [UNHEALTHY] * 3
        assert {balancer.pick() for _ in range(20)} == {f"http://{well.address}"}


def test_it_works_at_rest_and_leaves_no_thread() -> None:
    """Each call asks everybody once; between them it does not run, and thresholds count on."""
    probe, time = Asked(), PushedTime()
    balancer = Balancer(["a", "b"], health=fragile())
    checker = pushed(balancer, probe, time, unhealthy_threshold=3, interval=5.0)
    probe.verdicts = {"b": OSError("no route")}
    for status in (HEALTHY, HEALTHY, UNHEALTHY):
        assert checker.check_now() == {"a": None, "b": "OSError: no route"}
        assert probe.next(2) == ["a", "b"]
        assert health_of(balancer).status("b") is status
        assert not checker.running
        until_at_rest()
        time.push(60.0)
    assert probe.nodes.empty()

    checker.stop()
    checker.check_now()
    assert "2 failures" not in str(health_of(balancer).health("b").reason), "it begins again"


def test_nodes_just_checked_are_not_asked_again_at_the_start() -> None:
    """As for who waits until it is ready before serving: the schedule goes on from there."""
    probe, time, told = Asked(), PushedTime(), Told()
    balancer = Balancer(["a"], health=HealthTracker(told))
    checker = pushed(balancer, probe, time, interval=5.0)
    checker.check_now()
    assert probe.next(1) == ["a"]
    time.push(2.0)
    balancer.add("b")
    with checker:
        assert checker.running
        assert probe.next(1) == ["b"]
        told.until("b", 1)
        time.push(3.0)
        assert probe.next(1) == ["a"]
        told.until("a", 2)
        # What is not regular is not in step with what is: the next check of both comes 5 s later.
        checker.check_now()
        assert probe.next(2) == ["a", "b"]
        time.push(5.0)
        assert probe.next(2) == ["a", "b"]
    assert probe.nodes.empty()


def test_starting_while_somebody_waits_goes_on_with_the_same_checks() -> None:
    """They are asked once, and what began at rest runs at intervals from then on."""
    probe, time = Asked(), PushedTime()
    probe.hangs = {"a": Event()}
    checker = pushed(Balancer(["a"]), probe, time, interval=5.0, timeout=3600.0)
    waiting = call(checker)
    assert probe.next(1) == ["a"]
    checker.start()
    checker.start()
    assert checker.running
    probe.hangs.pop("a").set()
    assert waiting.get(timeout=TIMEOUT) == {"a": None}
    assert probe.nodes.empty()
    time.push(5.0)
    assert probe.next(1) == ["a"]
    checker.stop()
    until_at_rest()


def test_a_probe_under_way_is_not_doubled_and_its_verdict_is_too_old() -> None:
    """The node is asked again when it has returned: the call is after a deploy, it before."""
    probe, time = Asked(), PushedTime()
    gate = probe.hangs["a"] = Event()
    probe.verdicts = {"a": False}
    with pushed(Balancer(["a"]), probe, time, timeout=3600.0) as checker:
        assert probe.next(1) == ["a"]
        waiting = [call(checker) for _ in range(3)]
        # That they wait shows nowhere else.
        (check,) = checker._run._plan._checks.values()  # type: ignore[union-attr]
        until(lambda: len(check.rounds_after) == 3)
        del probe.hangs["a"]
        gate.set()
        probe.verdicts["a"] = True
        results = [each.get(timeout=TIMEOUT) for each in waiting]
    assert results == [{"a": None}] * 3
    assert probe.next(1) == ["a"]
    assert probe.nodes.empty()
    assert probe.most_at_once == 1


def test_calls_from_many_threads_while_members_come_and_go() -> None:
    """Every call has the verdict of each node that stays, and nobody is asked twice at a time."""
    at_once: Counter[str] = Counter()
    most: Counter[str] = Counter()
    lock = threading.Lock()

    def probe(node: str) -> bool:
        with lock:
            at_once[node] += 1
            most[node] = max(most[node], at_once[node])
        with lock:
            at_once[node] -= 1
        return node != "bad"

    balancer = Balancer(["good", "bad"], health=fragile())
    checker = HealthChecker(balancer, probe, interval=0.001, timeout=60.0, concurrency=3)
    together = Barrier(6)

    def ask(_seed: int) -> list[Verdicts]:
        together.wait(TIMEOUT)
        return [checker.check_now() for _ in range(30)]

    def churn() -> None:
        together.wait(TIMEOUT)
        for number in range(150):
            balancer.add(f"n{number}")
            if number % 3 == 0:
                checker.start()
            balancer.remove(f"n{number}")

    with ThreadPoolExecutor(6) as pool:
        churning = pool.submit(churn)
        results = [result for each in pool.map(ask, range(5)) for result in each]
        churning.result(TIMEOUT)
    checker.stop()
    assert len(results) == 150
    for result in results:
        assert {"good": result["good"], "bad": result["bad"]} == {
            "good": None,
            "bad": "the probe returned False",
        }
        assert all(result[node] is None for node in result if node != "bad")
    assert set(most.values()) == {1}


def test_it_gives_up_in_time_and_the_checks_go_on() -> None:
    """With a timeout it says what did not happen; what is found later is reported all the same."""
    probe = Asked()
    gate = probe.hangs["a"] = Event()
    probe.verdicts = {"a": False}
    balancer = Balancer(["a"], health=fragile(), name="search")
    checker = HealthChecker(balancer, probe, timeout=3600.0)
    with pytest.raises(TimeoutError, match=r"of balancer 'search' did not all end within 0.01 s"):
        checker.check_now(timeout=0.01)
    assert probe.next(1) == ["a"]
    gate.set()
    until_at_rest()
    assert health_of(balancer).status("a") is UNHEALTHY
    assert checker.check_now(1e300) == {"a": "the probe returned False"}


@pytest.mark.parametrize("seconds", [Decimal(60), Fraction(60), 60, 1e300])
def test_a_timeout_may_be_any_kind_of_number(seconds: Any) -> None:
    """What is taken as a number can be waited for."""
    assert HealthChecker(Balancer(["a"]), lambda _: True).check_now(seconds) == {"a": None}


@pytest.mark.parametrize(
    ("timeout", "error", "text"),
    [
        (-1, ValueError, "timeout is -1; it must be a finite number of seconds, at least 0"),
        (float("nan"), ValueError, "timeout is nan"),
        (float("inf"), ValueError, "timeout is inf"),
        ("1", TypeError, "timeout is '1'; it must be a number"),
    ],
)
def test_a_bad_timeout_is_refused(timeout: Any, error: type[Exception], text: str) -> None:
    """Before anybody is asked."""
    probe = Asked()
    with pytest.raises(error, match=text):
        HealthChecker(Balancer(["a"]), probe).check_now(timeout)
    assert probe.nodes.empty()


@pytest.mark.parametrize("running", [False, True])
def test_stopping_tells_who_waits(*, running: bool) -> None:
    """It is an error for them at once; afterwards it can be called again."""
    probe = Asked()
    gate = probe.hangs["a"] = Event()
    checker = pushed(Balancer(["a"]), probe, PushedTime(), timeout=3600.0)
    if running:
        checker.start()
    waiting = call(checker)
    assert probe.next(1) == ["a"]
    checker.stop()
    error = waiting.get(timeout=TIMEOUT)
    assert isinstance(error, LoadwiseError)
    assert STOPPED in str(error)
    until_at_rest()
    del probe.hangs["a"]
    assert checker.check_now() == {"a": None}
    gate.set()


def test_a_checker_that_breaks_tells_who_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when the clock raises in its thread; the next call has a thread of its own."""
    monkeypatch.setattr(threading, "excepthook", lambda _args: None)
    broken = Event()
    time = PushedTime()

    def clock() -> float:
        if broken.is_set():
            raise ZeroDivisionError
        return time()

    probe = Asked()
    gate = probe.hangs["a"] = Event()
    checker = HealthChecker(Balancer(["a"]), probe, clock=clock, wait=time.wait, timeout=3600.0)
    waiting = call(checker)
    assert probe.next(1) == ["a"]
    broken.set()
    gate.set()
    assert STOPPED in str(waiting.get(timeout=TIMEOUT))
    until_at_rest()
    broken.clear()
    assert checker.check_now() == {"a": None}


def test_a_listener_may_call_it_except_in_the_checker_s_own_thread() -> None:
    """There it would wait for itself, and says so; a listener of a request's report may wait."""
    balancer, probe = Balancer(["a"], health=fragile()), Asked()
    checker = pushed(balancer, probe, PushedTime(), timeout=3600.0)
    results: list[object] = []

    def ask(*_change: object) -> None:
        try:
            results.append(checker.check_now(TIMEOUT))
        except RuntimeError as error:
            results.append(str(error))

    end = health_of(balancer).subscribe(ask)
    health_of(balancer).report_failure("a")
    # The request's report calls the listener; the check mends the node, and calls it again.
    refused, verdicts = results
    assert verdicts == {"a": None}
    assert str(refused).startswith("check_now was called in the checker's own thread")
    end()


def test_interrupting_who_waits_leaves_the_checks_to_end() -> None:
    """Ctrl-C ends the waiting at once; the process ends, too, and the checker still works."""
    script = """
import os, signal, threading
from loadwise import Balancer
from loadwise.health_checks import HealthChecker
gate = threading.Event()
def probe(node):
    if not gate.is_set():
        os.kill(os.getpid(), signal.SIGINT)
        assert gate.wait(20)
checker = HealthChecker(Balancer(["a"]), probe, timeout=60.0)
try:
    checker.check_now()
except KeyboardInterrupt:
    print("interrupted")
gate.set()
print(checker.check_now())
"""
    assert run_script(script) == "interrupted\n{'a': None}\n"


FORK = """
import os, threading
from loadwise import Balancer
from loadwise.health_checks import HealthChecker

process = os.getpid()
asked, forked = threading.Event(), threading.Event()

def probe(node):
    if os.getpid() == process:
        asked.set()
        assert forked.wait(20)
    return os.getpid() == process

checker = HealthChecker(Balancer(["a"]), probe, timeout=60.0)
results = []
waiting = threading.Thread(target=lambda: results.append(checker.check_now()))
waiting.start()
assert asked.wait(20)
with checker._lock, checker._run._lock:
    child = os.fork()
if child == 0:
    ok = not checker.running
    ok = ok and checker.check_now() == {"a": "the probe returned False"}
    os._exit(0 if ok and not checker.running else 1)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0
forked.set()
waiting.join(20)
print(results)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_asks_for_itself() -> None:
    """What the parent waits for is the parent's; in the child it does not run, and works."""
    assert run_script(FORK) == "[{'a': None}]\n"
