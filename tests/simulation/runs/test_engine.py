"""Runs whose outcome is known exactly: constant arrivals and service, one thing at a time."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.simulation.support import fleet

from loadwise import SelectionContext
from loadwise.context import EMPTY
from loadwise.simulation.errors import ScenarioError
from loadwise.simulation.runs.engine import simulate
from loadwise.simulation.runs.result import QUANTILES, Result
from loadwise.simulation.scenario import (
    Add,
    Callers,
    Clients,
    Constant,
    Crash,
    Deterministic,
    Drain,
    Fail,
    Fault,
    Flap,
    Group,
    Hang,
    Health,
    Network,
    Pair,
    Quota,
    RestartClients,
    Scenario,
    Servers,
    Slow,
    Tokens,
    Trace,
)

NO_HEALTH = Health(enabled=False)


def steady(*faults: Fault, count: int = 2, requests: int = 20, **settings: Any) -> Scenario:
    """Return a scenario of one request per second, from second 1 on, of half a second each."""
    return fleet(
        **{
            "servers": Servers(count=count),
            "arrivals": Constant(rate=1.0),
            "service": Deterministic(mean=0.5),
            "requests": requests,
            "faults": faults,
            "health": NO_HEALTH,
        }
        | settings
    )


def counts(result: Result) -> dict[str, int]:
    """Return how requests ended, those of which there are any."""
    names = ("completed", "failed", "dropped", "in_flight", "retries", "hedges", "timeouts")
    return {name: getattr(result, name) for name in names if getattr(result, name)}


def test_a_quiet_fleet() -> None:
    """Every request takes its service time, and round robin shares exactly."""
    result = simulate(steady(), "round-robin")
    assert counts(result) == {"completed": 20}
    assert result.latency.mean == result.latency.p999 == pytest.approx(0.5)
    assert len(result.quantiles) == len(QUANTILES)
    assert result.share == {"server-1": 0.5, "server-2": 0.5}
    assert (result.imbalance, result.jain) == (1.0, 1.0)
    assert (result.keys_moved, result.cache_hits) == (None, None)
    assert result.seconds == 20.5
    assert result.throughput == pytest.approx(20 / 20.5)


def test_a_queue_is_first_come_first_served() -> None:
    """One server, service of 2.5 s, a request per second: each waits 1.5 s more than the last."""
    scenario = steady(count=1, requests=4, service=Deterministic(mean=2.5))
    result = simulate(scenario)
    assert result.latency.mean == pytest.approx((2.5 + 4.0 + 5.5 + 7.0) / 4)
    assert result.quantiles[0] == pytest.approx(2.5)


def test_parallelism_and_speed() -> None:
    """A server of two works on two at a time; one of speed 5 takes a fifth of the time."""
    servers = Servers(count=1, parallelism=2)
    two = simulate(steady(servers=servers, service=Deterministic(mean=2.0)))
    assert two.latency.p999 == pytest.approx(2.0)
    fast = simulate(steady(servers=Servers(count=1, speed=5.0), service=Deterministic(mean=2.0)))
    assert fast.latency.p999 == pytest.approx(0.4)


def test_a_full_queue_rejects() -> None:
    """One in work and one waiting, service of ten seconds: of ten requests two are served."""
    servers = Servers(count=1, queue_limit=1)
    result = simulate(steady(servers=servers, requests=10, service=Deterministic(mean=10.0)))
    assert counts(result) == {"completed": 2, "dropped": 8}


def test_where_nobody_can_be_asked() -> None:
    """Without an attempt there is no share to be uneven."""
    result = simulate(steady(Drain(at=0, servers=("server",))))
    assert counts(result) == {"dropped": 20}
    assert set(result.share.values()) == {0.0}
    assert math.isnan(result.imbalance)
    assert math.isnan(result.jain)


def test_the_warm_up_does_not_count() -> None:
    """Latencies and shares are of the requests after it; the counts are of all."""
    fault = Slow(at=0, lasts=10.2, factor=1.8, servers=("server-1",))
    result = simulate(steady(fault, count=1, warmup=0.5))
    assert counts(result) == {"completed": 20}
    assert result.latency.p999 == pytest.approx(0.5)
    assert simulate(steady(fault, count=1)).latency.p999 == pytest.approx(0.9)


def test_a_crash_breaks_what_is_there_and_refuses_what_comes() -> None:
    """Down from 5.25 to 8.75: what is in work at 5.25 breaks, those of 6, 7 and 8 are refused."""
    fault = Crash(at=5.25, lasts=3.5, servers=("server-1",))
    result = simulate(steady(fault, count=1))
    assert counts(result) == {"completed": 16, "failed": 4}
    assert result.unhealthy_picks == 3
    [mark] = result.timeline.marks
    assert (mark.begin, mark.end, mark.kind, mark.servers) == (5.25, 8.75, "crash", ("server-1",))


def test_a_crash_breaks_what_waits_too() -> None:
    """Of three that came by 3.25, one is in work and two wait: all break."""
    fault = Crash(at=3.25, lasts=0.5, servers=("server-1",))
    result = simulate(steady(fault, count=1, requests=5, service=Deterministic(mean=5.0)))
    assert counts(result) == {"completed": 2, "failed": 3}


def test_retries_go_to_another_server() -> None:
    """With two attempts nothing is lost while one of two servers is down."""
    fault = Crash(at=5.25, servers=("server-1",))
    result = simulate(steady(fault, callers=Callers(attempts=2)), "round-robin")
    assert counts(result) == {"completed": 20, "retries": result.retries}
    assert result.retries == result.unhealthy_picks + 1 > 5


def test_health_tracking_ends_the_failures() -> None:
    """Two failures in a row and the server is out; with no probe due, no more go there."""
    fault = Crash(at=2.75, servers=("server-1",))
    health = Health(failure_threshold=2, probe_interval=1000.0)
    result = simulate(steady(fault, health=health), "round-robin")
    assert counts(result) == {"completed": 18, "failed": 2}
    assert [(each.server, each.new) for each in result.timeline.health] == [
        ("server-1", "DEGRADED"),
        ("server-1", "UNHEALTHY"),
    ]
    without = simulate(steady(fault, health=health), "round-robin/no-health")
    assert without.failed == without.unhealthy_picks > 5


OUTAGE = Crash(at=5.25, lasts=5.0, servers=("server-1",))


def spells(result: Result) -> list[tuple[float, float, int]]:
    """Return when whose panic began and ended."""
    return [(each.begin, each.end, each.client) for each in result.timeline.panics]


def test_panic_is_timed(caplog: pytest.LogCaptureFixture) -> None:
    """It is seen at the pick of 6, and its end at that of 12, the first after a good answer.

    The requests of 1 to 20 last 19.5 s. Of a fleet that is made up, the log is not told.
    """
    scenario = steady(OUTAGE, count=1, health=Health(failure_threshold=1))
    result = simulate(scenario)
    assert counts(result) == {"completed": 14, "failed": 6}
    assert spells(result) == [(6.0, 12.0, 0)]
    assert result.panic == pytest.approx(6.0 / 19.5)
    blind = simulate(scenario, "p2c/no-health")
    assert (spells(blind), blind.panic) == ([], 0.0)
    assert not caplog.records


def test_panic_outlasts_neither_its_client_nor_the_run() -> None:
    """The client of 8.5 on learns of the outage at 9; the crash of 18.25 is seen at 19."""
    scenario = steady(
        OUTAGE,
        RestartClients(at=8.5),
        Crash(at=18.25, servers=("server-1",)),
        count=1,
        health=Health(failure_threshold=1),
    )
    result = simulate(scenario)
    assert spells(result) == [(6.0, 8.5, 0), (10.0, 12.0, 0), (19.0, 20.0, 0)]
    assert result.panic == pytest.approx(5.5 / 19.0)


def test_panic_before_the_warm_up_does_not_count() -> None:
    """Of 6 to 12, what is after the request of 11."""
    health = Health(failure_threshold=1)
    result = simulate(steady(OUTAGE, count=1, health=health, warmup=0.5))
    assert spells(result) == [(6.0, 12.0, 0)]
    assert result.panic == pytest.approx(1.0 / 9.5)


def test_panic_is_the_mean_over_the_clients() -> None:
    """Of two clients with a server that is down, each for itself."""
    health = Health(failure_threshold=1)
    result = simulate(steady(OUTAGE, count=1, requests=40, health=health, clients=Clients(count=2)))
    lengths = [end - begin for begin, end, _ in spells(result)]
    assert {client for *_, client in spells(result)} == {0, 1}
    assert result.panic == pytest.approx(sum(lengths) / 2 / 39.5)


@pytest.mark.parametrize(("threshold", "dropped"), [("none", 10), (0.0, 0), (0.5, 0)])
def test_without_panic_nobody_is_asked(threshold: str | float, dropped: int) -> None:
    """From 6 to 15 there is nobody, and the probe is due at 15.25; panic asks all the same."""
    health = Health(failure_threshold=1, panic_threshold=threshold)
    assert simulate(steady(OUTAGE, count=1, health=health)).dropped == dropped


def test_the_window_of_panic() -> None:
    """Two of three answer at 2.5 and 3.5, and fail the requests of 5 and 6.

    By a window of 1 s both are dead then, and the first has all the rest. By one of 100 s they are
    ailing: the second is asked at 8, and its good answer ends the panic. The two share the rest.
    """
    faults = [
        Fail(at=at, lasts=0.5, servers=(server,))
        for at, server in ((4.75, "server-2"), (5.75, "server-3"))
    ]
    shares = [
        simulate(
            steady(
                *faults,
                count=3,
                requests=30,
                health=Health(failure_threshold=1, probe_interval=1000.0, panic_window=window),
            ),
            "round-robin",
        ).share["server-1"]
        for window in (1.0, 100.0)
    ]
    assert shares == [26 / 30, 14 / 30]


@pytest.mark.parametrize(
    ("backoff", "longest", "probes"), [(1.0, 300.0, 19), (2.0, 300.0, 4), (2.0, 8.0, 11)]
)
def test_probes_back_off(backoff: float, longest: float, probes: int) -> None:
    """Failures at 3 and 5 are the end; then probes, when it is its turn after 3.5, 7, 14 s ..."""
    fault = Crash(at=2.75, servers=("server-1",))
    health = Health(
        failure_threshold=2, probe_interval=3.5, probe_backoff=backoff, max_probe_interval=longest
    )
    result = simulate(steady(fault, health=health, requests=100), "round-robin")
    assert result.unhealthy_picks == 2 + probes


def test_jitter_is_of_the_run() -> None:
    """Up to twice the interval, and the same again with the same seed."""
    fault = Crash(at=2.75, servers=("server-1",))

    def probes(jitter: float, seed: int) -> int:
        health = Health(failure_threshold=2, probe_interval=3.5, jitter=jitter)
        scenario = steady(fault, health=health, requests=400)
        return simulate(scenario, "round-robin", seed).unhealthy_picks - 2

    assert probes(0.0, 1) == probes(0.0, 2)
    jittered = [probes(1.0, seed) for seed in (1, 2, 3, 4)]
    assert jittered == [probes(1.0, seed) for seed in (1, 2, 3, 4)]
    assert len(set(jittered)) > 1
    assert max(jittered) < 0.85 * probes(0.0, 1)


def test_a_standstill_goes_on_where_it_was() -> None:
    """Hanging from 3.25 to 5.25, the request of 3 takes two seconds more; the others wait."""
    fault = Hang(at=3.25, lasts=2.0, servers=("server-1",))
    result = simulate(steady(fault, count=1, requests=6))
    assert counts(result) == {"completed": 6}
    # 3: at 5.5; 4: waits till then, at 6.0; 5: at 6.5; 6: at 7.0.
    assert result.latency.mean == pytest.approx((0.5 + 0.5 + 2.5 + 2.0 + 1.5 + 1.0) / 6)


def test_a_standstill_answers_nothing() -> None:
    """Neither errors nor 429s while it hangs; quotas hold for what came when it goes on."""
    hang = Hang(at=0, lasts="95%", servers=("server-1",))
    failing = Fail(at=0, servers=("server-1",))
    early = simulate(steady(hang, failing, count=1, callers=Callers(timeout=1.5)))
    assert counts(early)["timeouts"] == 17
    quota = Quota(name="rph", limit=3, window=3600.0, aware=False)
    limited = simulate(steady(hang, count=1, quotas=(quota,)))
    # The last two come while the server is on cooldown, as it asked for.
    assert counts(limited) == {"completed": 3, "failed": 15, "dropped": 2}
    assert limited.rate_limited == 15


def test_clients_that_are_gone_change_no_view() -> None:
    """Requests of 1 to 5 time out from 11 on; the client of then knows of that of 6 only, at 16."""
    scenario = steady(
        Hang(at=0.0, servers=("server-1",)),
        RestartClients(at=5.5),
        count=1,
        requests=6,
        callers=Callers(timeout=10.0),
        health=Health(failure_threshold=1),
    )
    result = simulate(scenario)
    assert counts(result) == {"failed": 6, "timeouts": 6}
    assert [(each.at, each.new) for each in result.timeline.health] == [(16.0, "UNHEALTHY")]


def test_what_hangs_for_good_stays_in_flight() -> None:
    """Nobody gives it up without a timeout, and that is no leak."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = simulate(steady(Hang(at=3.25, servers=("server-1",)), count=1, requests=6))
    assert counts(result) == {"completed": 2, "in_flight": 4}


