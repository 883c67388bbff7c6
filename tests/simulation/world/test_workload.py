"""The requests of a run."""

from __future__ import annotations

import tracemalloc
from collections import Counter, deque
from math import sqrt
from pathlib import Path

import pytest
from tests.simulation.support import fleet

from loadwise.simulation.scenario import (
    Clients,
    Constant,
    Deterministic,
    Poisson,
    Scenario,
    Tokens,
    Trace,
)
from loadwise.simulation.world.workload import Workload


def test_the_same_seed_gives_the_same_requests_and_another_others() -> None:
    """Arrivals, service and keys are streams of their own, from the seed alone."""
    scenario = fleet(requests=100, clients=Clients(keys=5))
    assert list(Workload(scenario, 3)) == list(Workload(scenario, 3))
    assert list(Workload(scenario, 3)) != list(Workload(scenario, 4))
    one, other = Workload(scenario, 3), Workload(fleet(requests=100), 3)
    assert [job[:2] for job in one] == [job[:2] for job in other]


def test_the_load_sets_the_rate() -> None:
    """A load of 0.5 on 4 servers of mean 0.1 s is 20 requests per second."""
    workload = Workload(fleet(load=0.5, service=Deterministic(mean=0.1), requests=100), 1)
    assert (workload.rate, workload.seconds, workload.requests) == (20.0, 5.0, 100)
    assert len(list(workload)) == 100


def test_a_rate_goes_before_the_load() -> None:
    """Arrivals that name their rate are not scaled."""
    workload = Workload(fleet(load=0.5, arrivals=Poisson(rate=7.0), requests=70), 1)
    assert (workload.rate, workload.seconds) == (7.0, 10.0)


def test_keys_are_even_or_skewed() -> None:
    """With skew 1 the k-th key is k times rarer than the first; bounds are five standard errors."""
    many = 20_000
    even = Counter(key for _, _, key, _ in Workload(keyed(many, 0.0), 1))
    assert len(even) == 10
    assert all(abs(count - many / 10) < 5 * sqrt(many / 10) for count in even.values())
    skewed = Counter(key for _, _, key, _ in Workload(keyed(many, 1.0), 1))
    whole = sum(1 / rank for rank in range(1, 11))
    for rank in range(1, 11):
        expected = many / rank / whole
        assert skewed[f"key-{rank - 1}"] == pytest.approx(expected, abs=5 * sqrt(expected))


def keyed(requests: int, skew: float) -> Scenario:
    """Return a scenario whose requests have ten keys."""
    return fleet(requests=requests, clients=Clients(keys=10, skew=skew))


def test_tokens_are_not_kept() -> None:
    """What has been read is gone, however many requests there are: some 120 bytes of each."""
    scenario = fleet(service=Tokens(), requests=20_000)
    tracemalloc.start()
    try:
        last = [*deque(Workload(scenario, 1), maxlen=1)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(last) == 1
    assert peak < 100_000


def test_a_trace_brings_times_and_costs(tmp_path: Path) -> None:
    """Recorded costs are tokens, or seconds of work; the trace ends the run if it is shorter."""
    path = tmp_path / "trace.csv"
    path.write_text("when,in,out\n10,1000,10\n11,2000,20\n14,500,5\n", encoding="utf-8")
    arrivals = Trace(file=str(path), time="when", cost=("in", "out"), speed=2.0)
    tokens = fleet(arrivals=arrivals, service=Tokens(prefill=1000.0, decode=10.0))
    assert list(Workload(tokens, 1)) == [
        (0.0, 2.0, None, (1000.0, 10.0)),
        (0.5, 4.0, None, (2000.0, 20.0)),
        (2.0, 1.0, None, (500.0, 5.0)),
    ]
    seconds = fleet(arrivals=Trace(file=str(path), time="when", cost=("out",)), requests=2)
    assert list(Workload(seconds, 1)) == [(0.0, 10.0, None, None), (1.0, 20.0, None, None)]
    workload = Workload(fleet(arrivals=Trace(file=str(path), time="when")), 1)
    assert (workload.requests, workload.seconds) == (3, 4.0)
    assert len({work for _, work, _, _ in workload}) == 3


def test_constant_arrivals() -> None:
    """They are those of the stream."""
    scenario = fleet(arrivals=Constant(rate=2.0), service=Deterministic(mean=1.0), requests=2)
    assert list(Workload(scenario, 1)) == [(0.5, 1.0, None, None), (1.0, 1.0, None, None)]
