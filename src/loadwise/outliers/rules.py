"""Rules by which a sweep finds nodes that do worse than the rest.

A rule is asked for all nodes that are not ejected and have had results since the last sweep. It
returns those to be ejected, the worst first, with the reason in words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from loadwise._numbers import finite, whole
from loadwise.outliers.significance import chance_of_share

__all__ = ["FailureShare", "Outlier", "Sample", "SlowShare", "SuccessRate"]

_FEWEST: Final = 2
"""So few nodes can be compared at all."""


class Sample(NamedTuple):
    """One node's results in an interval.

    Attributes:
        good: Requests that ended well.
        bad: Requests that failed.
        slow: Those of the good that took too long.
    """

    good: int
    bad: int
    slow: int = 0

    @property
    def total(self) -> int:
        """Requests that ended well or failed."""
        return self.good + self.bad


class Outlier(NamedTuple):
    """Outlier that a rule has found.

    Attributes:
        which: Number of its sample.
        why: Why, in words.
    """

    which: int
    why: str


@dataclass(frozen=True, slots=True)
class SuccessRate:
    """Rule for nodes whose success rate lies far below the others'.

    A node is an outlier if its rate is below the mean of all nodes' rates minus so many standard
    deviations (of the population). With ``significance`` it must also fail significantly more than
    the rest. Where fewer than ``min_nodes`` nodes have enough requests, that alone decides.

    Args:
        stdev_factor: Standard deviations below the mean, finite and >= 0.
        min_nodes: So many nodes must have enough requests, >= 1, for the mean to mean anything.
        min_requests: Requests of an interval that are enough, >= 1. A node with fewer is not
            judged.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range.

    Immutable, so thread-safe.

    Cost: O(nodes) per sweep.

    Source: Envoy's success rate outlier detection.
    """

    stdev_factor: float = 1.9
    min_nodes: int = 5
    min_requests: int = 100

    def __post_init__(self) -> None:
        factor = finite("stdev_factor", self.stdev_factor)
        if not factor >= 0:
            raise ValueError(
                f"stdev_factor is {self.stdev_factor!r}; it must be a finite number, at least 0"
            )
        object.__setattr__(self, "stdev_factor", factor)
        _check_least(self)

    def find(self, samples: Sequence[Sample], significance: float | None) -> list[Outlier]:
        """Return the outliers, the worst first."""
        judged = [i for i, each in enumerate(samples) if each.total >= self.min_requests]
        rates = {i: 100.0 * samples[i].good / samples[i].total for i in judged}
        below, than = math.inf, "that of the others"
        if len(judged) >= self.min_nodes:
            mean = sum(rates.values()) / len(rates)
            variance = sum((rate - mean) ** 2 for rate in rates.values()) / len(rates)
            below = mean - self.stdev_factor * math.sqrt(variance)
            than = f"{_percent(below)} (mean {_percent(mean)}, {len(rates)} nodes)"
        elif significance is None:
            return []
        low = [i for i in judged if rates[i] < below]
        counts = [(each.bad, each.total) for each in samples]
        kept = _significant(low, counts, len(judged), significance)
        kept.sort(key=lambda i: rates[i])
        return [Outlier(i, f"success rate {_percent(rates[i])} is below {than}") for i in kept]


@dataclass(frozen=True, slots=True)
class FailureShare:
    """Rule for nodes that fail a given share of their requests.

    With ``significance`` a node must also fail significantly more than the rest; and then fewer
    than ``min_nodes`` nodes with enough requests are judged, too.

    Args:
        threshold: Share of failed requests that makes an outlier, above 0 and at most 1.
        min_nodes: As for `SuccessRate`.
        min_requests: As for `SuccessRate`.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range.

    Immutable, so thread-safe.

    Cost: O(nodes) per sweep.

    Source: Envoy's failure percentage outlier detection.
    """

    threshold: float = 0.85
    min_nodes: int = 5
    min_requests: int = 50

    def __post_init__(self) -> None:
        _check_share(self)
        _check_least(self)

    def find(self, samples: Sequence[Sample], significance: float | None) -> list[Outlier]:
        """Return the outliers, the worst first."""
        bads = [(each.bad, each.total) for each in samples]
        kept = _over(bads, self.threshold, self.min_nodes, self.min_requests, significance)
        return [
            Outlier(
                i,
                f"{_percent(100.0 * bads[i][0] / bads[i][1])} of {bads[i][1]} requests failed, at "
                f"least {_percent(100.0 * self.threshold)}",
            )
            for i in kept
        ]


@dataclass(frozen=True, slots=True)
class SlowShare:
    """Rule for nodes that are slow without failing.

    A request is slow if it ended well but took more than ``factor`` times the fleet's median: that
    of the nodes' average latencies, as of the sweep before. A node is an outlier if a given share
    of its good answers is slow. ``significance`` and ``min_nodes`` are as for `FailureShare`.
    Latencies of streams are up to their first byte.

    Args:
        factor: How many times the median is slow, finite and > 1.
        threshold: Share of slow answers that makes an outlier, above 0 and at most 1.
        min_nodes: As for `SuccessRate`.
        min_requests: Good answers of an interval that are enough, >= 1.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range.

    Immutable, so thread-safe.

    Cost: O(nodes * log(nodes)) per sweep, and one call for each request that ends well.
    """

    factor: float = 3.0
    threshold: float = 0.5
    min_nodes: int = 5
    min_requests: int = 50

    def __post_init__(self) -> None:
        factor = finite("factor", self.factor)
        if not factor > 1:
            raise ValueError(f"factor is {self.factor!r}; it must be a finite number above 1")
        object.__setattr__(self, "factor", factor)
        _check_share(self)
        _check_least(self)

    def limit(self, latencies: Iterable[float]) -> float:
        """Return the latency above which a request is slow, given the nodes' average latencies."""
        ordered = sorted(latencies)
        if len(ordered) < _FEWEST:
            return math.inf
        middle = len(ordered) // 2
        median = (ordered[middle] + ordered[-1 - middle]) / 2.0
        return self.factor * median

    def find(self, samples: Sequence[Sample], significance: float | None) -> list[Outlier]:
        """Return the outliers, the worst first."""
        slow = [(min(each.slow, each.good), each.good) for each in samples]
        kept = _over(slow, self.threshold, self.min_nodes, self.min_requests, significance)
        return [
            Outlier(
                i,
                f"{_percent(100.0 * slow[i][0] / slow[i][1])} of {slow[i][1]} answers took more "
                f"than {self.factor:g} times the median, at least "
                f"{_percent(100.0 * self.threshold)}",
            )
            for i in kept
        ]


