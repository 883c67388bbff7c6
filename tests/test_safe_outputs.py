"""Names and reasons of unknown origin, in everything that loadwise says: never raw."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    Cooldown,
    HealthTracker,
    LoadwiseError,
    NoNodeAvailable,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    UnknownNode,
)
from loadwise.health_checks import HealthChecker
from loadwise.integrations.prometheus import PrometheusCollector
from loadwise.integrations.redis._events import EventLog, SharedEvent
from loadwise.testing import ManualClock

# Of each kind some: escapes, bells, breaks, turns of the direction, half a character.
HOSTILE = "\x00\x07\x08\x1b\n\r\t\x7f\x85\x9b\u061c\u200b\u200e\u200f\u2028\u2029\ufeff\ud800"
HOSTILE += "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\U000e0001"

hostile = st.text(st.sampled_from(HOSTILE + "ab[0m'\"\\"), min_size=1, max_size=12)


def raw_in(text: str) -> set[str]:
    """The characters of a text that no terminal should get; lines may be broken."""
    unseen = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return {each for each in text if unicodedata.category(each) in unseen} - {"\n"}


def in_one_line(text: str) -> bool:
    """Whether a text is safe to be a line of a log."""
    return not raw_in(text) and "\n" not in text


@given(hostile, hostile, hostile)
def test_what_a_balancer_says_is_safe(name: str, node: str, reason: str) -> None:
    """Of its nodes, their health, their cooldowns, and why there is none."""
    clock = ManualClock()
    health = HealthTracker(ConsecutiveFailurePolicy(1, 1), clock=clock)
    quota = QuotaTracker(clock)
    other = f"{node}*"
    quota.register(other, QuotaConfig([QuotaDimension(name, limit=10)]))
    balancer = Balancer([node, other], health=health, quota=quota, name=name, clock=clock)
    for identity in (node, other):
        balancer.acquire(exclude={node, other} - {identity}).failure(RuntimeError(reason))
    balancer.acquire(exclude=[node]).rate_limited(5.0, reason=reason)
    explanation = str(balancer.explain())
    assert not raw_in(explanation)
    assert explanation.count("\n") <= 3  # its own
    for status in balancer.status():
        assert status.health_reason is None or in_one_line(status.health_reason)
        assert status.cooldown is None or in_one_line(status.cooldown.reason)
        assert status.cooldown is None or in_one_line(str(status.cooldown))
    assert in_one_line(str(Cooldown(seconds_left=1.0, until=2.0, reason=reason)))
    health.report_failure(node, reason)
    assert in_one_line(str(health.health(node).reason))
    with pytest.raises(NoNodeAvailable) as none:
        balancer.pick(where=lambda _: False)
    assert in_one_line(str(none.value))
    with pytest.raises(UnknownNode) as unknown:
        balancer.drain(f"{reason}?")
    assert in_one_line(str(unknown.value))
    assert in_one_line(repr(balancer))


@given(hostile, hostile)
def test_what_checks_find_is_safe(node: str, reason: str) -> None:
    """As what is returned, and as the reason that is kept."""

    def probe(_node: str) -> None:
        raise RuntimeError(reason)

    balancer = Balancer([node], health=HealthTracker(ConsecutiveFailurePolicy(1, 1)))
    (fault,) = HealthChecker(balancer, probe).check_now().values()
    assert fault is not None
    assert in_one_line(fault)
    (status,) = balancer.status()
    assert in_one_line(str(status.health_reason))


@given(hostile)
def test_errors_are_safe(text: str) -> None:
    """Of loadwise's own kind; of wrong arguments, the value that they show."""
    assert not raw_in(str(LoadwiseError(text)))

    class Odd:
        def __repr__(self) -> str:
            return text

    for wrong in (
        lambda: Balancer(["a"], hung_after=Odd()),  # type: ignore[arg-type]
        lambda: QuotaDimension("rpm", limit=Odd()),  # type: ignore[arg-type]
        lambda: Balancer(["a"], name=text, clock=Odd()),  # type: ignore[arg-type]
    ):
        with pytest.raises((TypeError, ValueError)) as error:
            wrong()
        assert in_one_line(str(error.value))


def crowded(text: str) -> None:
    """Have a collector complain of a balancer."""
    metrics = PrometheusCollector(None, max_nodes=1)
    balancer = Balancer([text, f"{text}b"], metrics=metrics, name=text)
    for _ in range(4):
        balancer.acquire().success()


def in_panic(text: str) -> None:
    """Have a balancer tell of its panic."""
    health = HealthTracker(ConsecutiveFailurePolicy(1, 1, 60.0))
    balancer = Balancer([text], health=health, name=text)
    balancer.acquire().success()
    balancer.acquire().failure(text)
    assert balancer.panic is not None


def outage(text: str) -> None:
    """Have shared state tell of an outage."""
    events: list[SharedEvent] = []
    EventLog("health", events.append).add("outage", text)
    assert in_one_line(events[0].detail)


@pytest.mark.parametrize("complain", [crowded, in_panic, outage])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(text=hostile)
def test_lines_of_the_log_are_safe(
    complain: Callable[[str], None], caplog: pytest.LogCaptureFixture, text: str
) -> None:
    """And each is one line."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "loadwise"):
        complain(text)
    assert caplog.records
    for record in caplog.records:
        assert in_one_line(record.getMessage())
