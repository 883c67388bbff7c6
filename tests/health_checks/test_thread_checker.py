"""The checker that runs in threads: what it asks, when it stops, and what a fork does to it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Hashable
from queue import Empty, Queue
from random import Random
from threading import Barrier, Event, Thread
from typing import Any

import pytest
from tests.health_checks.support import TIMEOUT, PushedTime, Told, Watch

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    HealthStatus,
    HealthTracker,
    NoopCollector,
    Outcome,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
)
from loadwise.health_checks import HealthChecker, HttpProbe, NodeProbe

UNHEALTHY, HEALTHY = HealthStatus.UNHEALTHY, HealthStatus.HEALTHY


class Asked:
    """A probe that writes down whom it is asked about, and answers when it is told to."""

    def __init__(self) -> None:
        self.nodes: Queue[str] = Queue()
        self.verdicts: dict[str, bool | BaseException | None] = {}
        self.hangs: dict[str, Event] = {}
        self.threads: dict[str, Thread] = {}
        self.at_once: dict[str, int] = {}
        self.most_at_once = 0
        self._lock = threading.Lock()

    def __call__(self, node: str) -> bool | None:
        with self._lock:
            self.at_once[node] = self.at_once.get(node, 0) + 1
            self.most_at_once = max(self.most_at_once, self.at_once[node])
            self.threads[node] = threading.current_thread()
        self.nodes.put(node)
        if node in self.hangs:
            assert self.hangs[node].wait(TIMEOUT)
        with self._lock:
            self.at_once[node] -= 1
        verdict = self.verdicts.get(node)
        if isinstance(verdict, BaseException):
            raise verdict
        return verdict

    def next(self, count: int) -> list[str]:
        """The next nodes that are asked about, sorted."""
        return sorted(self.nodes.get(timeout=TIMEOUT) for _ in range(count))


def fragile() -> HealthTracker:
    """A tracker for which one failure is enough, and one success mends it; no live probes."""
    return HealthTracker(ConsecutiveFailurePolicy(1, 1, 3600.0))


def pushed(
    balancer: Balancer[str], probe: NodeProbe[str], time: PushedTime, **options: Any
) -> HealthChecker[str]:
    """A checker without jitter whose time only goes on when it is pushed."""
    return HealthChecker(balancer, probe, clock=time, wait=time.wait, jitter=0.0, **options)


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        (False, "the probe returned False"),
        (ConnectionError("no route"), "ConnectionError: no route"),
        (TimeoutError(), "TimeoutError"),
        (SystemExit(3), "SystemExit: 3"),
        (0, "the probe returned 0; it must return True, False or None"),
    ],
    ids=repr,
)
def test_what_a_probe_says_is_the_node_s_health_reason(verdict: Any, reason: str) -> None:
    """None and True are passes; False, other values and whatever is raised are failures."""
    balancer = Balancer(["a", "b", "c"], health=fragile())
    probe = Asked()
    probe.verdicts = {"a": verdict, "b": True}
    assert balancer.health is not None
    watch = Watch(balancer.health)
    with pushed(balancer, probe, PushedTime()):
        watch.until("a", UNHEALTHY)
        assert probe.next(3) == ["a", "b", "c"]
    bad, *good = balancer.status()
    assert bad.health_reason == f"1 failure, the last: active check: {reason}"
    assert [(status.health, status.health_reason) for status in good] == [(HEALTHY, None)] * 2


def test_an_unhealthy_node_that_passes_recovers_without_traffic() -> None:
    """By the policy: RECOVERING at the first pass, HEALTHY at the second."""
    time = PushedTime()
    balancer = Balancer(["a"], health=HealthTracker(ConsecutiveFailurePolicy(3, 2, 3600.0)))
    assert balancer.health is not None
    for _ in range(3):
        balancer.health.report_failure("a")
    watch = Watch(balancer.health)
    with pushed(balancer, Asked(), time, interval=5.0):
        watch.until("a", HealthStatus.RECOVERING)
        time.push(5.0)
        watch.until("a", HEALTHY)
    assert balancer.status()[0].picks == 0


class Events(NoopCollector):
    """Collects what concerns requests."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def on_selection(self, node_id: Hashable, strategy: str) -> None:
        self.seen.append((node_id, strategy))

    def on_outcome(self, node_id: Hashable, outcome: Outcome, latency: float) -> None:
        self.seen.append((node_id, outcome))


def test_checks_are_not_traffic() -> None:
    """Picks, latency, requests in flight, quota and metrics do not see them."""
    quota, events, probe = QuotaTracker(), Events(), Asked()
    quota.register("a", QuotaConfig([QuotaDimension("rpm", limit=10, window=60.0)]))
    balancer = Balancer(["a", "b"], quota=quota, metrics=events, health=fragile())
    probe.verdicts = {"b": False}
    probe.hangs = {"a": Event()}
    assert balancer.health is not None
    watch = Watch(balancer.health)
    with pushed(balancer, probe, PushedTime()):
        assert probe.next(2) == ["a", "b"]
        watch.until("b", UNHEALTHY)
        for status in balancer.status():
            assert (status.picks, status.in_flight, status.latency) == (0, 0, None)
        assert quota.remaining("a", "rpm") == 10
    probe.hangs["a"].set()
    assert events.seen == []


