"""Servers of a language model get prompts, and others none."""

from __future__ import annotations

from typing import Any

import pytest
from tests.simulation.support import fleet

from loadwise.simulation.errors import ScenarioError
from loadwise.simulation.scenario import (
    Add,
    Clients,
    Conversations,
    Exponential,
    Group,
    LlmTable,
    PromptTrace,
    Quota,
    Servers,
    Trace,
)
from loadwise.simulation.scenario.consistency import check
from loadwise.simulation.scenario.fleet import capacity, run_seconds

LLM = Servers(kind="llm", count=2)
PROMPTS = PromptTrace(file="a.jsonl")
WIDE = Add(at=1.0, group=Group(name="new", parallelism=2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"servers": LLM, "service": Exponential()}, "set service.kind to conversations"),
        ({"service": Conversations()}, "service.kind is 'conversations'.*set servers.kind to llm"),
        ({"arrivals": PROMPTS}, "arrivals.kind is 'prompts'.*set servers.kind to llm"),
        (
            {"servers": LLM, "arrivals": Trace(file="a.csv", time="t")},
            "arrivals of kind 'trace' have none: set arrivals.kind to prompts",
        ),
        (
            {"servers": Servers(count=2, llm=LlmTable(blocks=5)), "service": Exponential()},
            "servers.llm is set, but servers.kind is 'plain': set it to llm",
        ),
        (
            {"clients": Clients(believed_blocks=5), "service": Exponential()},
            "clients.believed_blocks is set, but servers of kind 'plain' have no blocks",
        ),
        (
            {"servers": Servers(kind="llm", count=2, cache=5), "clients": Clients(keys=3)},
            "servers.cache is 5.*set servers.llm.blocks",
        ),
        (
            {"servers": Servers(kind="llm", count=2, parallelism=4)},
            "group 'server' has parallelism 4.*set servers.llm.batch",
        ),
        ({"servers": LLM, "faults": (WIDE,)}, "group 'new' has parallelism 2"),
    ],
)
def test_what_does_not_go_together(settings: dict[str, Any], message: str) -> None:
    """The message has the value and the remedy."""
    prompts = {"service": Conversations()} if settings.get("servers") else {}
    with pytest.raises(ScenarioError, match=message):
        check(fleet(**prompts | settings))


def test_what_goes_together() -> None:
    """Prompts that are drawn or recorded, quotas of tokens, groups that differ in speed."""
    groups = Servers(kind="llm", groups=(Group(name="a", speed=3.0), Group(name="b")))
    for servers in (LLM, groups):
        check(fleet(servers=servers, service=Conversations()))
        check(fleet(servers=servers, service=Conversations(), arrivals=PROMPTS))
    tokens = Quota(name="tpm", limit=1e6, counts="tokens")
    check(fleet(servers=LLM, service=Conversations(), quotas=(tokens,)))


def test_the_load_is_that_of_prompts_without_a_cache() -> None:
    """At speed 3, three times as many."""
    service = Conversations(system=1000, document=0, message=500, output=100, turns=1)
    servers = Servers(
        kind="llm",
        groups=(Group(name="a", speed=3.0), Group(name="b")),
        llm=LlmTable(prefill_rate=1000, prefill_base=0.5),
    )
    scenario = fleet(servers=servers, service=service, load=0.5, requests=100)
    assert capacity(scenario) == pytest.approx(4 / 2.0)
    assert run_seconds(scenario) == pytest.approx(100.0)
    assert run_seconds(fleet(servers=LLM, service=service, arrivals=PROMPTS)) is None
