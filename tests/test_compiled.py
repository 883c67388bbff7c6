"""What compiling the hot path must not change; run on the interpreted form, too.

The compiled form is made and tested by ``make test-compiled``.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from tests.compiled import COMPILED

from loadwise import (
    Balancer,
    BoundedLoads,
    ConsecutiveFailurePolicy,
    ConsistentHash,
    FallbackChain,
    Filtered,
    HealthFilter,
    HealthTracker,
    InFlight,
    JumpHash,
    LeastLoad,
    Maglev,
    NodeSet,
    PeakEwma,
    PowerOfTwoChoices,
    Random,
    Rendezvous,
    RoundRobin,
    SelectionContext,
    Sticky,
    WeightedRandom,
    WeightedRoundRobin,
)
from loadwise.context import EMPTY
from loadwise.load import Cell

CHECKOUT = Path(__file__).parents[1]


class LastAllowed(RoundRobin[str]):
    """A strategy that derives from one of the package's."""

    def select(self, candidates: Any, context: SelectionContext = EMPTY) -> int | None:
        first = super().select(candidates, context)
        return None if first is None else max(candidates.eligible)


class Doubled(PeakEwma):
    """A measure that derives from one of the package's."""

    def load(self, cell: Cell) -> float:
        return 2.0 * super().load(cell)


class Named(Balancer[str]):
    """A balancer with a method and an attribute more."""

    def pick_twice(self) -> tuple[str, str]:
        self.asked = True
        return self.pick(), self.pick()


def closed_lease() -> object:
    """Return a lease that has ended."""
    lease = Balancer(["a"]).acquire()
    lease.success()
    return lease


REFERRED_TO: dict[str, Callable[[], object]] = {
    "Balancer": lambda: Balancer(["a"]),
    "Lease": closed_lease,
    "RoundRobin": RoundRobin,
    "WeightedRoundRobin": WeightedRoundRobin,
    "Random": Random,
    "WeightedRandom": WeightedRandom,
    "ConsistentHash": ConsistentHash,
    "Maglev": Maglev,
    "Sticky": lambda: Sticky(Maglev()),
    "BoundedLoads": lambda: BoundedLoads(Maglev()),
    "Rendezvous": Rendezvous,
    "JumpHash": JumpHash,
    "PowerOfTwoChoices": lambda: PowerOfTwoChoices(load=InFlight()),
    "LeastLoad": lambda: LeastLoad(load=PeakEwma()),
    "FallbackChain": lambda: FallbackChain([RoundRobin()]),
    "Filtered": lambda: Filtered(RoundRobin(), lambda _: True),
    "InFlight": InFlight,
    "PeakEwma": PeakEwma,
    "a strategy of one's own": LastAllowed,
    "a measure of one's own": Doubled,
    "a balancer of one's own": lambda: Named(["a"]),
}


@pytest.mark.skipif(os.environ.get("LOADWISE_COMPILE") != "1", reason="run by make test-compiled")
def test_what_is_tested_is_compiled() -> None:
    """The tests of the compiled form see the compiled form."""
    assert COMPILED


@pytest.mark.parametrize("name", REFERRED_TO)
def test_weak_references_end_with_what_they_refer_to(name: str) -> None:
    """They read as gone, tell so once, and leave no entry in weak containers."""
    thing: Any = REFERRED_TO[name]()
    told: list[str] = []
    reference = weakref.ref(thing, lambda _: told.append(name))
    known = weakref.WeakSet([thing])
    values = weakref.WeakValueDictionary({name: thing})
    gc.collect()
    assert reference() is thing
    del thing
    gc.collect()
    assert reference() is None
    assert told == [name]
    assert not len(known)
    assert not values


def test_weak_references_end_in_cycles() -> None:
    """So they do where only the collector of cycles finds that a balancer is gone."""
    told: list[bool] = []
    node = type("Node", (), {"id": "a"})()
    balancer = Balancer([node])
    node.balancer = balancer
    reference = weakref.ref(balancer, lambda _: told.append(True))
    del node, balancer
    gc.collect()
    assert reference() is None
    assert told == [True]


def test_classes_of_ones_own_derive_from_those_of_the_package() -> None:
    """What they override is called, from inside the package, too; what they add works."""
    balancer = Named(["a", "b", "c"], LastAllowed())
    assert balancer.pick_twice() == ("c", "c")
    assert balancer.asked
    with balancer.acquire() as lease:
        assert lease.node == "c"
    measure = Doubled()
    with Balancer(["a"], LeastLoad(load=measure)).acquire():
        assert measure.load(measure.cell("a")) == 2e100


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        RoundRobin,
        lambda: Filtered(RoundRobin(), HealthFilter.available(HealthTracker())),
        lambda: PowerOfTwoChoices(load=InFlight()),
    ],
    ids=["RoundRobin", "Filtered", "PowerOfTwoChoices"],
)
def test_snapshots_go_while_others_pick(make: Callable[[], Any]) -> None:
    """What a pick reads may be replaced, and die, at any moment; its death runs Python code."""
    strategy = make()
    wrong: list[object] = []

    def pick() -> None:
        for _ in range(2_000):
            nodes = NodeSet(["a", "b", "c"])
            found = {strategy.select(nodes) for _ in range(5)}
            if not found <= {0, 1, 2}:
                wrong.append(found)

    together([pick] * 4)
    assert wrong == []


@pytest.mark.slow
def test_views_go_while_others_pick() -> None:
    """So it is with a balancer whose members and whose health change all the time."""
    policy = ConsecutiveFailurePolicy(failure_threshold=1, recovery_successes=1)
    balancer = Balancer(["a", "b", "c"], health=HealthTracker(policy))
    assert balancer.health is not None
    health = balancer.health

    def send() -> None:
        for _ in range(10_000):
            with balancer.acquire():
                pass

    def flap() -> None:
        for turn in range(2_000):
            health.report_failure("a")
            health.remove("a")
            balancer.replace(["a", "b", f"c{turn}"])

    together([send, send, send, flap])
    assert all(status.in_flight == 0 for status in balancer.status())


def together(works: list[Callable[[], None]]) -> None:
    """Do all of it at the same time; fail where one fails or does not end."""
    failures: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [Thread(target=run, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    finally:
        sys.setswitchinterval(before)
    assert not any(thread.is_alive() for thread in threads)
    for failure in failures:
        raise failure


def build_wheel(
    folder: Path, switch: str, path: str = "", *options: str
) -> subprocess.CompletedProcess[str]:
    """Try to build a wheel into ``folder``."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", *options]
    return subprocess.run(
        [*command, "--outdir", str(folder)],
        cwd=CHECKOUT,
        env={**os.environ, "LOADWISE_COMPILE": switch, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_switch_takes_one_or_nothing(tmp_path: Path) -> None:
    """Another value is refused by name, before anything is built."""
    done = build_wheel(tmp_path, "yes")
    assert done.returncode != 0
    assert "LOADWISE_COMPILE is 'yes'; it must be 1 to compile, or 0" in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_another_release_of_the_compiler_is_refused(tmp_path: Path) -> None:
    """What it writes might not be mended, and nobody would be told; pip asks for no release."""
    other = tmp_path / "path" / "mypy-0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: mypy\nVersion: 0.1\n")
    out = tmp_path / "out"
    done = build_wheel(out, "1", str(other.parent), "--skip-dependency-check")
    assert done.returncode != 0
    assert "mypy is 0.1; compiling needs 2.4.1" in done.stdout + done.stderr
    assert not out.exists() or list(out.iterdir()) == []