def _over(
    counts: Sequence[tuple[int, int]],
    threshold: float,
    min_nodes: int,
    min_requests: int,
    significance: float | None,
) -> list[int]:
    """Return who has at least a share of marked results, by index, the worst first.

    Args:
        counts: The marked results of each node, and all of them.
        threshold: The share.
        min_nodes: As for `SuccessRate`.
        min_requests: As for `SuccessRate`.
        significance: As for `OutlierDetection`.
    """
    judged = [i for i, (_, total) in enumerate(counts) if total >= min_requests]
    if significance is None and len(judged) < min_nodes:
        return []
    high = [i for i in judged if counts[i][0] / counts[i][1] >= threshold]
    kept = _significant(high, counts, len(judged), significance)
    return sorted(kept, key=lambda i: -counts[i][0] / counts[i][1])


def _significant(
    suspects: list[int],
    counts: Sequence[tuple[int, int]],
    judged: int,
    significance: float | None,
) -> list[int]:
    """Return those suspects that do significantly worse than the rest.

    The chance of each is multiplied by how many nodes are judged, which bounds the chance that any
    of them is found though all are alike.
    """
    if significance is None or not suspects:
        return suspects
    all_marked, everything = sum(bad for bad, _ in counts), sum(total for _, total in counts)
    enough = significance / judged
    found: list[int] = []
    for i in suspects:
        marked, total = counts[i]
        chance = chance_of_share(marked, total, all_marked - marked, everything - total, enough)
        if chance < enough:
            found.append(i)
    return found


def _percent(number: float) -> str:
    return f"{number:.4g} %"


def _check_share(rule: FailureShare | SlowShare) -> None:
    threshold = finite("threshold", rule.threshold)
    if not 0 < threshold <= 1:
        raise ValueError(
            f"threshold is {rule.threshold!r}; it must be a share of the requests, above 0 and at "
            f"most 1"
        )
    object.__setattr__(rule, "threshold", threshold)


def _check_least(rule: SuccessRate | FailureShare | SlowShare) -> None:
    for name in ("min_nodes", "min_requests"):
        object.__setattr__(rule, name, whole(name, getattr(rule, name), 1))
