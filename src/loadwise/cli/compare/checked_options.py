"""The request that the options make up, checked before anything is simulated."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer
from msgspec.structs import replace

from loadwise._tables.contenders import contender
from loadwise._text import visible_lines
from loadwise.cli.compare.output_files import Targets, check_targets
from loadwise.config import ConfigError
from loadwise.simulation.errors import ScenarioError
from loadwise.simulation.scenario import PromptTrace, Scenario, Tokens, Trace
from loadwise.simulation.scenario.consistency import check, check_strategy
from loadwise.simulation.scenario.file import load_scenario
from loadwise.simulation.world.prompt_trace import read_prompts
from loadwise.simulation.world.trace import read_trace

__all__ = ["ComparisonRequest", "Recorded", "ScenarioSource", "prepare"]

_TOKEN_COLUMNS = 2


@dataclass(frozen=True, slots=True)
class ScenarioSource:
    """A scenario by its name or path, the fleet file to put into it, and values to override."""

    name: str
    fleet: str | None
    settings: Sequence[str]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A trace to play: its file, the speed, and of a CSV file the columns of time and costs."""

    file: Path | None
    time: str | None
    cost: str | None
    speed: float | None


@dataclass(frozen=True, slots=True)
class ComparisonRequest:
    """A comparison to make, and how many runs at a time."""

    scenario: Scenario
    strategies: tuple[str, ...]
    seeds: int
    jobs: int
    targets: Targets


def prepare(
    source: ScenarioSource,
    strategies: Sequence[str],
    recorded: Recorded,
    targets: Targets,
    *,
    requests: int | None,
    seeds: int,
    jobs: int | None,
) -> ComparisonRequest:
    """Return the request that the options make up.

    Raises:
        typer.BadParameter: An option is wrong; it is named.
    """
    check_targets(targets)
    counted = [f"requests={requests}"] if requests is not None else []
    try:
        scenario = load_scenario(source.name, [*source.settings, *counted], fleet=source.fleet)
    except (ConfigError, ImportError) as error:
        raise typer.BadParameter(_sentence(error), param_hint="--fleet") from None
    except ScenarioError as error:
        text = _sentence(error)
        hint = "--set" if text.startswith("--set ") else "SCENARIO"
        raise typer.BadParameter(text.removeprefix("--set "), param_hint=hint) from None
    own_count = bool(counted) or any(
        setting.partition("=")[0].strip() == "requests" for setting in source.settings
    )
    scenario = _counted(_with_trace(scenario, recorded), recorded, whole=not own_count)
    names = _names(scenario, strategies or scenario.strategies)
    return ComparisonRequest(scenario, names, seeds, jobs or usable_cpus(), targets)


def usable_cpus() -> int:
    """Return how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _with_trace(scenario: Scenario, recorded: Recorded) -> Scenario:
    """Return the scenario with recorded arrivals, if a trace is to be played."""
    if recorded.file is None:
        for option, value in (
            ("--time", recorded.time),
            ("--cost", recorded.cost),
            ("--speed", recorded.speed),
        ):
            if value is not None:
                raise typer.BadParameter(
                    f"{value!r} tells how to read a trace; name its file with --trace.",
                    param_hint=option,
                )
        return scenario
    speed = 1.0 if recorded.speed is None else recorded.speed
    if scenario.servers.kind == "llm" or recorded.file.suffix == ".jsonl":
        return _checked(_with_prompts(scenario, recorded, recorded.file, speed))
    if recorded.time is None:
        raise typer.BadParameter(
            "it takes --time, the column of the arrival times, such as --time TIMESTAMP.",
            param_hint="--trace",
        )
    cost = tuple(name.strip() for name in (recorded.cost or "").split(",") if name.strip())
    trace = Trace(
        file=str(recorded.file),
        time=recorded.time,
        cost=cost,
        speed=speed,
    )
    service = scenario.service
    if len(cost) == _TOKEN_COLUMNS and not isinstance(service, Tokens):
        service = Tokens()
    return _checked(replace(scenario, arrivals=trace, service=service))


def _with_prompts(scenario: Scenario, recorded: Recorded, file: Path, speed: float) -> Scenario:
    """Return the scenario with recorded prompts, which tell all by themselves."""
    for option, value in (("--time", recorded.time), ("--cost", recorded.cost)):
        if value is not None:
            raise typer.BadParameter(
                f"{value!r} names columns of a CSV file; {file.name} is read as prompts in the "
                f"format of Mooncake, which has none: leave it out.",
                param_hint=option,
            )
    return replace(scenario, arrivals=PromptTrace(file=str(file), speed=speed))


def _checked(played: Scenario) -> Scenario:
    try:
        check(played)
    except ScenarioError as error:
        raise typer.BadParameter(_sentence(error), param_hint="--trace") from None
    return played


def _counted(scenario: Scenario, recorded: Recorded, *, whole: bool) -> Scenario:
    """Return the scenario with as many requests as its recording has, if it plays one.

    Args:
        scenario: It, with the recording.
        recorded: What the command line says of that.
        whole: Whether nothing there says how many requests there are.
    """
    arrivals = scenario.arrivals
    if not isinstance(arrivals, Trace | PromptTrace):
        return scenario
    try:
        if isinstance(arrivals, Trace):
            rows = len(read_trace(arrivals).times)
        else:
            rows = len(read_prompts(arrivals, scenario.servers.llm.block_tokens).times)
    except ScenarioError as error:
        hint = "SCENARIO" if recorded.file is None else "--trace"
        raise typer.BadParameter(_sentence(error), param_hint=hint) from None
    if recorded.file is not None and whole:
        return replace(scenario, requests=rows)
    return replace(scenario, requests=min(rows, scenario.requests))


def _names(scenario: Scenario, strategies: Sequence[str]) -> tuple[str, ...]:
    """Return the contenders by their usual names, each once."""
    try:
        for each in strategies:
            check_strategy(scenario, each)
    except ScenarioError as error:
        raise typer.BadParameter(_sentence(error), param_hint="--strategy") from None
    return tuple(dict.fromkeys(contender(each).name for each in strategies))


def _sentence(error: Exception) -> str:
    text = visible_lines(str(error))
    return text if text.endswith((".", ")", "?")) else f"{text}."