def test_a_hanging_node_delays_no_other_and_is_asked_once_at_a_time() -> None:
    """Even if only one check at a time is allowed: it gives its place back when time is over."""
    time, probe, told = PushedTime(), Asked(), Told()
    balancer = Balancer(["a", "b"], health=HealthTracker(told))
    probe.hangs = {"a": Event()}
    with pushed(balancer, probe, time, interval=5.0, timeout=1.0, concurrency=1):
        assert probe.next(1) == ["a"]
        time.push(1.0)
        for turn in range(1, 5):
            assert probe.next(1) == ["b"]
            told.until("a", turn)
            told.until("b", turn)
            assert balancer.status()[0].health is UNHEALTHY
            if turn < 4:
                time.push(5.0)
        asking = probe.threads["a"]
        probe.hangs.pop("a").set()
        asking.join(TIMEOUT)
        time.push(5.0)
        assert probe.next(2) == ["a", "b"]
        told.until("a", 5)
    assert balancer.status()[0].health is HEALTHY
    assert probe.most_at_once == 1


def test_stop_is_prompt_and_final() -> None:
    """It does not wait for a probe that hangs, and what that says later is not reported."""
    probe = Asked()
    probe.hangs, probe.verdicts = {"a": Event()}, {"a": False}
    balancer = Balancer(["a"], health=fragile())
    checker = pushed(balancer, probe, PushedTime(), timeout=3600.0)
    checker.start()
    assert probe.next(1) == ["a"]
    asking = probe.threads["a"]
    checker.stop()
    assert not checker.running
    assert "loadwise-health" not in {thread.name for thread in threading.enumerate()}
    probe.hangs["a"].set()
    asking.join(TIMEOUT)
    assert balancer.health is not None
    assert balancer.health.snapshot() == {}


def test_starting_and_stopping_can_be_repeated() -> None:
    """Twice the same changes nothing, and a checker can be started again."""
    probe = Asked()
    checker = pushed(Balancer(["a"]), probe, PushedTime())
    checker.stop()
    for _ in range(3):
        assert repr(checker) == "<HealthChecker of balancer 'default': stopped>"
        with checker:
            checker.start()
            assert checker.running
            assert probe.next(1) == ["a"]
        checker.stop()
    with pytest.raises(Empty):
        probe.nodes.get_nowait()


def test_a_listener_may_stop_the_checker() -> None:
    """Though it is called in the checker's own thread, which cannot wait for itself."""
    balancer, probe = Balancer(["a"], health=fragile()), Asked()
    probe.verdicts = {"a": False}
    checker = pushed(balancer, probe, PushedTime())
    assert balancer.health is not None
    stopped = Event()

    def stop(*_change: object) -> None:
        checker.stop()
        stopped.set()

    balancer.health.subscribe(stop)
    checker.start()
    assert stopped.wait(TIMEOUT)
    assert not checker.running


def test_no_record_outlives_membership_in_a_race() -> None:
    """Four threads add and remove nodes while failing checks run as fast as they can."""
    balancer: Balancer[int] = Balancer(range(8), health=fragile())
    assert balancer.health is not None
    enough = Barrier(5)

    def churn(seed: int) -> None:
        random = Random(seed)
        mine = [100 * seed + number for number in range(1, 9)]
        for _ in range(300):
            node = random.choice(mine)
            if node in balancer.nodes:
                balancer.remove(node)
            else:
                balancer.add(node)
        enough.wait(TIMEOUT)

    threads = [Thread(target=churn, args=(seed,)) for seed in range(1, 5)]
    with HealthChecker(balancer, lambda _node: False, interval=1e-6, timeout=60.0):
        for thread in threads:
            thread.start()
        enough.wait(TIMEOUT)
        for thread in threads:
            thread.join(TIMEOUT)
    assert balancer.health.snapshot().keys() <= set(balancer.nodes)


def run_script(script: str) -> str:
    """What a fresh interpreter prints; it must end well and say nothing on stderr."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_the_process_can_end_while_it_runs() -> None:
    """A checker that nobody stops, with a probe that hangs, neither delays it nor complains."""
    script = """
import threading
from loadwise import Balancer
from loadwise.health_checks import HealthChecker
asked = threading.Event()
def probe(node):
    if node == "hangs":
        asked.set()
        threading.Event().wait()
