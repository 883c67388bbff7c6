"""Verdicts on nodes: what is the matter with each, and why it is not chosen, in words."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from loadwise._amounts import count, in_words, latency, percent, plural
from loadwise.balancer import NodeStatus
from loadwise.health import HealthStatus

__all__ = ["IDLE", "WELL", "NodeVerdict", "Severity", "verdict_of"]

_MUCH_SLOWER: Final = 3.0
"""Times the median latency from which on a node is called slow."""
_FAILS_OFTEN: Final = 0.05
"""Share of the last minute's requests from which on failures are a warning."""
_ENOUGH: Final = 20
"""Requests in the last minute from which on a share of them says something."""


class Severity(IntEnum):
    """Degree to which a node needs somebody's attention; the worst comes first."""

    DOWN = 0
    WARNING = 1
    NOTICE = 2
    WELL = 3


class NodeVerdict(NamedTuple):
    """State of a node in a word, and the reasons.

    Attributes:
        severity: How bad it is.
        word: The state in a word or two, such as ``"down"``.
        why: All that is the matter, in words; empty for a node that is well.
    """

    severity: Severity
    word: str
    why: str

    @property
    def of_health(self) -> bool:
        """True if it is the state of the node's health, so that it is as old as that."""
        return self.word in _OF_HEALTH


_OF_HEALTH: Final = {"up", "down", "ejected", "ailing", "recovering", "degraded"}

WELL: Final = NodeVerdict(Severity.WELL, "up", "")

IDLE: Final = NodeVerdict(
    Severity.WELL, "idle", "it may be chosen, but the strategy prefers others"
)
"""The verdict on a node that is well, and gets nothing though others get a lot."""

_Cause = tuple[Severity, str, str]


def verdict_of(
    status: NodeStatus, ruled_out: str | None, median: float | None, *, panic: bool
) -> NodeVerdict:
    """Return the verdict on a node.

    Args:
        status: How it is.
        ruled_out: Why the balancer would not choose it now, as `Explanation.ineligible` has it.
        median: Median latency of the balancer's nodes in seconds; ``None`` if it says nothing.
        panic: Whether the balancer is in panic.

    Cost: O(1); for a node that is well a few comparisons.
    """
    if (
        status.health is HealthStatus.HEALTHY
        and ruled_out is None
        and status.cooldown is None
        and not status.drained
        and status.slow_start is None
        and not status.recent_failures
        and (median is None or status.latency is None or status.latency < _MUCH_SLOWER * median)
    ):
        return WELL
    causes = [*_keeping_away(status, ruled_out, panic=panic), *_besides(status, median)]
    if not causes:
        return WELL
    severity, word, why = causes[0]
    others = (f"{word}: {why}" for _, word, why in causes[1:])
    return NodeVerdict(severity, word, "; ".join((why, *others)))


def _keeping_away(status: NodeStatus, ruled_out: str | None, *, panic: bool) -> Iterator[_Cause]:
    """Tell what keeps requests away from a node."""
    if status.health is HealthStatus.UNHEALTHY:
        yield _down(status, panic=panic)
    if status.drained:
        how = "its weight is 0: " if not status.weight else ""
        left = f", {plural(status.in_flight, 'request')} still under way" * bool(status.in_flight)
        yield Severity.NOTICE, "drained", f"{how}gets no new requests{left}"
    if status.cooldown is not None:
        left = in_words(status.cooldown.seconds_left)
        yield Severity.WARNING, "cooldown", f"{status.cooldown.reason}; back in {left}"
    elif ruled_out in ("quota", "rate_limited"):
        yield Severity.WARNING, "no quota", _short_of(status)
    if status.limit is not None and status.in_flight >= status.limit:
        full = f"{status.in_flight} of {plural(status.limit, 'request')} under way"
        yield Severity.WARNING, "full", full
    if ruled_out == "filtered":
        yield Severity.NOTICE, "filtered", "the balancer's own filter does not admit it"


def _besides(status: NodeStatus, median: float | None) -> Iterator[_Cause]:
    """Tell what else is the matter with a node."""
    if status.health is HealthStatus.RECOVERING:
        why = "answers again; on trial, with few requests at a time"
        yield Severity.WARNING, "recovering", why
    elif status.health is HealthStatus.DEGRADED:
        why = f"{status.health_reason or 'has begun to fail'}; still chosen"
        yield Severity.WARNING, "degraded", why
    elif status.health is HealthStatus.HEALTHY:
        yield from _failing(status)
    if (
        median is not None
        and status.latency is not None
        and status.latency >= _MUCH_SLOWER * median
        and status.health is not HealthStatus.UNHEALTHY
    ):
        times = f"{status.latency / median:.0f} times the median of {latency(median)}"
        yield Severity.NOTICE, "slow", f"its latency is {times}"
    if status.slow_start is not None:
        part = percent(status.slow_start)
        yield Severity.NOTICE, "slow start", f"has {part} of its weight for now"


def _down(status: NodeStatus, *, panic: bool) -> _Cause:
    why = status.health_reason or "its requests fail"
    if status.next_probe is None:
        probe = "a probe is under way"
    elif status.next_probe > 0:
        probe = f"probe in {in_words(status.next_probe)}"
    else:
        probe = "probe due: the next request"
    if status.ejected:
        return Severity.DOWN, "ejected", f"{why}; {probe}"
    if status.ailing:
        gets = ", so it gets requests in panic" if panic else ""
        return Severity.DOWN, "ailing", f"{why}; it still answers now and then{gets}; {probe}"
    return Severity.DOWN, "down", f"{why}; {probe}"


def _failing(status: NodeStatus) -> Iterator[_Cause]:
    total = status.recent_successes + status.recent_failures
    share = status.recent_failures / max(1, total)
    if total >= _ENOUGH and share >= _FAILS_OFTEN:
        why = f"{percent(share)} of {plural(total, 'request')} failed in the last minute"
        yield Severity.WARNING, "failing", why


def _short_of(status: NodeStatus) -> str:
    left = sorted((amount, name) for name, amount in status.quota_remaining.items())
    if not left:
        return "nothing left"
    amount, name = left[0]
    return f"{count(max(0.0, amount))} of {name} left"
