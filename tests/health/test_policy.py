"""The table of the four states, and what the policy refuses to be made from."""

from __future__ import annotations

import math
from typing import Any

import pytest

from loadwise import ConsecutiveFailurePolicy, HealthStatus, NodeHealth, Outcome

HEALTHY, DEGRADED = HealthStatus.HEALTHY, HealthStatus.DEGRADED
UNHEALTHY, RECOVERING = HealthStatus.UNHEALTHY, HealthStatus.RECOVERING


@pytest.mark.parametrize(
    ("threshold", "states"),
    [
        (1, [UNHEALTHY]),
        (2, [DEGRADED, UNHEALTHY]),
        (3, [HEALTHY, DEGRADED, UNHEALTHY]),
        (5, [HEALTHY, HEALTHY, DEGRADED, DEGRADED, UNHEALTHY]),
    ],
)
def test_failures_in_a_row(threshold: int, states: list[HealthStatus]) -> None:
    """DEGRADED comes at ceil(threshold / 2) failures, UNHEALTHY at threshold (design, 2)."""
    policy = ConsecutiveFailurePolicy(failure_threshold=threshold)
    status = HEALTHY
    for failures, expected in enumerate(states, start=1):
        health = NodeHealth("a", status, consecutive_failures=failures)
        status = policy.next_status(health, Outcome.FAILURE)
        assert status is expected, f"after {failures} failures"


@pytest.mark.parametrize(
    ("recovery", "states"),
    [(1, [HEALTHY]), (2, [RECOVERING, HEALTHY]), (3, [RECOVERING, RECOVERING, HEALTHY])],
)
def test_successes_in_a_row(recovery: int, states: list[HealthStatus]) -> None:
    """The success that ends UNHEALTHY counts towards recovery_successes (design, 2)."""
    policy = ConsecutiveFailurePolicy(recovery_successes=recovery)
    status = UNHEALTHY
    for successes, expected in enumerate(states, start=1):
        health = NodeHealth("a", status, consecutive_successes=successes)
        status = policy.next_status(health, Outcome.SUCCESS)
        assert status is expected, f"after {successes} successes"


@pytest.mark.parametrize(
    ("status", "failures", "outcome", "expected"),
    [
        (HEALTHY, 0, Outcome.SUCCESS, HEALTHY),
        (DEGRADED, 0, Outcome.SUCCESS, HEALTHY),
        (DEGRADED, 2, Outcome.FAILURE, DEGRADED),
        (UNHEALTHY, 4, Outcome.FAILURE, UNHEALTHY),
        (RECOVERING, 1, Outcome.FAILURE, UNHEALTHY),
    ],
)
def test_single_steps(
    status: HealthStatus, failures: int, outcome: Outcome, expected: HealthStatus
) -> None:
    """The other rows of the table: one success ends DEGRADED, one failure ends RECOVERING."""
    policy = ConsecutiveFailurePolicy(failure_threshold=3, recovery_successes=2)
    successes = int(outcome is Outcome.SUCCESS)
    health = NodeHealth("a", status, failures, successes)
    assert policy.next_status(health, outcome) is expected


def test_defaults() -> None:
    """The defaults are those of the design: 3 failures, 2 successes, 10 seconds."""
    assert ConsecutiveFailurePolicy() == ConsecutiveFailurePolicy(
        3, 2, 10.0, probe_backoff=1.0, max_probe_interval=300.0, jitter=0.0
    )


@pytest.mark.parametrize("name", ["failure_threshold", "recovery_successes"])
@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError), ("3", TypeError)]
)
def test_refuses_counts_that_make_no_sense(
    name: str, value: object, error: type[Exception]
) -> None:
    """A count below 1 or not an int is refused with its name and value."""
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(error, match=rf"{name} is '?{value}'?; it must be"):
        ConsecutiveFailurePolicy(**arguments)


@pytest.mark.parametrize("name", ["probe_interval", "max_probe_interval"])
@pytest.mark.parametrize("value", [-0.5, math.nan, math.inf])
def test_refuses_an_interval_that_makes_no_sense(name: str, value: float) -> None:
    """An interval that is negative, NaN or infinite is refused with its name and value."""
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be a finite"):
        ConsecutiveFailurePolicy(**arguments)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("probe_backoff", 0.5),
        ("probe_backoff", math.inf),
        ("jitter", -0.1),
        ("jitter", 1.5),
        ("jitter", math.nan),
    ],
)
def test_refuses_a_spread_that_makes_no_sense(name: str, value: float) -> None:
    """A backoff below 1 would ask ever more often; a jitter is a share."""
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be"):
        ConsecutiveFailurePolicy(**arguments)


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        (ConsecutiveFailurePolicy(), [10.0, 10.0, 10.0, 10.0]),
        (ConsecutiveFailurePolicy(probe_backoff=2.0), [10.0, 20.0, 40.0, 80.0]),
        (
            ConsecutiveFailurePolicy(probe_backoff=3.0, max_probe_interval=50.0),
            [10.0, 30.0, 50.0, 50.0],
        ),
        (
            ConsecutiveFailurePolicy(
                probe_interval=60.0, probe_backoff=2.0, max_probe_interval=30.0
            ),
            [60.0, 60.0, 60.0, 60.0],
        ),
        (ConsecutiveFailurePolicy(probe_backoff=2.0, jitter=0.5), [12.5, 25.0, 50.0, 100.0]),
    ],
)
def test_the_wait_grows_with_each_failed_probe(
    policy: ConsecutiveFailurePolicy, delays: list[float]
) -> None:
    """It is multiplied by the backoff up to the maximum, and then lengthened by the jitter."""
    assert [policy.probe_delay(failed, lambda: 0.5) for failed in range(4)] == delays


@pytest.mark.parametrize("backoff", [1.0 + 1e-12, 2.0, 1e300])
def test_the_wait_stays_finite_however_long_a_node_is_dead(backoff: float) -> None:
    """A million failed probes, or a huge backoff, end at the maximum and not in an overflow."""
    policy = ConsecutiveFailurePolicy(probe_backoff=backoff)
    assert 10.0 <= policy.probe_delay(10**6, lambda: 0.0) <= 300.0
