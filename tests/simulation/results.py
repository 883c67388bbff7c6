"""Results made by hand, for the tests of what is made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from loadwise.simulation.analysis.summary import Summary, summarise
from loadwise.simulation.runs.result import RANKS, Latency, Result
from loadwise.simulation.world.timeline import Timeline

__all__ = ["latency", "result", "summary"]


def result(strategy: str = "p2c", seed: int = 1, **values: Any) -> Result:
    """Return what came of a run of 1,000 requests, all good, unless told otherwise."""
    plain = Result(
        scenario="test",
        strategy=strategy,
        seed=seed,
        arrived=1000,
        completed=1000,
        failed=0,
        dropped=0,
        in_flight=0,
        retries=0,
        hedges=0,
        timeouts=0,
        rate_limited=0,
        unhealthy_picks=0,
        seconds=10.0,
        throughput=100.0,
        latency=latency(1.0),
        quantiles=(),
        share={"a-1": 0.25, "a-2": 0.75},
        imbalance=1.5,
        jain=0.8,
        keys_moved=None,
        cache_hits=None,
        timeline=Timeline((), {}, {}, (), (), (), ()),
        wall_seconds=0.1,
        attempts=1000,
    )
    return replace(plain, **values)


def latency(mean: float) -> Latency:
    """Return latencies with this mean, and the rest as in an exponential distribution."""
    return Latency(mean, *(mean * round(-math.log(1 - rank), 1) for rank in RANKS.values()))


def summary(strategy: str, means: Sequence[float], **values: Any) -> Summary:
    """Return a contender with a run for each mean latency; a list is a value for each run."""
    runs = [
        result(
            strategy,
            seed,
            latency=latency(mean),
            **{
                name: value[seed - 1] if isinstance(value, list) else value
                for name, value in values.items()
            },
        )
        for seed, mean in enumerate(means, 1)
    ]
    return summarise(strategy, runs)
