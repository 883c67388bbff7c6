"""Consistency of servers of a language model with the prompts that they are sent."""

from __future__ import annotations

from loadwise.simulation.errors import ScenarioError
from loadwise.simulation.scenario.fleet import added_groups, server_groups
from loadwise.simulation.scenario.records import (
    Conversations,
    LlmTable,
    PromptTrace,
    Scenario,
    Trace,
)

__all__ = ["check_prompts"]


def check_prompts(scenario: Scenario) -> None:
    """Check that servers of a language model get prompts, and others none. O(groups).

    Raises:
        ScenarioError: They do not, or a value is set that these servers have no use for.
    """
    servers, service, arrivals = scenario.servers, scenario.service, scenario.arrivals
    prompts = isinstance(service, Conversations)
    if servers.kind != "llm":
        if prompts or isinstance(arrivals, PromptTrace):
            where = "service.kind is 'conversations'" if prompts else "arrivals.kind is 'prompts'"
            raise ScenarioError(
                f"{where}, which is for servers of a language model: set servers.kind to llm"
            )
        if servers.llm != LlmTable():
            raise ScenarioError(
                f"servers.llm is set, but servers.kind is {servers.kind!r}: set it to llm"
            )
        if scenario.clients.believed_blocks is not None:
            raise ScenarioError(
                f"clients.believed_blocks is set, but servers of kind {servers.kind!r} have no "
                f"blocks: set servers.kind to llm"
            )
        return
    kind = service.__struct_config__.tag
    if not prompts:
        raise ScenarioError(
            f"servers of kind 'llm' take prompts, and service of kind {kind!r} has none: set "
            f"service.kind to conversations"
        )
    if isinstance(arrivals, Trace):
        raise ScenarioError(
            "servers of kind 'llm' take prompts, and arrivals of kind 'trace' have none: set "
            "arrivals.kind to prompts, and its file to one in the format of Mooncake"
        )
    if servers.cache:
        raise ScenarioError(
            f"servers.cache is {servers.cache}, but servers of kind 'llm' keep blocks of prompts: "
            f"set servers.llm.blocks"
        )
    for group in (*server_groups(scenario), *added_groups(scenario)):
        if group.parallelism != 1:
            raise ScenarioError(
                f"group {group.name!r} has parallelism {group.parallelism}, but servers of kind "
                f"'llm' work on a batch: set servers.llm.batch"
            )
