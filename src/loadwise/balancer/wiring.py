"""How the arguments of a balancer become its parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from inspect import iscoroutinefunction
from typing import Any, cast

from loadwise._numbers import is_finite
from loadwise.balancer.failures import FailureRule, Failures
from loadwise.clock import Clock
from loadwise.health import HealthTracker
from loadwise.load import InFlight, LoadMeasure
from loadwise.metrics import GuardedCollector, MetricsCollector, NoopCollector
from loadwise.quota import QuotaSource

__all__ = [
    "Unchanging",
    "as_failures",
    "as_tracker",
    "check_hung_after",
    "check_quota",
    "first_clock",
    "guarded",
    "with_counter",
]

HealthArgument = HealthTracker | bool | None


class Unchanging:
    """Stands in for a tracker where there is none: its version is always that of any view."""

    version = 0


def check_quota(quota: object) -> None:
    """Raise ``TypeError`` unless ``quota`` is a `QuotaSource`, or nothing."""
    if quota is None:
        return
    try_acquire = getattr(quota, "try_acquire", None)
    if isinstance(quota, type) or not callable(try_acquire):
        raise TypeError(f"quota is {quota!r}; it must be a QuotaTracker, or another QuotaSource")
    if iscoroutinefunction(try_acquire):
        # What it returns would pass for a reservation.
        raise TypeError(
            f"quota is {quota!r}, whose try_acquire is to be awaited; a pick cannot wait: give the "
            f"balancer where=QuotaFilter(quota), and await try_acquire yourself"
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
        if iscoroutinefunction(given) or iscoroutinefunction(type(given).__call__):
            # What it returns would be neither an outcome nor a bool.
            raise TypeError(
                f"failures is {given!r}, which is to be awaited; the end of a block cannot wait: "
                f"give a function that returns an Outcome or a bool"
            )
    return Failures(rule)


def _is_kind(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def check_hung_after(seconds: float | None) -> None:
    """Raise unless ``seconds`` is a finite number above 0, or ``None``."""
    if seconds is not None and not (is_finite("hung_after", seconds) and seconds > 0):
        raise ValueError(
            f"hung_after is {seconds!r}; it must be a finite number of seconds above 0, or None"
        )


def first_clock(clock: Clock | None, health: HealthArgument, quota: QuotaSource | None) -> Clock:
    """Return the clock that was given, to the balancer itself or else to a tracker of its."""
    if clock is not None:
        return clock
    if isinstance(health, HealthTracker):
        return health.clock
    return time.monotonic if quota is None else quota.clock


def as_tracker(health: HealthArgument, clock: Clock) -> HealthTracker | None:
    """Return the tracker to use, if any."""
    if health is True:
        return HealthTracker(clock=clock)
    if health is None or health is False:
        return None
    if not isinstance(health, HealthTracker):
        raise TypeError(f"health is {health!r}; it must be a HealthTracker, True, False or None")
    return health


def with_counter(measures: Iterable[LoadMeasure]) -> tuple[LoadMeasure, ...]:
    """Return the measures without repetition, and one that counts where there is none."""
    distinct = tuple({id(measure): measure for measure in measures}.values())
    return distinct or (InFlight(),)


def guarded(
    metrics: MetricsCollector | None,
    balancer: object,
) -> GuardedCollector | None:
    """Return a collector whose errors harm nobody, or ``None`` where there is nothing to tell.

    A collector that wants to know whose events it gets has a method ``attach(balancer)``, which
    returns the collector to use for that balancer.
    """
    if metrics is None or type(metrics) is NoopCollector:
        return None
    attach: Callable[[object], MetricsCollector] | None = getattr(metrics, "attach", None)
    if attach is None or isinstance(metrics, type):
        return GuardedCollector(metrics)
    return GuardedCollector(attach(balancer))