def test_a_timeout_gives_up_and_the_server_works_on() -> None:
    """Service of 1.5 s, a timeout of 1: what is given up still keeps the next one waiting."""
    scenario = steady(
        count=1, requests=3, service=Deterministic(mean=1.5), callers=Callers(timeout=1.0)
    )
    assert counts(simulate(scenario)) == {"failed": 3, "timeouts": 3}
    longer = steady(
        count=1, requests=3, service=Deterministic(mean=1.5), callers=Callers(timeout=2.1)
    )
    # They would take 1.5, 2.0 and 2.5 seconds.
    assert counts(simulate(longer)) == {"completed": 2, "failed": 1, "timeouts": 1}


def test_a_hedge_takes_the_first_answer() -> None:
    """A request on a slow server is sent to the other one after 0.6 s, and done 0.5 s later."""
    fault = Slow(at=0, factor=100.0, servers=("server-1",))
    result = simulate(steady(fault, requests=2, callers=Callers(hedge=0.6)), "round-robin")
    assert counts(result) == {"completed": 2, "hedges": 2}
    assert result.latency.p999 == pytest.approx(1.1, abs=0.01)


def test_what_is_called_off_is_not_worked_on() -> None:
    """Copies that wait at the slow server leave its queue when the other one has answered."""
    fault = Slow(at=0, factor=1000.0, servers=("server-1",))
    result = simulate(steady(fault, requests=8, callers=Callers(hedge=0.6)), "round-robin")
    assert result.completed == 8
    assert max(result.timeline.queues["server-1"]) <= 3