HealthChecker(Balancer(["hangs", "works"]), probe, interval=0.001).start()
assert asked.wait(20)
print("end")
"""
    assert run_script(script) == "end\n"


FORK = """
import os, threading
from loadwise import Balancer, HealthStatus, HealthTracker, Outcome
from loadwise.health_checks import HealthChecker

process = os.getpid()
held, forked = threading.Event(), threading.Event()

class Policy:
    probe_interval = 1.0

    def next_status(self, health, outcome):
        if os.getpid() == process:  # called under the tracker's lock
            held.set()
            assert forked.wait(20)
        return HealthStatus.HEALTHY if outcome is Outcome.SUCCESS else HealthStatus.UNHEALTHY

def probe(node):
    return os.getpid() == process

health = HealthTracker(Policy())
balancer = Balancer(["a"], health=health)
running = HealthChecker(balancer, probe, interval=0.01)
stopped = HealthChecker(balancer, probe, interval=0.01)
running.start()
assert held.wait(20)
with running._lock:
    child = os.fork()
if child == 0:
    changed = threading.Event()
    health.subscribe(lambda *change: changed.set())
    ok = health.status("a") is HealthStatus.UNHEALTHY or changed.wait(20)
    ok = ok and running.running and not stopped.running
    running.stop()
    names = [thread.name for thread in threading.enumerate()]
    os._exit(0 if ok and not running.running and "loadwise-health" not in names else 1)
forked.set()
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0
assert health.status("a") is HealthStatus.HEALTHY and running.running
running.stop()
print("end")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_goes_on_with_a_thread_of_its_own() -> None:
    """What ran runs in both, each for its own tracker; what did not run does not.

    In the moment of the fork the tracker's and the checker's locks are held.
    """
    assert run_script(FORK) == "end\n"


def make(**options: Any) -> Callable[[], object]:
    """A checker that is made but not started."""
    return lambda: HealthChecker(Balancer(["a"]), lambda _node: None, **options)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"interval": 0}, ValueError, "interval is 0; it must be a finite number of seconds"),
        ({"interval": float("nan")}, ValueError, "interval is nan"),
        ({"timeout": -1.0}, ValueError, "timeout is -1.0"),
        ({"timeout": "1"}, TypeError, "timeout is '1'; it must be a number"),
        ({"jitter": "0.1"}, TypeError, "jitter is '0.1'; it must be a number"),
        ({"unhealthy_interval": float("inf")}, ValueError, "unhealthy_interval is inf"),
        ({"jitter": 1.0}, ValueError, "jitter is 1.0; it must be at least 0 and below 1"),
        ({"healthy_threshold": 0}, ValueError, "healthy_threshold is 0; it must be at least 1"),
        ({"unhealthy_threshold": 1.5}, TypeError, "unhealthy_threshold is 1.5; it must be an int"),
        ({"concurrency": 0}, ValueError, "concurrency is 0"),
        ({"intervall": 1.0}, TypeError, "no argument 'intervall'; did you mean 'interval'"),
    ],
)
def test_bad_options_are_refused(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    """The message names the argument, its value and the remedy."""
    with pytest.raises(error, match=text):
        make(**options)()


def test_a_slip_is_refused_before_it_looks_like_nodes_that_are_down() -> None:
    """A list for a balancer, a probe's class for the probe, a policy for the tracker."""
    balancer = Balancer(["a:80"])
    with pytest.raises(TypeError, match=r"balancer is \['a:80'\]; it must be a Balancer"):
        HealthChecker(["a:80"], HttpProbe())  # type: ignore[arg-type]  # the error under test
    with pytest.raises(TypeError, match=r"it must be an instance, such as HttpProbe\(\)"):
        HealthChecker(balancer, HttpProbe)  # type: ignore[arg-type]  # the error under test
    with pytest.raises(TypeError, match=r"health is .*; it must be a HealthTracker"):
        HealthChecker(balancer, HttpProbe(), health=ConsecutiveFailurePolicy())  # type: ignore[arg-type]  # the error under test


def test_a_balancer_without_health_needs_a_tracker() -> None:
    """There would be nothing to report to."""
    balancer = Balancer(["a"], health=False, name="search")
    with pytest.raises(ValueError, match="balancer 'search' keeps no health"):
        HealthChecker(balancer, lambda _node: None)
    HealthChecker(balancer, lambda _node: None, health=HealthTracker())


async def coroutine_function(node: str) -> bool:
    """Pass."""
    return True


class CoroutineObject:
    """Has a coroutine function for its call."""

    async def __call__(self, node: str) -> bool:
        return True


@pytest.mark.parametrize("probe", [coroutine_function, CoroutineObject(), "http://a/healthz", None])
def test_a_probe_must_be_a_plain_function(probe: Any) -> None:
    """A coroutine function would never be awaited here, so it is refused at once."""
    with pytest.raises(TypeError, match="probe"):
        HealthChecker(Balancer(["a"]), probe)
