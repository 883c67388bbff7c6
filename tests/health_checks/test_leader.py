"""One of several processes checks, and another takes over from it."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.health_checks.support import KINDS, TIMEOUT, checking, until

from loadwise import Balancer, HealthTracker
from loadwise.health_checks import AsyncHealthChecker, HealthChecker, HostLeader
from loadwise.health_checks.leader import as_leader
from loadwise.health_checks.plan import CheckPlan
from loadwise.health_checks.round import Round
from loadwise.health_checks.settings import CheckSettings
from loadwise.testing import ManualClock

PROCESS = Path(__file__).with_name("checking_process.py")

needs_flock = pytest.mark.skipif(sys.platform == "win32", reason="this system has no flock")


class Told(HealthTracker):
    """Passes for a tracker that tells other processes."""


def well(_node: str) -> bool:
    """A probe that passes."""
    return True


class Stage:
    """A plan of two nodes, whose leader is a function of the test's, and a clock."""

    def __init__(self, leads: Callable[[], bool]) -> None:
        self.clock = ManualClock(1000.0)
        balancer = Balancer(["a", "b"], health=Told(clock=self.clock))
        settings = CheckSettings(interval=5.0, jitter=0.0, rng=random.Random(0))
        self.plan = CheckPlan(balancer, settings, as_leader(leads))

    def play(self, seconds: float) -> int:
        """Let time pass; every node answers at once. Return how many checks were made."""
        made, end = 0, self.clock() + seconds
        while self.clock() < end:
            for check in self.plan.turn(self.clock())[0]:
                made += 1
                self.plan.ended(check, None, self.clock())
            self.clock.advance(max(self.plan.wait(self.clock()), 0.001))
        return made


def test_who_does_not_lead_does_not_check() -> None:
    """It begins within half a second of leading, and ends within half a second of not leading."""
    leads = [False]
    stage = Stage(lambda: leads[0])
    assert stage.play(60.0) == 0
    leads[0] = True
    assert stage.play(0.6) == 2
    assert stage.play(50.0) == 20
    leads[0] = False
    stage.play(0.5)
    assert stage.play(60.0) == 0
    leads[0] = True
    assert stage.play(0.6) == 2


def test_who_does_not_lead_checks_when_asked_to() -> None:
    """``check_now`` is not a matter of who leads."""
    stage = Stage(lambda: False)
    stage.play(10.0)
    finished: list[bool] = []
    round_ = Round(lambda: finished.append(True))
    stage.plan.check_now(round_, stage.clock())
    assert stage.play(1.0) == 2
    assert finished == [True]
    assert round_.verdicts == {"a": None, "b": None}
    assert stage.play(60.0) == 0


def test_losing_the_lead_does_not_lose_who_waits() -> None:
    """Checks that somebody waits for are made even so."""
    leads = [True]
    stage = Stage(lambda: leads[0])
    stage.play(0.1)
    finished: list[bool] = []
    leads[0] = False
    stage.plan.check_now(Round(lambda: finished.append(True)), stage.clock())
    stage.play(1.0)
    assert finished == [True]


def test_a_leader_that_fails_makes_everybody_check(caplog: pytest.LogCaptureFixture) -> None:
    """Twice is better than not at all; it is logged once."""

    def broken() -> bool:
        raise OSError("no such service")

    with caplog.at_level(logging.ERROR, "loadwise"):
        assert Stage(broken).play(60.0) > 20
    (record,) = caplog.records
    assert record.getMessage().startswith("the leader failed, so this process checks")


@pytest.mark.parametrize("kind", KINDS)
def test_a_checker_asks_and_resigns(kind: str) -> None:
    """In its thread or loop while it runs; once it is stopped another may lead."""

    class Elected:
        asked = resigned = 0

        def leads(self) -> bool:
            self.asked += 1
            return True

        def resign(self) -> None:
            self.resigned += 1

    leader = Elected()
    seen: list[str] = []

    async def probe(node: str) -> None:
        seen.append(node)

    balancer = Balancer(["a"], health=Told())
    chosen: Any = seen.append if kind == "thread" else probe
    with checking(kind, balancer, chosen, interval=0.01, leader=leader):
        until(lambda: len(seen) > 2)
        assert leader.resigned == 0
    until(lambda: leader.resigned == 1)
    assert leader.asked >= 1


def test_a_checker_says_that_it_stands_by() -> None:
    """As a state between running and stopped."""
    checker = HealthChecker(Balancer(["a"], health=Told()), well, leader=lambda: False)
    assert repr(checker) == "<HealthChecker of balancer 'default': stopped>"
    with checker:
        assert checker.running
        assert repr(checker) == "<HealthChecker of balancer 'default': standing by>"


async def to_be_awaited(*_: object) -> bool:
    """A leader that nobody would await."""
    return True


