"""Arguments of a balancer, checked and turned into its parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from loadwise._callables import refuse_async, refuse_async_methods
from loadwise._numbers import finite, shown
from loadwise.balancer.failure_rules import FailureRule, Failures
from loadwise.balancer.host import HostWatch
from loadwise.balancer.slow_start import SlowStart, SlowStarts
from loadwise.clock import Clock, check_clock
from loadwise.health import HealthTracker
from loadwise.load import InFlight, LoadMeasure
from loadwise.metrics import (
    GuardedCollector,
    MetricsCollector,
    NoopCollector,
    SeveralCollectors,
)
from loadwise.outliers import EjectionOnly, OutlierDetection
from loadwise.quota import QuotaSource

__all__ = [
    "Unchanging",
    "as_failures",
    "as_slow_starts",
    "as_tracker",
    "check_outliers",
    "check_quota",
    "check_same_clock",
    "checked_hung_after",
    "first_clock",
    "guarded",
    "with_counter",
]

_OF_A_QUOTA = (
    "try_acquire",
    "mark_exhausted",
    "is_available",
    "available_at",
    "unavailable",
    "next_change",
    "remaining_by_dimension",
    "cooldown_until",
    "remove",
    "clock",
    "lift",
)

HealthArgument = HealthTracker | bool | None


class Unchanging:
    """Stands in for a tracker where there is none: its version is always that of any view."""

    version = 0


def check_quota(quota: object) -> None:
    """Raise ``TypeError`` unless ``quota`` is a `QuotaSource`, or nothing."""
    if quota is None:
        return
    if isinstance(quota, type) or not callable(getattr(quota, "try_acquire", None)):
        raise TypeError(f"quota is {quota!r}; it must be a QuotaTracker, or another QuotaSource")
    if hasattr(quota, "rests_until") and not hasattr(quota, "cooldown_until"):
        raise TypeError(f"quota is {quota!r}; rename its rests_until: it is now cooldown_until")
    # What try_acquire returns would pass for a reservation.
    refuse_async_methods(
        "quota",
        quota,
        _OF_A_QUOTA,
        "a pick cannot wait: give the balancer where=QuotaFilter(quota), and await try_acquire "
        "yourself",
    )


def as_failures(rule: FailureRule) -> Failures:
    """Return what tells which exceptions are the node's."""
    given: Any = rule  # callers without a type checker give anything
    kinds = cast("tuple[object, ...]", given if isinstance(given, tuple) else (given,))
    if not all(map(_is_kind, kinds)):
        if isinstance(given, tuple | type) or not callable(given):
            raise TypeError(
                f"failures is {given!r}; it must be an exception type, a tuple of them, or a "
                f"function of an exception"
            )
        # What it returns would be neither an outcome nor a bool.
        refuse_async(
            "failures",
            given,
            "the end of a block cannot wait: give a function that returns an Outcome or a bool",
        )
    return Failures(rule)


def _is_kind(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def checked_hung_after(seconds: float | None) -> float | None:
    """Return ``seconds`` as a plain number; raise unless it is finite and above 0, or ``None``."""
    if seconds is None:
        return None
    plain = finite("hung_after", seconds)
    if not plain > 0:
        raise ValueError(
            f"hung_after is {seconds!r}; it must be a finite number of seconds above 0, or None"
        )
    return plain


def first_clock(clock: Clock | None, health: HealthArgument, quota: QuotaSource | None) -> Clock:
    """Return the clock that was given, to the balancer itself or else to a tracker of its."""
    if clock is not None:
        check_clock(clock)
        return clock
    if isinstance(health, HealthTracker):
        return health.clock
    return time.monotonic if quota is None else quota.clock


def check_same_clock(clock: Clock, parts: Mapping[str, object]) -> None:
    """Raise ``ValueError`` where a part tells the time by another clock than the balancer.

    Times of one would be compared with those of the other.

    Args:
        clock: The balancer's.
        parts: Its parts, by what they are called; those without a ``clock`` tell no time.
    """
    for name, part in parts.items():
        other = getattr(part, "clock", clock)
        if other != clock:
            raise ValueError(
                f"the balancer's clock is {shown(clock)}, but that of its {name} is "
                f"{shown(other)}; give all of them the same clock"
            )


def check_outliers(outliers: object) -> None:
    """Raise unless ``outliers`` is an `OutlierDetection` that is free, or nothing.

    Raises:
        TypeError: It is something else.
        ValueError: It belongs to another balancer.
    """
    if isinstance(outliers, OutlierDetection):
        outliers.check_free()
    elif outliers is not None:
        hint = "; give an instance" if outliers is OutlierDetection else ""
        raise TypeError(f"outliers is {shown(outliers)}; it must be an OutlierDetection{hint}")


def as_tracker(
    health: HealthArgument, clock: Clock, outliers: OutlierDetection | None
) -> HealthTracker | None:
    """Return the tracker to use, if any. Who ejects outliers needs one, if only for that."""
    if health is True:
        return HealthTracker(clock=clock)
    if health is None or health is False:
        if outliers is None:
            return None
        return HealthTracker(EjectionOnly(outliers.interval), clock)
    if not isinstance(health, HealthTracker):
        raise TypeError(f"health is {health!r}; it must be a HealthTracker, True, False or None")
    return health


def as_slow_starts(rule: object, clock: Clock, watch: HostWatch | None) -> SlowStarts | None:
    """Return what keeps the starts by a rule, if there is one.

    Raises:
        TypeError: It is no `SlowStart`.
    """
    if rule is None:
        return None
    if not isinstance(rule, SlowStart):
        raise TypeError(
            f"slow_start is {shown(rule)}; give SlowStart(window=60.0), with your own number of "
            f"seconds, or None"
        )
    return SlowStarts(rule, clock, None if watch is None else watch.share_starts)


def with_counter(measures: Iterable[LoadMeasure]) -> tuple[LoadMeasure, ...]:
    """Return the measures without repetition, and one that counts where there is none."""
    distinct = tuple({id(measure): measure for measure in measures}.values())
    return distinct or (InFlight(),)


def guarded(
    metrics: MetricsCollector | Sequence[MetricsCollector] | None,
    balancer: object,
) -> GuardedCollector | None:
    """Return a collector whose errors harm nobody, or ``None`` where there is nothing to tell.

    A collector that wants to know whose events it gets has a method ``attach(balancer)``, which
    returns the collector to use for that balancer. Of several, each is guarded by itself.

    Raises:
        TypeError: One is no collector.
        ValueError: One is given twice, and would count everything twice.
    """
    if metrics is None or type(metrics) is NoopCollector:
        return None
    if isinstance(metrics, str) or not isinstance(metrics, Sequence) or _is_collector(metrics):
        return _guarded_one(cast("MetricsCollector", metrics), balancer)
    for each in metrics:
        if sum(each is other for other in metrics) > 1:
            raise ValueError(
                f"metrics has {shown(each)} twice, which would count everything twice; give it once"
            )
    several = [_guarded_one(each, balancer) for each in metrics if type(each) is not NoopCollector]
    if len(several) > 1:
        return GuardedCollector(SeveralCollectors(several))
    return several[0] if several else None


def _is_collector(value: object) -> bool:
    return hasattr(value, "on_selection")


def _guarded_one(metrics: MetricsCollector, balancer: object) -> GuardedCollector:
    attach: Callable[[object], MetricsCollector] | None = getattr(metrics, "attach", None)
    if attach is None or isinstance(metrics, type):
        return GuardedCollector(metrics)
    refuse_async("metrics.attach", attach, "a balancer cannot wait: make it a plain function")
    return GuardedCollector(attach(balancer))