def test_spells_of_slowness_overlap_and_pass() -> None:
    """Factors multiply; when all is over, the pace is the old one to the last bit."""
    faults = (
        Slow(at=1.5, lasts=4.0, factor=49.0, servers=("server-1",)),
        Slow(at=3.5, lasts=4.0, factor=1e-320, servers=("server-1",)),
    )
    quiet, rough = (
        simulate(steady(*what, count=1, service=Deterministic(mean=0.1), warmup=0.4), "round-robin")
        for what in ((), faults)
    )
    assert rough.latency == quiet.latency


def test_a_black_hole_answers_at_once() -> None:
    """Failing from 5.5 to 10.5, requests 6 to 10 end in an error after 0.1 s."""
    fault = Fail(at=5.5, lasts=5.0, after=0.1, servers=("server-1",))
    result = simulate(steady(fault, count=1))
    assert counts(result) == {"completed": 15, "failed": 5}
    assert result.unhealthy_picks == 5


def test_flapping() -> None:
    """Down for two seconds in every four, from 4.75 on: two spells, four requests."""
    fault = Flap(at=4.75, lasts=8.0, down=2.0, up=2.0, servers=("server-1",))
    result = simulate(steady(fault, count=1))
    assert counts(result) == {"completed": 16, "failed": 4}


