"""Parts of a balancer, made of the tables that describe them."""

from __future__ import annotations

from random import Random
from typing import TypeVar

from loadwise._tables.records import Health, Outliers, SlowStartTable
from loadwise.balancer import SlowStart
from loadwise.clock import Clock
from loadwise.health import ConsecutiveFailurePolicy, HealthTracker
from loadwise.outliers import FailureShare, OutlierDetection, SlowShare, SuccessRate

__all__ = ["given", "health_tracker", "outlier_detection", "slow_start"]

T = TypeVar("T")


def given(value: T | str) -> T | None:
    """Return a value that may be ``"none"`` in a table."""
    return None if isinstance(value, str) else value


def health_tracker(table: Health, clock: Clock, rng: Random | None) -> HealthTracker:
    """Return what tracks health as a table says."""
    policy = ConsecutiveFailurePolicy(
        table.failure_threshold,
        table.recovery_successes,
        table.probe_interval,
        table.probe_backoff,
        table.max_probe_interval,
        table.jitter,
    )
    return HealthTracker(policy, clock, rng)


def outlier_detection(table: Outliers, rng: Random | None) -> OutlierDetection:
    """Return what ejects outliers as a table says.

    Raises:
        ValueError: Its values do not go together.
    """
    deviations, share = given(table.stdev_factor), given(table.failure_share)
    slow, nodes = given(table.slow_factor), table.min_nodes
    many, fewer = table.min_requests or 100, table.min_requests or 50
    return OutlierDetection(
        interval=table.interval,
        base_ejection=table.base_ejection,
        max_ejection=table.max_ejection,
        jitter=table.jitter,
        max_ejected=table.max_ejected,
        consecutive_failures=given(table.consecutive_failures),
        success_rate=None if deviations is None else SuccessRate(deviations, nodes, many),
        failure_share=None if share is None else FailureShare(share, nodes, fewer),
        slow_share=None if slow is None else SlowShare(slow),
        significance=given(table.significance),
        probe=table.probe,
        rng=rng,
    )


def slow_start(table: SlowStartTable) -> SlowStart:
    """Return the slow start that a table describes."""
    return SlowStart(table.window, table.aggression, table.min_weight)
