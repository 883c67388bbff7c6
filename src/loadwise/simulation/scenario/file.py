"""Scenarios from TOML files and from the gallery, with errors that say where and what instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from loadwise._tables.messages import explained, path_in
from loadwise._tables.overrides import apply_setting, as_settings, is_to_blame
from loadwise._tables.percentages import read_percentages
from loadwise._tables.reading import copied, parsed, read_toml
from loadwise._tables.schema import Raw, is_table
from loadwise.config.errors import ConfigError
from loadwise.config.file import read_fleet
from loadwise.errors import nearest
from loadwise.simulation.errors import ScenarioError
from loadwise.simulation.scenario.consistency import check
from loadwise.simulation.scenario.gallery import scenario_names, scenario_text
from loadwise.simulation.scenario.layout import SCENARIO
from loadwise.simulation.scenario.of_fleet import put_fleet
from loadwise.simulation.scenario.records import Scenario

__all__ = ["load_scenario"]

_PATH = re.compile(r"[/\\]|\.toml$")


def load_scenario(
    source: str | Path | Mapping[str, Raw],
    settings: Iterable[str] = (),
    *,
    fleet: str | Path | Mapping[str, Raw] | None = None,
) -> Scenario:
    """Read a scenario, override some of its values, and check it.

    Args:
        source: Name of a scenario of the gallery, path of a TOML file, or what such a file holds.
        settings: Values to override, in order: ``"load=0.9"``, ``"servers.groups.1.speed=0.5"``,
            ``"faults.0.at=40%"``, ``"callers.timeout=none"``, ``"arrivals.kind=bursty"``. A value
            is TOML, or plain text.
        fleet: The fleet file of a program that runs, as `loadwise.config.load_balancer` takes it.
            Its nodes, strategy, health, outliers, slow start, limits, quotas and retries are
            simulated in the place of the scenario's, before settings override them.

    Raises:
        ScenarioError: There is no such scenario or file, or it is not as it must be.
        ConfigError: The fleet file is not.
        TypeError: The settings are no list of texts.

    Example:
        >>> scenario = load_scenario("supermarket", ["load=0.5", "servers.count=10"])
        >>> scenario.load, scenario.servers.count
        (0.5, 10)
        >>> load_scenario("supermarkt")
        Traceback (most recent call last):
        ...
        loadwise.simulation.errors.ScenarioError: there is no scenario 'supermarkt'; did you mean \
'supermarket'? ('loadwise scenarios' lists them; a file is named by its path, such as ./mine.toml)
    """
    try:
        raw, name = _read(source)
        if fleet is not None:
            found = read_fleet(fleet)
            put_fleet(raw, found)
            name += f" with {found.origin}"
        changed = [(apply_setting(raw, SCENARIO, each), each) for each in as_settings(settings)]
    except (ConfigError, ScenarioError):
        raise
    except ValueError as error:
        raise ScenarioError(str(error)) from None
    read_percentages(raw, SCENARIO)
    try:
        scenario = msgspec.convert(raw, Scenario)
    except msgspec.ValidationError as error:
        path = path_in(str(error))
        by = [f"--set {setting}" for dotted, setting in changed if is_to_blame(dotted, path)]
        origin = by[-1] if by else name
        message = explained(raw, SCENARIO, path, str(error))
        raise ScenarioError(f"{origin}: {message}") from None
    try:
        check(scenario)
    except ScenarioError as error:
        raise ScenarioError(f"{name}: {error}") from None
    return scenario


def _read(source: str | Path | Mapping[str, Raw]) -> tuple[dict[str, Raw], str]:
    """Return what the source holds, to be changed, and what to call it in messages."""
    if isinstance(source, Mapping):
        return copied(source), "the scenario"
    if isinstance(source, str) and source in scenario_names():
        return parsed(scenario_text(source), source), source
    path = Path(source)
    if isinstance(source, str) and not _PATH.search(source):
        raise ScenarioError(
            f"there is no scenario {source!r}{nearest(source, scenario_names())} ('loadwise "
            f"scenarios' lists them; a file is named by its path, such as ./mine.toml)"
        )
    raw = read_toml(source, f"the scenario {str(source)!r}")
    arrivals = raw.get("arrivals")
    if is_table(arrivals) and isinstance(arrivals.get("file"), str):
        arrivals["file"] = str(path.absolute().parent / arrivals["file"])
    return raw, str(source)