def test_moments_are_shares_of_the_run_too() -> None:
    """50 % of twenty seconds is the tenth."""
    [mark] = simulate(steady(Crash(at="50%", lasts="10%", servers=("server",)))).timeline.marks
    assert (mark.begin, mark.end, mark.servers) == (10.0, 12.0, ("server-1", "server-2"))


def test_faults_of_a_recording_are_within_it(tmp_path: Path) -> None:
    """How long it is shows when it is read: what comes later is refused, and so are endless spells.

    The second fault would be planned half a billion times.
    """
    path = tmp_path / "trace.csv"
    path.write_text("when\n1\n51\n", encoding="utf-8")
    arrivals = Trace(file=str(path), time="when")
    for fault, said in (
        (Crash(at=50.5, servers=("server-1",)), r"faults\[0\].at is 50.5 s, but requests"),
        (Flap(at=0.0, down=5e-8, up=5e-8, servers=("server-1",)), "goes down and up in 1e-07 s"),
    ):
        with pytest.raises(ScenarioError, match=said):
            simulate(steady(fault, arrivals=arrivals))


def test_servers_join_and_leave() -> None:
    """The new one is used from the moment it joins, the drained one until it leaves."""
    faults = (Add(at=10.5, group=Group(name="new")), Drain(at=14.5, servers=("server-1",)))
    result = simulate(steady(*faults), "round-robin")
    assert counts(result) == {"completed": 20}
    assert set(result.share) == {"server-1", "server-2", "new-1"}
    loads = result.timeline.loads
    step = result.timeline.times[0]
    begun = next(i for i, load in enumerate(loads["new-1"]) if load) * step
    ended = max(i for i, load in enumerate(loads["server-1"]) if load) * step
    assert 10.5 <= begun <= 14.5 > ended > 9.0


