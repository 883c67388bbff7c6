"""How it is told apart what a client found out and what it was told."""

from __future__ import annotations

import pytest

from loadwise.cli.demo.fleet import Fleet
from loadwise.cli.demo.plan import Plan
from loadwise.cli.demo.shared.news import messages_in, outage_in
from loadwise.cli.demo.shared.peers import News
from loadwise.cli.demo.shared.run import SharedRun
from loadwise.health import HealthStatus

DEGRADED = HealthStatus.DEGRADED
DOWN = HealthStatus.UNHEALTHY
TRIAL = HealthStatus.RECOVERING
WELL = HealthStatus.HEALTHY


def run_with(*news: News, killed_at: float = 10.0) -> SharedRun:
    """A run of which only this is known; nothing is started."""
    run = SharedRun(Fleet(1), "p2c", Plan(100, 2, 1))
    run.began, run.seconds, run.killed_at = 0.0, 20.0, killed_at
    for each in news:
        next(client for client in run.clients if client.name == each.client).news.append(each)
    return run


def test_found_and_told_make_a_message() -> None:
    """A state that one found out and the other was told of is one message, with its delay."""
    run = run_with(
        News(10.5, "A", "doomed", WELL, DOWN, found=True),
        News(10.502, "B", "doomed", WELL, DOWN, found=False),
        News(10.6, "B", "flaky", WELL, DEGRADED, found=True),
    )
    (message,) = messages_in(run)
    assert (message.server, message.state) == ("doomed", "UNHEALTHY")
    assert (message.found_by, message.found_at, message.told) == ("A", 10.5, "B")
    assert message.after == pytest.approx(0.002)


def test_message_is_of_the_nearest_finding() -> None:
    """Where a state comes about twice, the second telling belongs to the second finding."""
    run = run_with(
        News(1.0, "A", "flaky", WELL, DOWN, found=True),
        News(1.001, "B", "flaky", WELL, DOWN, found=False),
        News(5.0, "A", "flaky", WELL, DOWN, found=True),
        News(4.9999, "B", "flaky", WELL, DOWN, found=False),
    )
    assert [message.found_at for message in messages_in(run)] == [1.0, 5.0]
    assert [round(message.after, 6) for message in messages_in(run)] == [0.001, 0.0]


def test_outage_counts_failures_until_each_knew() -> None:
    """Failures before the kill, after the news, and of other servers, do not count."""
    run = run_with(
        News(10.5, "B", "doomed", DEGRADED, DOWN, found=True),
        News(10.6, "A", "doomed", DEGRADED, DOWN, found=False),
        News(12.0, "A", "doomed", DOWN, TRIAL, found=True),
        News(12.1, "B", "doomed", DOWN, TRIAL, found=False),
    )
    a, b = run.clients
    a.failures += [(9.0, "doomed"), (10.2, "doomed"), (10.3, "flaky"), (11.0, "doomed")]
    b.failures += [(10.1, "doomed"), (10.5, "doomed")]
    outage = outage_in(run)
    assert outage is not None
    assert (outage.found_by, outage.found_after) == ("B", 0.5)
    assert outage.failures == {"A": 1, "B": 2}
    assert [(message.told, message.found_at) for message in outage.down] == [("A", 10.5)]
    assert [(message.state, message.found_by) for message in outage.back] == [("RECOVERING", "A")]
    assert outage.uninformed == ()


def test_who_found_out_alone_was_not_told() -> None:
    """Where both found out, there is no message; and who never knew is named."""
    both = outage_in(
        run_with(
            News(10.5, "A", "doomed", DEGRADED, DOWN, found=True),
            News(10.501, "B", "doomed", DEGRADED, DOWN, found=True),
        )
    )
    alone = outage_in(run_with(News(10.5, "A", "doomed", DEGRADED, DOWN, found=True)))
    assert both is not None
    assert alone is not None
    assert (both.down, both.uninformed) == ((), ())
    assert (alone.down, alone.uninformed) == ((), ("B",))


def test_no_outage_where_nobody_found_out() -> None:
    """A state from before the kill is another matter."""
    assert outage_in(run_with(News(2.0, "A", "doomed", WELL, DOWN, found=True))) is None
