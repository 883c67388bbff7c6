"""Runs with servers of a language model: real balancers, prompts, faults and callers."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from loadwise.simulation import Result, load_scenario, simulate
from loadwise.simulation.scenario import (
    Callers,
    Crash,
    Fault,
    Hang,
    Network,
    Quota,
    RestartClients,
    Scenario,
    Slow,
)

PREFILLS = ("whole", "chunked", "coupled")
HIT = ("server-1",)


def scenario(*settings: str, **changes: Any) -> Scenario:
    """Return the bundled scenario, in small."""
    return replace(load_scenario("llm-prefix", ["requests=400", *settings]), **changes)


def played(strategy: str = "prefix-affinity", *settings: str, **changes: Any) -> Result:
    """Return what comes of it."""
    return simulate(scenario(*settings, **changes), strategy)


@pytest.mark.parametrize("prefill", PREFILLS)
def test_prefix_affinity_finds_more_cached_and_waits_less(prefill: str) -> None:
    """However prompts are computed."""
    setting = f"servers.llm.prefill={prefill}"
    blind, warm = played("p2c", setting), played("prefix-affinity", setting)
    assert blind.cache_hit is not None
    assert warm.cache_hit is not None
    assert blind.ttft is not None
    assert warm.ttft is not None
    assert warm.cache_hit > 1.5 * blind.cache_hit
    assert warm.ttft.mean < 0.5 * blind.ttft.mean
    assert warm.ttft.mean < warm.latency.mean


def test_each_seed_has_its_prompts_and_each_strategy_the_same() -> None:
    """The same seed gives the same result."""
    one, same, other = (simulate(scenario(), "round-robin", seed).ttft for seed in (1, 1, 2))
    assert one == same != other
    assert played("round-robin").cache_hit != played("p2c").cache_hit


def test_what_is_counted_leaves_out_the_warm_up() -> None:
    """Hits are more once the caches are warm."""
    cold, warm = played("prefix-affinity"), played("prefix-affinity", "warmup=0.5")
    assert cold.cache_hit is not None
    assert warm.cache_hit is not None
    assert warm.cache_hit > cold.cache_hit


@pytest.mark.parametrize("prefill", PREFILLS)
@pytest.mark.parametrize(
    "fault",
    [
        Crash(at="30%", lasts="20%", servers=HIT),
        Hang(at="30%", lasts="20%", servers=HIT),
        Hang(at="30%", servers=HIT),
        Slow(at="30%", lasts="20%", factor=5.0, servers=HIT),
        RestartClients(at="50%"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_every_request_has_its_end(prefill: str, fault: Fault) -> None:
    """With retries, hedges, timeouts and delays; what does not add up raises an error."""
    result = played(
        "prefix-affinity",
        f"servers.llm.prefill={prefill}",
        "servers.queue_limit=30",
        faults=(fault,),
        callers=Callers(attempts=3, hedge=20.0, timeout=60.0),
        network=Network(delay=0.01),
    )
    # Clients that restart lose what is under way, and an answer takes seconds.
    assert result.completed > 0.5 * result.arrived
    assert result.ttft is not None
    assert result.ttft.p50 > 0.02


def test_a_crash_makes_a_cache_cold() -> None:
    """So more is computed than without."""
    crashes = tuple(Crash(at=f"{at}%", lasts="1%", servers=("server",)) for at in range(10, 90, 10))
    plain, cold = played("prefix-affinity"), played("prefix-affinity", faults=crashes)
    assert plain.cache_hit is not None
    assert cold.cache_hit is not None
    assert cold.cache_hit < 0.9 * plain.cache_hit


def test_a_slow_server_is_slow_at_both() -> None:
    """At half the speed, twice the time to the first token, and twice per token."""
    usual = played("round-robin", "load=0.01")
    half = played("round-robin", "load=0.005", "servers.speed=0.5")
    assert usual.ttft is not None
    assert half.ttft is not None
    assert half.ttft.p50 == pytest.approx(2 * usual.ttft.p50, rel=0.05)
    assert usual.tpot is not None
    assert half.tpot == pytest.approx(2 * usual.tpot, rel=0.02)


def test_quotas_count_prompt_and_answer() -> None:
    """Clients that know nothing of them get 429s."""
    quota = Quota(name="tpm", limit=100_000, counts="tokens", aware=False)
    assert played("p2c", quotas=(quota,)).rate_limited > 0


def test_groups_that_join_have_engines_of_their_own() -> None:
    """They serve, too."""
    result = played(
        "prefix-affinity",
        'faults=[{kind="add", at="20%", group={name="new", count=2, speed=2.0}}]',
    )
    assert result.share["new-1"] > 0
    assert result.completed == 400


def test_other_servers_have_no_tokens() -> None:
    """Their answers come at once."""
    result = simulate(load_scenario("supermarket", ["requests=100"]))
    assert (result.ttft, result.tpot, result.cache_hit) == (None, None, None)