def test_clients_that_restart_lose_what_is_under_way() -> None:
    """The request in work at 10.25 is lost; round robin begins anew at the first server."""
    result = simulate(steady(RestartClients(at=10.25)), "round-robin")
    assert counts(result) == {"completed": 19, "failed": 1}
    restarted = simulate(steady(RestartClients(at=9.75)), "round-robin")
    assert counts(restarted) == {"completed": 20}
    assert restarted.share == {"server-1": 0.55, "server-2": 0.45}


def test_clients_keep_their_own_counsel() -> None:
    """Each client has a round robin of its own, all starting at the first server."""
    alike = simulate(steady(clients=Clients(count=200), count=20, requests=20), "round-robin")
    assert alike.share["server-1"] > 0.8
    apart = steady(clients=Clients(count=200), count=20, requests=20)
    assert simulate(apart, "round-robin-random-start").share["server-1"] < 0.4


def test_clients_that_start_one_after_another() -> None:
    """Until the second one is up, at half of the stagger, all requests are the first one's."""
    clients = Clients(count=2, stagger=20.0)
    result = simulate(steady(clients=clients, requests=9), "round-robin")
    assert result.share["server-1"] == 5 / 9


@pytest.mark.parametrize("stagger", [5e-324, 1e-310])
def test_clients_that_start_nearly_together(stagger: float) -> None:
    """However short the time is, and the part of it that each client has."""
    clients = Clients(count=200, stagger=stagger)
    result = simulate(steady(clients=clients, count=20), "round-robin")
    assert counts(result) == {"completed": 20}
    assert result.share["server-1"] > 0.8


def test_messages_take_time() -> None:
    """0.1 s either way within a zone, 0.4 s between the two, each client in its own."""
    network = Network(delay=0.1, pairs=(Pair(zones=("east", "west"), delay=0.4),))
    scenario = steady(
        network=network,
        clients=Clients(zones=("west",)),
        servers=Servers(groups=(Group(name="near", zone="west"), Group(name="far", zone="east"))),
    )
    result = simulate(scenario, "round-robin")
    assert result.quantiles[0] == pytest.approx(0.7)
    assert result.latency.p999 == pytest.approx(1.3)


