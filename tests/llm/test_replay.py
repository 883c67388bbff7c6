"""Simulated servers of a language model: their paces, and a published trace where it is."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from loadwise import NodeSet
from loadwise.llm import PrefixAffinity, PrefixIndex
from loadwise.simulation import load_scenario, simulate

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
TRACE = DATA / "mooncake-conversation.jsonl"
BLOCKS, CHARACTERS = 2000, 2048
"""Of the servers' caches."""
UNEVEN = (
    "servers.count=none",
    'servers.groups=[{name="quick",count=4,speed=1.5},{name="slow",count=4,speed=0.5}]',
)


def affinity() -> PrefixAffinity[str]:
    """Return one that believes the caches to be as they are."""
    return PrefixAffinity(PrefixIndex(BLOCKS, CHARACTERS), rng=Random(1))


@pytest.mark.parametrize("prefill", ["whole", "coupled"])
def test_unequal_servers_are_told_by_their_pace(prefill: str) -> None:
    """A server three times as quick is found to be, whether it also writes in the same steps."""
    strategy = affinity()
    settings = ["requests=1200", "load=1.5", f"servers.llm.prefill={prefill}", *UNEVEN]
    simulate(load_scenario("llm-prefix", settings), lambda: strategy)
    ids = [f"{name}-{number}" for name in ("quick", "slow") for number in range(1, 5)]
    speeds = strategy.facts(NodeSet(ids))["speed"]
    assert speeds[:4] == pytest.approx([speeds[0]] * 4, rel=0.2)
    assert [speeds[0] / speed for speed in speeds[4:]] == pytest.approx([3.0] * 4, rel=0.25)


def test_equal_servers_are_found_to_be() -> None:
    """Queues and caches are not taken for pace."""
    strategy = affinity()
    settings = ["requests=1200", "load=1.5", "service.sigma=0.1"]
    simulate(load_scenario("llm-prefix", settings), lambda: strategy)
    assert "speed" not in strategy.facts(NodeSet([f"server-{number}" for number in range(1, 9)]))


@pytest.mark.slow
@pytest.mark.skipif(not TRACE.exists(), reason=f"the Mooncake trace is not in {DATA}")
def test_the_trace_waits_as_short_as_it_did_in_the_trial() -> None:
    """At 1.5 times the load, with 12,031 requests; see docs/llm-simulation.md for more."""
    played = ["arrivals.kind=prompts", f"arrivals.file={TRACE}", "arrivals.speed=1.5"]
    found = simulate(load_scenario("llm-prefix", played), "prefix-affinity").ttft
    assert found is not None
    assert found.mean <= 1.70