@pytest.mark.parametrize("checker", [HealthChecker, AsyncHealthChecker])
@pytest.mark.parametrize(
    ("leader", "error", "text"),
    [
        (3, TypeError, "leader is 3; it must be the path of a lock file, a function"),
        (HostLeader, TypeError, "leader is the class HostLeader; give an instance"),
        (to_be_awaited, TypeError, "which is to be awaited"),
        ("/no/such/directory/lock", FileNotFoundError, "/no/such/directory/lock"),
    ],
)
def test_wrong_leaders_are_refused(
    checker: Any, leader: object, error: type[Exception], text: str
) -> None:
    """Where they are given."""
    probe: Any = well if checker is HealthChecker else to_be_awaited
    with pytest.raises(error, match=text):
        checker(Balancer(["a"], health=Told()), probe, leader=leader)


def test_a_leader_without_shared_health_is_refused() -> None:
    """Those that do not check would be blind."""
    with pytest.raises(ValueError, match=r"would never hear .* give the balancer health=SharedH"):
        HealthChecker(Balancer(["a"]), well, leader=lambda: True)


@needs_flock
def test_leaders_of_one_process_lead_together(tmp_path: Path) -> None:
    """The file is locked until the last of them resigns."""
    path = tmp_path / "lock"
    first, second = HostLeader(path), HostLeader(str(path))
    script = "from loadwise.health_checks import HostLeader; import sys; "
    script += "print(HostLeader(sys.argv[1]).leads())"

    def another_leads() -> bool:
        command = [sys.executable, "-c", script, str(path)]
        done = subprocess.run(command, capture_output=True, check=True)
        return done.stdout.strip() == b"True"

    assert first.leads()
    assert second.leads()
    first.resign()
    assert not another_leads()
    second.resign()
    assert another_leads()
    assert first.leads()
    path.unlink()  # as by a program that tidies up
    assert another_leads()
    assert first.leads()
    assert not another_leads()
    del first, second
    assert another_leads()


FORK = """
import os, sys
from loadwise.health_checks import HostLeader
leader = HostLeader(sys.argv[1])
assert leader.leads()
def say(text):
    os.write(1, f"{text}\\n".encode())
if os.fork():
    say(leader.leads())
    sys.stdin.read()  # until it is killed
else:
    say(leader.leads())
    while not leader.leads():
        pass
    say("took over")
"""


@needs_flock
def test_a_child_takes_over_when_its_parent_is_killed(tmp_path: Path) -> None:
    """The lock that it has inherited neither makes it lead nor keeps the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", FORK, str(tmp_path / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        assert {process.stdout.readline(), process.stdout.readline()} == {"True\n", "False\n"}
        os.kill(process.pid, signal.SIGKILL)
        assert process.stdout.readline() == "took over\n"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


class Crowd:
    """Processes that check the same nodes, each where it leads."""

    def __init__(self, directory: Path, kind: str, where: str, prefix: str, count: int = 4) -> None:
        self._directory = directory
        command = [sys.executable, str(PROCESS), kind, where, prefix, str(directory)]
        self.processes = {
            process.pid: process
            for process in (
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                for _ in range(count)
            )
        }
        for process in self.processes.values():
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"

    def checks(self) -> list[int]:
        """Who has probed, in order."""
        journal = self._directory / "journal"
        return [int(line) for line in journal.read_text().split()] if journal.exists() else []

    def until_checks(self, more: int, but: set[int]) -> int:
        """Wait for so many further checks by others; return who makes them: it is one."""
        before = len(self.checks())
        until(lambda: sum(pid not in but for pid in self.checks()[before:]) >= more)
        (leader,) = set(self.checks()[before:]) - but
        return leader

    def states(self, pid: int) -> str:
        """How a process finds the nodes to be, as JSON."""
        process = self.processes[pid]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        return process.stdout.readline()

    def kill(self, pid: int) -> None:
        """End one at once."""
        process = self.processes.pop(pid)
        process.kill()
        process.communicate()

    def stop(self, pid: int) -> None:
        """Have one stop its checker and end."""
        process = self.processes.pop(pid)
        process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Callable[..., Crowd]]:
    """Start processes; end them in the end."""
    started: list[Crowd] = []

    def start(kind: str, where: str, prefix: str = "") -> Crowd:
        started.append(Crowd(tmp_path, kind, where, prefix))
        return started[-1]

    yield start
    for each in started:
        for pid in list(each.processes):
            each.kill(pid)


@needs_flock
@pytest.mark.parametrize("kind", ["thread", "asyncio"])
def test_of_a_host_s_processes_one_checks(
    crowd: Callable[..., Crowd], tmp_path: Path, kind: str
) -> None:
    """One of four; when it is killed another, when that is stopped the next, and so to the last."""
    four = crowd(kind, str(tmp_path / "lock"))
    gone: set[int] = set()
    for end in (four.kill, four.stop, four.kill):
        leader = four.until_checks(20, gone)
        end(leader)
        gone.add(leader)
    assert four.until_checks(20, gone) in four.processes
    assert len(set(four.checks())) == 4