def test_quotas_are_enforced_and_known() -> None:
    """Three requests in ten seconds: who knows keeps to it, who does not is told 429."""
    quota = Quota(name="rpm", limit=3, window=10.0)
    aware = simulate(steady(quotas=(quota,), count=1))
    assert aware.rate_limited == 0
    assert aware.dropped > 0
    learnt = Quota(name="rpm", limit=3, window=10.0, aware=False)
    unaware = simulate(steady(quotas=(learnt,), count=1))
    assert unaware.rate_limited == unaware.failed > 0
    assert unaware.completed in (aware.completed, aware.completed + 1)


def test_quotas_of_which_clients_know_some() -> None:
    """A client settles what it knows; of the others it learns by 429s. Five each may be served."""
    known = Quota(name="known", limit=1_000, window=100.0)
    unknown = Quota(name="unknown", limit=5, window=100.0, aware=False)
    for quotas in (known, unknown), (unknown, known):
        result = simulate(steady(quotas=quotas, callers=Callers(attempts=1)))
        assert result.completed == 10
        assert result.rate_limited == result.failed > 0


def test_token_quotas_count_tokens() -> None:
    """6,000 tokens in ten seconds serve some of the requests that need 1,366 each, one a second."""
    quotas = (Quota(name="tpm", limit=6_000, window=10.0, counts="tokens"),)
    scenario = steady(quotas=quotas, service=Tokens(), requests=100, count=1)
    result = simulate(scenario)
    assert 30 < result.completed < 80
    assert result.completed + result.dropped + result.failed == 100


def test_keys_stay_and_move_with_their_server() -> None:
    """Caches are hit when keys stay; of those on a server that leaves, all move."""
    scenario = fleet(
        servers=Servers(count=4, cache=100, cached=0.0),
        service=Deterministic(mean=0.001),
        clients=Clients(keys=40),
        load=0.1,
        requests=4000,
        faults=(Drain(at="50%", servers=("server-2",)),),
    )
    result = simulate(scenario, "consistent-hash")
    assert result.cache_hits is not None
    assert result.keys_moved is not None
    moved = round(result.keys_moved * (4000 - 40))
    assert 1 <= moved <= 25
    assert result.cache_hits == pytest.approx(1 - (40 + moved) / 4000)
    scattered = simulate(scenario, "random")
    assert scattered.keys_moved == pytest.approx(0.7, abs=0.1)


class Last:
    """A strategy of a user's own: the last node."""

    def select(self, candidates: Sequence[object], context: SelectionContext = EMPTY) -> int | None:
        """Return the last index not excluded."""
        free = [i for i in range(len(candidates)) if i not in context.exclude]
        return free[-1] if free else None


def test_a_strategy_of_ones_own() -> None:
    """A class is a contender like any other, by its name."""
    result = simulate(steady(), Last)
    assert (result.strategy, result.share) == ("Last", {"server-1": 0.0, "server-2": 1.0})


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("supermarket",), TypeError, "scenario is 'supermarket'; it must be a Scenario"),
        ((steady(), "p3c"), ValueError, "'p3c' is not a strategy; did you mean 'p2c'"),
        ((steady(), "p2c/fast"), ValueError, "has an unknown option, 'fast'"),
        ((steady(), 3), TypeError, "strategy is 3; it must be a name"),
        ((steady(), "p2c", 1.5), TypeError, "seed is 1.5; it must be an int"),
        ((steady(), "p2c", True), TypeError, "seed is True; it must be an int"),
        ((steady(), "p2c", -1), ValueError, "seed is -1; it must be at least 0"),
    ],
)
def test_wrong_arguments(arguments: tuple[Any, ...], error: type[Exception], words: str) -> None:
    """They are refused before anything runs, by name and value."""
    with pytest.raises(error, match=words.replace("(", r"\(")):
        simulate(*arguments)
