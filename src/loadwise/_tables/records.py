"""Records of the tables that fleets and scenarios share, all frozen."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from loadwise._tables.fields import Count, NoneText, PositiveSeconds, Seconds, Share, TableRecord

__all__ = ["Health", "LimitTable", "Outliers", "Quota", "Retries", "SlowStartTable"]


class Health(TableRecord, frozen=True):
    """Health tracking of servers.

    Attributes:
        enabled: Whether it is done.
        failure_threshold: Failures in a row that make a server UNHEALTHY.
        recovery_successes: Successes in a row that make it HEALTHY again.
        probe_interval: Seconds between probes of an UNHEALTHY server.
        probe_backoff: By how much each failed probe multiplies the interval.
        max_probe_interval: Seconds that the interval grows to at most.
        jitter: Share by which each interval is lengthened at random.
        panic_threshold: Share of available servers below which a balancer is in panic, and sends to
            ailing ones, too; 0 for only when none is available, ``"none"`` for never.
        panic_window: Seconds since its last success for which a server may count as ailing; by
            default the probe interval, but at least 1 and at most 60.
    """

    enabled: bool = True
    failure_threshold: Annotated[int, Meta(ge=1, le=1000, description="a whole number")] = 3
    recovery_successes: Annotated[int, Meta(ge=1, le=1000, description="a whole number")] = 2
    probe_interval: PositiveSeconds = 10.0
    probe_backoff: Annotated[float, Meta(ge=1, le=1e6, description="a factor")] = 1.0
    max_probe_interval: Seconds = 300.0
    jitter: Share = 0.0
    panic_threshold: Share | NoneText = 0.5
    panic_window: PositiveSeconds | None = None


class Outliers(TableRecord, frozen=True):
    """Outlier ejection: what makes an outlier, and for how long it is out.

    Attributes:
        interval: Seconds between sweeps.
        base_ejection: Seconds that the first ejection of a server lasts; the second in a row lasts
            twice as long, and so on.
        max_ejection: Seconds that no ejection exceeds.
        jitter: Seconds by which each is lengthened at random, at most.
        max_ejected: Share of the servers; beyond the first, only while fewer are ejected.
        consecutive_failures: Failures in a row that eject a server at once.
        stdev_factor: Standard deviations below the mean success rate that make an outlier.
        failure_share: Share of failed requests that makes an outlier.
        slow_factor: A server is slow if most of its requests take so many times as long as is usual
            in the fleet; by default nobody is ejected for that.
        min_nodes: Servers with enough requests that a comparison needs; below, significance alone
            decides.
        min_requests: Requests in an interval that are enough; by default 100, and for the failure
            share 50.
        significance: Chance that a sweep may eject any server though all are alike; ``"none"`` for
            no such test, as in Envoy.
        probe: Whether one probe decides when an ejection is over.
    """

    interval: PositiveSeconds = 10.0
    base_ejection: PositiveSeconds = 30.0
    max_ejection: PositiveSeconds = 300.0
    jitter: Seconds = 0.0
    max_ejected: Share = 0.1
    consecutive_failures: Count | NoneText = 5
    stdev_factor: (
        Annotated[float, Meta(ge=0, le=1000, description="a number of deviations")] | NoneText
    ) = 1.9
    failure_share: (
        Annotated[float, Meta(gt=0, le=1, description="a share of the requests")] | NoneText
    ) = 0.85
    slow_factor: Annotated[float, Meta(gt=1, le=1e6, description="a factor")] | NoneText = "none"
    min_nodes: Count = 5
    min_requests: Count | None = None
    significance: Annotated[float, Meta(gt=0, lt=1, description="a chance")] | NoneText = 0.001
    probe: bool = True


class SlowStartTable(TableRecord, frozen=True):
    """Slow start of servers that join or recover.

    Attributes:
        window: Seconds until a server has its whole weight.
        aggression: Curve of the weight: 1 for a straight line, more for a quicker beginning.
        min_weight: Share of its weight that a server has at least.
    """

    window: PositiveSeconds = 60.0
    aggression: Annotated[float, Meta(gt=0, le=1000, description="an exponent")] = 1.0
    min_weight: Annotated[float, Meta(gt=0, le=1, description="a share of the weight")] = 0.1


class Quota(TableRecord, frozen=True):
    """A limit that every server enforces, with an answer 429, and every client knows.

    Attributes:
        name: Name of the dimension, such as ``rpm``.
        limit: Amount per window, for all clients together.
        window: Seconds that the window is long.
        counts: What is counted: ``"requests"`` or ``"tokens"``.
        aware: Whether clients keep to it, each to its part; else they learn by 429s only.
    """

    name: str
    limit: Annotated[float, Meta(gt=0, le=1e12, description="an amount")]
    window: PositiveSeconds = 60.0
    counts: Annotated[
        str, Meta(pattern=r"^(requests|tokens)\Z", description='"requests" or "tokens"')
    ] = "requests"
    aware: bool = True


class LimitTable(TableRecord, frozen=True):
    """LimitTable of what a balancer sends.

    Attributes:
        max_in_flight: Requests that it may have under way at one server; more go elsewhere. No
            limit by default.
    """

    max_in_flight: (
        Annotated[int, Meta(ge=1, le=1_048_576, description="a whole number of requests")] | None
    ) = None


class Retries(TableRecord, frozen=True):
    """Retries of requests that fail.

    Attributes:
        attempts: Attempts per request, each on another server; hedges are not counted.
        budget: Share of the requests that may be retried (and 10 per second).
    """

    attempts: Annotated[int, Meta(ge=1, le=100, description="a whole number")] = 1
    budget: Share = 0.2
