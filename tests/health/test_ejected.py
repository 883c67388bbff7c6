"""Nodes that are ejected: UNHEALTHY for a time, whatever is reported of them."""

from __future__ import annotations

import math
from collections.abc import Hashable

from loadwise import ConsecutiveFailurePolicy, HealthStatus, HealthTracker, Outcome
from loadwise.testing import ManualClock

HEALTHY, UNHEALTHY = HealthStatus.HEALTHY, HealthStatus.UNHEALTHY


def tracker() -> tuple[HealthTracker, ManualClock, list[str]]:
    """A tracker, its clock, and what its listener hears."""
    clock, heard = ManualClock(), list[str]()

    def hear(node_id: Hashable, old: HealthStatus, new: HealthStatus) -> None:
        heard.append(f"{node_id} {old.name} {new.name}")

    health = HealthTracker(ConsecutiveFailurePolicy(recovery_successes=1), clock)
    health.subscribe(hear)
    return health, clock, heard


def test_nothing_that_is_reported_lets_it_back() -> None:
    """Successes and failures count for its standing; state and reason stay."""
    health, clock, heard = tracker()
    assert health.eject("a", "ejected: slow", until=30.0)
    assert heard == ["a HEALTHY UNHEALTHY"]
    for outcome in (Outcome.SUCCESS, Outcome.FAILURE, Outcome.FAILURE, Outcome.SUCCESS):
        clock.advance(1.0)
        health.report("a", outcome)
        assert (health.status("a"), health.health("a").reason) == (UNHEALTHY, "ejected: slow")
    assert health.health("a").consecutive_failures == 0
    assert health.is_ailing("a", 10.0)
    assert heard == ["a HEALTHY UNHEALTHY"]


def test_it_may_be_probed_when_its_time_is_over() -> None:
    """Not before, even if all are to be probed at once; and each probe that fails costs a wait."""
    health, clock, _ = tracker()
    health.eject("a", "ejected: slow", until=30.0)
    health.hasten_probes(["a"])
    assert (health.next_probe("a"), health.next_change()) == (30.0, 30.0)
    assert health.down() == [("a", False)]
    clock.advance(29.9)
    assert not health.should_probe("a")
    clock.advance(0.1)
    assert health.down() == [("a", True)]
    assert health.should_probe("a")
    assert not health.is_ejected("a")
    health.report_failure("a")
    assert (health.next_probe("a"), health.next_change()) == (40.0, 40.0)
    clock.advance(10.0)
    assert health.should_probe("a")
    health.report_success("a")
    assert health.status("a") is HEALTHY


def test_readmitted_it_is_probed_or_back() -> None:
    """A probe is due at once; or it is HEALTHY, with nothing remembered of it."""
    health, _, heard = tracker()
    health.eject("a", "ejected: slow", until=30.0)
    version = health.version
    health.readmit("a", probe=True)
    assert health.version != version
    assert (health.status("a"), health.down()) == (UNHEALTHY, [("a", True)])
    assert not health.is_ejected("a")
    health.readmit("a", probe=False)
    assert health.status("a") is UNHEALTHY, "it is not ejected any more"
    health.eject("b", "ejected: slow", until=30.0)
    health.readmit("b", probe=False)
    assert (health.status("b"), health.down()) == (HEALTHY, [("a", True)])
    assert "b" not in health.snapshot()
    assert heard[-2:] == ["b HEALTHY UNHEALTHY", "b UNHEALTHY HEALTHY"]


def test_it_is_ejected_once() -> None:
    """A second ejection changes nothing, and says so."""
    health, _, _ = tracker()
    assert health.eject("a", "ejected: slow", until=30.0)
    assert not health.eject("a", "ejected: again", until=90.0)
    assert (health.health("a").reason, health.next_probe("a")) == ("ejected: slow", 30.0)


def test_a_node_that_is_down_stays_down_for_longer() -> None:
    """It changes no state, so nobody is told; the probe is put off."""
    health, clock, heard = tracker()
    for _ in range(3):
        health.report_failure("a")
    clock.advance(10.0)
    probe = health.grant_probe("a")
    assert probe is not None
    before, version = len(heard), health.version
    assert health.eject("a", "ejected: 5 failures in a row", until=60.0)
    assert (len(heard), health.version != version) == (before, True)
    health.report("a", Outcome.FAILURE, probe=probe)
    health.end_probe("a", probe)
    assert health.next_probe("a") == 60.0
    assert health.health("a").consecutive_failures == 4


def test_removed_it_is_forgotten() -> None:
    """Who comes back under its id is well."""
    health, _, _ = tracker()
    health.eject("a", "ejected: slow", until=math.inf)
    health.remove("a")
    assert not health.is_ejected("a")
    assert (health.status("a"), health.down()) == (HEALTHY, [])


def test_what_began_before_is_old_news() -> None:
    """A request that was under way counts for nothing when the node is back."""
    health, clock, _ = tracker()
    began = clock()
    clock.advance(1.0)
    health.eject("a", "ejected: slow", until=2.0)
    clock.advance(1.0)
    health.report("a", Outcome.SUCCESS, began=began)
    assert health.status("a") is UNHEALTHY
    health.report("a", Outcome.SUCCESS, began=clock())
    assert health.status("a") is HEALTHY


def test_its_last_success_may_be_told() -> None:
    """So that one that has never failed counts as ailing, and not as dead."""
    health, clock, _ = tracker()
    clock.advance(100.0)
    health.eject("a", "ejected: slow", until=130.0, last_success=99.0)
    health.eject("b", "ejected: slow", until=130.0)
    assert set(health.ailing(10.0)) == {"a"}
