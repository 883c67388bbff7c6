"""Comparisons for the tests of the report: real runs, small ones."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from msgspec.structs import replace as changed

from loadwise.simulation import load_scenario
from loadwise.simulation.analysis.comparison import Comparison, compare
from loadwise.simulation.scenario import (
    Callers,
    Clients,
    Crash,
    Exponential,
    Fail,
    Health,
    RestartClients,
    Scenario,
    Servers,
    Slow,
)

__all__ = ["OF_PROMPTS", "STRATEGIES", "few_servers", "hostile", "many_servers", "prompts"]

STRATEGIES = ("round-robin", "p2c", "least-load/no-health")
OF_PROMPTS = ("round-robin", "least-load/pending-tokens", "prefix-affinity")


def _scenario(name: str, servers: int, **settings: Any) -> Scenario:
    return Scenario(
        name=name,
        about="Servers in trouble.",
        servers=Servers(count=servers),
        requests=3000,
        service=Exponential(mean=0.05),
        callers=Callers(attempts=2),
        health=Health(probe_interval=1.0),
        tau=0.5,
        faults=(
            Fail(servers=("server-3",), at="30%", lasts="30%"),
            Slow(servers=("server-5",), at="40%", lasts="20%"),
            Crash(servers=("server-3",), at="80%"),
        ),
        **settings,
    )


@cache
def few_servers() -> Comparison:
    """Six servers, so lines; one client, three faults, two seeds."""
    return compare(_scenario("few", 6), STRATEGIES, seeds=2)


@cache
def many_servers() -> Comparison:
    """Twenty servers, so heat maps; four clients that start anew, four faults, one seed."""
    made = _scenario("many", 20, clients=Clients(count=4))
    faults = (*made.faults, RestartClients(at="70%"))
    return compare(changed(made, faults=faults), ["p2c"], seeds=1)


@cache
def prompts() -> Comparison:
    """Servers of a language model, two seeds."""
    return compare(load_scenario("llm-prefix", ["requests=300"]), OF_PROMPTS, seeds=2)


def hostile(text: str) -> Comparison:
    """Return a comparison in which all that users may name is named so."""
    plain = few_servers()
    return Comparison(
        scenario=changed(plain.scenario, name=text, about=text),
        summaries=tuple(replace(summary, strategy=text) for summary in plain.summaries),
        verdict=(text,),
    )
