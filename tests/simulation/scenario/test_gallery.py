"""The scenarios that ship with loadwise: each is well formed and shows what it says it shows."""

from __future__ import annotations

from functools import cache
from importlib import resources

import pytest

from loadwise.simulation.runs.engine import simulate
from loadwise.simulation.runs.result import Result
from loadwise.simulation.scenario import Scenario, gallery
from loadwise.simulation.scenario.file import load_scenario
from loadwise.simulation.scenario.gallery import scenario_names, scenario_text

NAMES = (
    "supermarket",
    "homogeneous",
    "heterogeneous",
    "slow-node",
    "black-hole",
    "stampede",
    "flapping",
    "overload",
    "brownout",
    "gray-failure",
    "canary",
    "slow-start",
    "zone-outage",
    "many-clients",
    "many-workers",
    "affinity-churn",
    "llm-fleet",
    "llm-prefix",
)


@cache
def played(name: str, strategy: str, *settings: str) -> Result:
    """Return what comes of a scenario, with a fifth of its requests."""
    requests = load_scenario(name).requests // 5
    return simulate(load_scenario(name, [f"requests={requests}", *settings]), strategy)


def errors(result: Result) -> float:
    """Return the share of the requests without a good answer."""
    return (result.failed + result.dropped) / result.arrived


def unhealthy(result: Result) -> float:
    """Return the share of the attempts that went to a server in trouble."""
    return result.unhealthy_picks / result.attempts


