"""Outlier detection as a typed program uses it. Checked by mypy and pyright, never run."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping
from typing import assert_type

from loadwise import (
    Balancer,
    Ejection,
    FailureShare,
    OutlierDetection,
    SlowShare,
    SuccessRate,
)


def outliers_are_ejected() -> None:
    """All options, each rule left out, and what is told of ejections."""
    detection = OutlierDetection(
        interval=5,
        base_ejection=30.0,
        max_ejection=300.0,
        jitter=1.0,
        max_ejected=0.2,
        consecutive_failures=5,
        success_rate=SuccessRate(stdev_factor=1.9, min_nodes=5, min_requests=100),
        failure_share=FailureShare(threshold=0.85, min_nodes=5, min_requests=50),
        slow_share=SlowShare(factor=3.0, threshold=0.5, min_nodes=5, min_requests=50),
        significance=0.001,
        probe=False,
        rng=random.Random(1),
    )
    Balancer(["a", "b"], outliers=detection)
    assert_type(detection.ejections, Mapping[Hashable, Ejection])
    ejection = detection.ejections["a"]
    assert_type((ejection.since, ejection.until), tuple[float, float])
    assert_type((ejection.count, ejection.reason, ejection.rule), tuple[int, str, str])
    assert_type(Balancer(["a"]).status()[0].ejected, bool)
    nothing = OutlierDetection(
        consecutive_failures=None, success_rate=None, failure_share=None, significance=None
    )
    Balancer(["a", "b"], health=False, outliers=nothing)
    Balancer(["a", "b"], outliers=None)
