"""Costs and ages of all processes: who is chosen is who has the lower load, whatever happened."""

from __future__ import annotations

import math
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.shared_memory.workers import until, worker

from loadwise import Balancer, Lease, PeakEwma, PowerOfTwoChoices
from loadwise.shared_memory import HostState
from loadwise.shared_memory._layout import MemoryLayout
from loadwise.shared_memory.virtual_host import VirtualHost
from loadwise.testing import ManualClock

PROCESSES = 3
STEPS = st.tuples(
    st.sampled_from(["acquire", "succeed", "fail", "cancel", "first byte"]),
    st.integers(0, PROCESSES - 1),
    st.floats(0.0001, 30.0),
)


def ended(kind: str, lease: Lease[str]) -> None:
    """End a lease in some way."""
    if kind == "fail":
        lease.failure("it broke")
    elif kind == "cancel":
        lease.cancel()
    else:
        lease.success()


LAST = [("end all", who, 1.0) for who in range(PROCESSES)]


@given(st.lists(STEPS, max_size=20))
def test_the_lower_load_is_chosen(steps: list[tuple[str, int, float]]) -> None:
    """Each process chooses by what all have measured, and what waits in all of them."""
    clock = ManualClock(1000.0)
    host = VirtualHost(clock, processes=PROCESSES, nodes=2)
    balancers = [
        Balancer(
            ["a", "b"],
            PowerOfTwoChoices(load=PeakEwma()),
            clock=clock,
            health=None,
            host=process,
        )
        for process in host.processes
    ]
    leases: list[list[Lease[str]]] = [[] for _ in balancers]
    for kind, who, seconds in [*steps, *LAST]:
        held = leases[who]
        if kind == "end all":
            while held:
                held.pop().success()
        elif kind == "acquire" or not held:
            held.append(balancers[who].acquire())
        elif kind == "first byte":
            held[0].first_byte()
        else:
            ended(kind, held.pop(0))
        clock.advance(seconds)
        for balancer in balancers:
            load = {node: seen["load"] for node, seen in balancer.explain().seen.items()}
            chosen = balancer.pick()
            other = load["b" if chosen == "a" else "a"]
            assert load[chosen] <= other or math.isclose(load[chosen], other)


def cost_of(balancer: Balancer[str], node: str) -> float:
    """Return the load of a node that is idle."""
    balancer.pick()
    return balancer.explain().seen[node]["load"]


@pytest.mark.parametrize("forged", [0.0, math.nan, 1100.0, -5.0, math.inf])
def test_a_peak_that_others_have_written_over_is_put_right(path: Path, forged: float) -> None:
    """It holds for as long as it takes to look, and what cannot be is not believed at all."""
    balancer = Balancer(["a"], PowerOfTwoChoices(load=PeakEwma()), host=HostState(path))
    lease = balancer.acquire()
    time.sleep(0.02)
    lease.success()
    true = cost_of(balancer, "a")
    layout = MemoryLayout(64, 4096)
    with path.open("r+b") as file:
        file.seek(layout.block_of(0) + layout.peak)
        file.write(struct.pack("=d", forged))
    until(lambda: 0.9 * true < cost_of(balancer, "a") <= true)


def test_the_cost_of_one_that_has_died_goes_with_it(path: Path) -> None:
    """What the dead process measured holds until its row is cleared, and what others did stays."""
    balancer = Balancer(["a"], PowerOfTwoChoices(load=PeakEwma()), host=HostState(path))
    balancer.acquire().success()
    alone = cost_of(balancer, "a")
    with worker(path, "a", measure="ewma") as other:
        other.tell("acquire", 1)
        time.sleep(0.05)
        other.tell("succeed", "a")
        assert cost_of(balancer, "a") > 0.04
    until(lambda: cost_of(balancer, "a") <= alone)