def test_the_names_are_those_of_the_files() -> None:
    """Each file is listed, and nothing else."""
    files = resources.files(gallery).iterdir()
    found = {file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")}
    assert scenario_names() == NAMES
    assert found == set(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("clients", [1, 8])
@pytest.mark.parametrize("tau", [0.02, 0.2, 2.0, 20.0])
@pytest.mark.parametrize("strategy", ["p2c-peak-ewma", "least-load-peak-ewma"])
def test_any_tau_does_for_any_number_of_clients(clients: int, tau: float, strategy: str) -> None:
    """Servers alike, one request at a time: p99 is at most 1.5 times that by requests in flight.

    Before peak EWMA went by ages, eight clients drove it to 200 s and more with least load.
    """
    fleet = "servers.count=32", "servers.parallelism=1", "load=0.8", "requests=8000"
    settings = (*fleet, f"clients.count={clients}")
    by_count = played("homogeneous", "p2c", *settings).latency.p99
    assert played("homogeneous", strategy, *settings, f"tau={tau}").latency.p99 <= 1.5 * by_count


def test_unknown_names() -> None:
    """A name is never taken for a path."""
    for name in ("nowhere", "../gallery/overload", ""):
        with pytest.raises(KeyError):
            scenario_text(name)


@pytest.mark.parametrize("name", NAMES)
def test_form(name: str) -> None:
    """A file begins with why it is as it is, has its own name, and says in two lines what for."""
    text = scenario_text(name)
    assert text.startswith("# ")
    assert max(map(len, text.splitlines())) <= 100
    scenario = load_scenario(name)
    assert scenario.name == name
    assert len(scenario.about.splitlines()) == 2
    assert scenario.about.endswith(".")
    assert 20_000 <= scenario.requests <= 600_000


@pytest.mark.parametrize("name", NAMES)
def test_moments_are_shares_of_the_run(name: str) -> None:
    """So that faults happen however many requests there are."""
    scenario: Scenario = load_scenario(name, ["requests=300"])
    assert all(isinstance(fault.at, str) for fault in scenario.faults)
    for strategy in scenario.strategies:
        result = simulate(scenario, strategy)
        assert result.arrived == 300
        assert len(result.timeline.marks) == len(scenario.faults)


@pytest.mark.parametrize("name", ["p2c", "random"])
def test_supermarket(name: str) -> None:
    """Two choices are near Mitzenmacher's 2.614, one choice is far beyond, all are near 1.

    A fifth of the requests leaves a few percent of chance; the proof is made with more of them.
    """
    mean = played("supermarket", name).latency.mean
    assert 2.3 < mean < 2.9 if name == "p2c" else mean > 5.0


def test_homogeneous() -> None:
    """Requests in flight beat turns, and turns beat chance; p2c is nearly as good as asking all."""
    means = {
        name: played("homogeneous", name).latency.mean
        for name in ("least-load", "p2c", "round-robin", "random")
    }
    assert means["least-load"] <= means["p2c"] < 0.9 * means["round-robin"]
    assert means["round-robin"] < 0.9 * means["random"]
    assert means["p2c"] < 1.1 * means["least-load"]


def test_heterogeneous() -> None:
    """Equal shares drown the small servers; weights, queues and latencies know better."""
    fair = played("heterogeneous", "round-robin").latency.mean
    for name in ("weighted-round-robin", "p2c", "p2c-peak-ewma", "least-load"):
        assert played("heterogeneous", name).latency.mean < fair / 5


def test_slow_node() -> None:
    """The slow server is the p99 of those that cannot see it; for health it is well."""
    for blind in ("round-robin", "random"):
        assert played("slow-node", blind).latency.p99 > 1.0
        assert not played("slow-node", blind).timeline.health
    for seeing in ("p2c", "p2c-peak-ewma", "least-load"):
        assert played("slow-node", seeing).latency.p99 < 0.2


def test_black_hole() -> None:
    """Who looks for idle servers is drawn in, peak EWMA is not, and health tracking ends it."""
    bare = {
        name: unhealthy(played("black-hole", f"{name}/no-health"))
        for name in ("p2c-peak-ewma", "round-robin", "p2c", "least-load")
    }
    assert list(bare) == sorted(bare, key=bare.__getitem__)
    assert bare["least-load"] > 0.15
    assert errors(played("black-hole", "least-load/no-health")) > 0.05
    for name in bare:
        tracked = played("black-hole", name)
        assert unhealthy(tracked) < 0.005
        assert errors(tracked) == 0


def test_stampede() -> None:
    """In step, they hit one server after the other; from random starting points they do not."""
    in_step = played("stampede", "round-robin").latency.p99
    for name in ("round-robin-random-start", "random", "p2c"):
        assert played("stampede", name).latency.p99 < in_step / 2


def test_flapping() -> None:
    """Health tracking saves nearly all retries."""
    for name in ("round-robin", "p2c"):
        tracked, bare = played("flapping", name), played("flapping", f"{name}/no-health")
        assert tracked.retries < bare.retries / 10
        assert unhealthy(tracked) < unhealthy(bare) / 10


def test_overload() -> None:
    """What can be served is served; a bigger budget gives retries only, no bounds give nothing."""
    bare = played("overload", "p2c/no-health")
    assert 0.2 < errors(bare) < 0.3  # 0.3 / 1.3 cannot be served
    for name in ("p2c", "round-robin"):
        tracked = played("overload", name)
        assert errors(tracked) < 1.1 * errors(played("overload", f"{name}/no-health"))
        assert 0.1 < tracked.panic < 0.5
        without = played("overload", name, "health.panic_threshold=none")
        assert errors(without) > 2 * errors(bare)
    generous = played("overload", "p2c/no-health", "callers.budget=1")
    assert generous.retries > 3 * bare.retries
    assert errors(generous) > 0.95 * errors(bare)
    unbounded = played("overload", "p2c/no-health", "servers.queue_limit=none")
    assert errors(unbounded) > 3 * errors(bare)


def test_brownout() -> None:
    """With panic, health tracking loses what must be lost: 0.3 cubed, for half of the run."""
    for name in ("p2c", "round-robin", "least-load"):
        tracked, bare = played("brownout", name), played("brownout", f"{name}/no-health")
        for result in (tracked, bare):
            assert 0.009 < errors(result) < 0.018
        assert tracked.latency.mean < 1.1 * bare.latency.mean
        assert tracked.panic > 0.005
        assert not bare.panic
    without = played("brownout", "p2c", "health.panic_threshold=none")
    assert errors(without) > 0.3
    assert not without.panic


def test_gray_failure() -> None:
    """Health tracking sees nothing of it; ejection leaves a fraction of the losses."""
    for name in ("p2c", "p2c-peak-ewma"):
        tracked = played("gray-failure", name)
        ejecting = played("gray-failure", f"{name}/outliers")
        assert errors(tracked) > 0.001
        assert errors(ejecting) < 0.6 * errors(tracked)
        assert ejecting.ejections >= 1
        assert not tracked.ejections


def test_canary() -> None:
    """By its share a release costs a third of a twentieth of half the run, by load twice that."""
    by_load, by_share = played("canary", "p2c/no-health"), played("canary", "split/no-health")
    assert 0.006 < errors(by_share) < 0.011
    assert errors(by_load) > 1.7 * errors(by_share)
    for name in ("split", "split/outliers"):
        assert errors(played("canary", name)) < 0.7 * errors(by_share)


def test_slow_start() -> None:
    """A server that joins cold hurts less, with every strategy that honours weights."""
    window = "slow_start.window=8"
    for name in ("weighted-round-robin", "p2c", "least-load"):
        cold = played("slow-start", name).latency.p99
        assert played("slow-start", f"{name}/slow-start", window).latency.p99 < 0.9 * cold


def test_zone_outage() -> None:
    """Nothing is lost, and who stays at home is quicker, as long as there is a home."""
    across, at_home = played("zone-outage", "p2c"), played("zone-outage", "zones")
    assert errors(at_home) == 0
    assert at_home.latency.mean < 0.85 * across.latency.mean
    # In tiers, those behind are used while the first are down, and then no more.
    reserve = "servers.groups.0.priority=0", "servers.groups.1.priority=1"
    tiers = played("zone-outage", "tiers", *reserve, "servers.groups.2.priority=1", "load=0.2")
    assert errors(tiers) < 0.001
    shares = [sum(share for id_, share in tiers.share.items() if id_[0] == zone) for zone in "abc"]
    assert shares[0] > 0.5
    assert min(shares[1:]) > 0.1


def test_many_clients() -> None:
    """Clients that each use a part of the fleet see more of it, by either kind of subset."""
    whole = played("many-clients", "least-load", "clients.subset=none").latency.mean
    assert played("many-clients", "least-load").latency.mean < 0.85 * whole
    rendezvous = played("many-clients", "least-load", "clients.subset=rendezvous")
    assert len(rendezvous.share) == 32
    assert played("many-clients", "least-load", "clients.count=1").latency.mean < 0.7 * whole


def test_many_workers() -> None:
    """Workers that share on their host choose as one balancer does."""

    def p99(*settings: str) -> float:
        scenario = load_scenario("many-workers", ["requests=8000", *settings])
        return simulate(scenario, "least-load").latency.p99

    one = p99("clients.count=1")
    assert one < 0.7 * p99()
    assert 0.85 * one < p99("clients.per_host=8") < 1.15 * one


def test_affinity_churn() -> None:
    """Keys that stay find their data at hand."""
    hashed = played("affinity-churn", "consistent-hash")
    scattered = played("affinity-churn", "p2c")
    assert hashed.keys_moved is not None
    assert scattered.keys_moved is not None
    assert hashed.keys_moved < 0.05
    assert scattered.keys_moved > 0.8
    assert hashed.cache_hits is not None
    assert scattered.cache_hits is not None
    assert hashed.cache_hits > 1.5 * scattered.cache_hits
    assert hashed.latency.mean < 0.7 * scattered.latency.mean


def test_llm_fleet() -> None:
    """Equal shares drown the old servers; quotas are met, and hardly ever by a 429."""
    fair = played("llm-fleet", "round-robin")
    for name in ("p2c", "p2c-peak-ewma", "least-load"):
        seeing = played("llm-fleet", name)
        assert seeing.latency.mean < fair.latency.mean / 5
        assert seeing.rate_limited < 0.03 * seeing.arrived
        assert errors(seeing) < 0.01
    loose = played("llm-fleet", "least-load", "quotas=[]")
    assert loose.share["large-1"] > played("llm-fleet", "least-load").share["large-1"]
