"""Whatever happens to a fleet: no request is lost or made up, and a seed says all.

`simulate` itself raises `ConservationError` when the counts do not add up.
"""

from __future__ import annotations

import gc
import warnings
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from loadwise._tables.contenders import STRATEGIES
from loadwise.simulation.errors import ScenarioError
from loadwise.simulation.runs.engine import simulate
from loadwise.simulation.runs.result import Result
from loadwise.simulation.scenario import (
    Add,
    Bursty,
    Callers,
    Clients,
    Constant,
    Crash,
    Deterministic,
    Drain,
    Exponential,
    Fail,
    Fault,
    Flap,
    Group,
    Hang,
    Health,
    Network,
    Pareto,
    Poisson,
    Quota,
    Ramp,
    RestartClients,
    Scenario,
    Servers,
    Slow,
    Tokens,
)
from loadwise.simulation.scenario.consistency import check, check_strategy

pytestmark = pytest.mark.slow

MOMENTS = st.integers(0, 100).map("{}%".format)
LENGTHS = st.integers(1, 100).map("{}%".format)
MAYBE_LENGTHS = st.none() | LENGTHS
SERVERS = st.sampled_from([("a",), ("b",), ("a-1",), ("a-2", "b-1"), ("a", "b")])
FAULTS: st.SearchStrategy[Fault] = st.one_of(
    st.builds(Crash, servers=SERVERS, at=MOMENTS, lasts=MAYBE_LENGTHS),
    st.builds(Slow, servers=SERVERS, at=MOMENTS, lasts=MAYBE_LENGTHS, factor=st.just(5.0)),
    st.builds(
        Fail,
        servers=SERVERS,
        at=MOMENTS,
        lasts=MAYBE_LENGTHS,
        probability=st.floats(0.0, 1.0),
        after=st.sampled_from([0.0, 0.1]),
    ),
    st.builds(Hang, servers=SERVERS, at=MOMENTS, lasts=MAYBE_LENGTHS),
    st.builds(Flap, servers=SERVERS, at=MOMENTS, down=LENGTHS, up=LENGTHS, lasts=MAYBE_LENGTHS),
    st.builds(Drain, servers=SERVERS, at=MOMENTS),
    st.builds(RestartClients, at=MOMENTS),
    st.builds(Add, at=MOMENTS, group=st.just(Group(name="c", count=2, queue_limit=1))),
)


def at_most_one_joins(faults: list[Fault]) -> bool:
    """Whether the ids of those who join differ."""
    return sum(isinstance(fault, Add) for fault in faults) < 2


SCENARIOS = st.builds(
    Scenario,
    name=st.just("any"),
    about=st.just(""),
    requests=st.integers(1, 150),
    load=st.floats(0.1, 3.0),
    warmup=st.sampled_from([0.0, 0.3]),
    tau=st.just(5.0),
    servers=st.builds(
        Servers,
        cache=st.sampled_from([0, 3]),
        groups=st.tuples(
            st.builds(
                Group,
                name=st.just("a"),
                count=st.just(2),
                parallelism=st.integers(1, 3),
                queue_limit=st.none() | st.integers(0, 4),
            ),
            st.builds(Group, name=st.just("b"), speed=st.sampled_from([0.5, 3.0])),
        ),
    ),
    arrivals=st.sampled_from([Poisson(), Constant(), Bursty(), Ramp()]),
    service=st.sampled_from([Exponential(), Deterministic(), Pareto(), Tokens()]),
    clients=st.builds(
        Clients,
        count=st.integers(1, 3),
        stagger=st.sampled_from([0.0, 5.0]),
        keys=st.just(7),
        skew=st.sampled_from([0.0, 1.0]),
    ),
    network=st.sampled_from([Network(), Network(delay=0.2)]),
    callers=st.builds(
        Callers,
        timeout=st.none() | st.floats(0.1, 5.0),
        attempts=st.integers(1, 4),
        budget=st.sampled_from([0.0, 0.2]),
        hedge=st.none() | st.floats(0.1, 3.0),
    ),
    health=st.builds(Health, enabled=st.booleans(), probe_interval=st.floats(0.1, 10.0)),
    quotas=st.sampled_from(
        [(), (Quota(name="rpm", limit=20, window=5.0),), (Quota(name="rpm", limit=9, aware=False),)]
    ),
    faults=st.lists(FAULTS, max_size=3).filter(at_most_one_joins).map(tuple),
)
NAMES = st.sampled_from([*STRATEGIES, "p2c/no-health"])


def outcome(result: Result) -> Any:
    """Return all of a result but what the clock on the wall says; NaN equals NaN."""
    return repr(replace(result, wall_seconds=0.0))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SCENARIOS, NAMES, st.integers(0, 3))
def test_requests_are_conserved_and_runs_repeat(scenario: Scenario, name: str, seed: int) -> None:
    """Every request ends one way, or is in flight; the same seed gives the same result."""
    try:
        check(scenario)
        check_strategy(scenario, name)
    except ScenarioError:
        reject()
    with warnings.catch_warnings():
        # A lease that is dropped without a word would say so.
        warnings.simplefilter("error")
        result = simulate(scenario, name, seed)
        gc.collect()
    ended = result.completed + result.failed + result.dropped
    assert result.arrived == scenario.requests == ended + result.in_flight
    assert result.hedges == 0 or scenario.callers.hedge is not None
    assert result.retries <= scenario.requests * (scenario.callers.attempts - 1)
    attempts = result.retries + result.hedges + result.arrived
    assert 0 <= result.unhealthy_picks <= attempts
    assert all(share >= 0 for share in result.share.values())
    assert abs(sum(result.share.values()) - 1.0) < 1e-9 or not any(result.share.values())
    assert outcome(simulate(scenario, name, seed)) == outcome(result)
