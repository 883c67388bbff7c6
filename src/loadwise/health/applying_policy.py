"""Verdicts of a policy on what is reported of nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from loadwise._callables import refuse_async_methods, refuse_awaitable
from loadwise._numbers import number, shown, whole
from loadwise._text import visible
from loadwise.errors import LoadwiseError
from loadwise.health.policy import HealthPolicy, NodeHealth
from loadwise.health.status import HealthStatus
from loadwise.outcome import Outcome

__all__ = [
    "after_failure",
    "after_success",
    "check_policy",
    "ejected",
    "is_old_news",
    "successes_needed",
]

_ASKED: Final = ("next_status", "probe_delay")
_DELAY_TAKES: Final = "it must be one of the failed probes and of a function that draws"
_STATES: Final = tuple(HealthStatus)


def check_policy(policy: HealthPolicy) -> None:
    """Raise unless a tracker can use ``policy``.

    Raises:
        TypeError: It is no `HealthPolicy`, or what it has of the optional members is of the wrong
            kind.
        ValueError: Its ``probe_interval`` is negative or NaN.
    """
    if isinstance(policy, type):
        name = policy.__name__
        raise TypeError(f"policy is the class {name}; give an instance: {name}()")
    for member in ("next_status", "probe_interval"):
        if not hasattr(policy, member):
            raise TypeError(f"policy is {policy!r}; a HealthPolicy needs `{member}`")
    refuse_async_methods("policy", policy, _ASKED, "a report cannot wait: make it a plain one")
    if not callable(getattr(policy, "probe_delay", len)):
        raise TypeError(f"probe_delay of {policy!r} is no function; {_DELAY_TAKES}")
    whole("recovery_successes", getattr(policy, "recovery_successes", 1))
    pause: object = policy.probe_interval
    # It is asked for again and again, so it must be of a kind that adds up with times. An
    # infinite one is sensible where only active checks may bring a node back.
    if not isinstance(pause, (int, float)) or isinstance(pause, bool):
        raise TypeError(f"probe_interval is {shown(pause)}; it must be an int or a float")
    if not number("probe_interval", pause) >= 0:
        raise ValueError(f"probe_interval is {pause!r}; it must be a number of seconds, at least 0")


def after_success(policy: HealthPolicy | None, old: NodeHealth) -> NodeHealth:
    """Return a node's record after a success; without a policy its state stays.

    Raises:
        LoadwiseError: The policy returned what is not one `HealthStatus`.
    """
    counted = replace(
        old, consecutive_failures=0, consecutive_successes=old.consecutive_successes + 1
    )
    text = f"{counted.consecutive_successes} of the successes needed since it was unhealthy"
    return _judge(policy, counted, Outcome.SUCCESS, text)


def after_failure(
    policy: HealthPolicy | None, old: NodeHealth, when: float, reason: str | None
) -> NodeHealth:
    """Return a node's record after a failure.

    Args:
        policy: The rule; ``None`` for one by which its state stays.
        old: Its record before.
        when: When the request ended, in seconds of the tracker's clock.
        reason: The fault in words, if known.

    Raises:
        LoadwiseError: The policy returned what is not one `HealthStatus`.
    """
    counted = replace(
        old,
        consecutive_failures=old.consecutive_failures + 1,
        consecutive_successes=0,
        last_failure=when,
    )
    plural = "" if counted.consecutive_failures == 1 else "s in a row"
    text = f"{counted.consecutive_failures} failure{plural}"
    if reason:
        text += f", the last: {visible(reason)}"
    return _judge(policy, counted, Outcome.FAILURE, text)


def ejected(old: NodeHealth, when: float, reason: str) -> NodeHealth:
    """Return the record of a node that is ejected; what began before is old news from then on."""
    return replace(old, status=HealthStatus.UNHEALTHY, reason=reason, down_since=when)


def successes_needed(policy: HealthPolicy, record: NodeHealth) -> int:
    """Return how many successes a RECOVERING node still needs, at least 1."""
    needed: int = getattr(policy, "recovery_successes", 0)
    return max(1, needed - record.consecutive_successes)


def _judge(
    policy: HealthPolicy | None, counted: NodeHealth, outcome: Outcome, reason: str
) -> NodeHealth:
    if policy is None:
        return counted
    status = policy.next_status(counted, outcome)
    if status not in _STATES:
        whose = f"{type(policy).__name__}.next_status"
        refuse_awaitable(whose, status, "a report cannot wait: make it a plain function")
        raise LoadwiseError(
            f"{whose} returned {status!r}; it must return one of {', '.join(map(str, _STATES))}"
        )
    if status is HealthStatus.HEALTHY and not counted.consecutive_failures:
        return NodeHealth(counted.id)
    down_since = counted.down_since
    if status is HealthStatus.UNHEALTHY and counted.status is not HealthStatus.UNHEALTHY:
        down_since = counted.last_failure
    return replace(counted, status=status, reason=reason, down_since=down_since)


def is_old_news(health: NodeHealth, began: float | None) -> bool:
    """Tell whether a request began before its node went down, or at that very moment."""
    return began is not None and health.down_since is not None and began <= health.down_since
