"""Scenarios from TOML files and from the gallery, with errors that say where and what instead."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

import msgspec

from loadwise.errors import nearest
from loadwise.simulation.errors import ScenarioError
from loadwise.simulation.scenario.consistency import check
from loadwise.simulation.scenario.gallery import scenario_names, scenario_text
from loadwise.simulation.scenario.messages import Route, explained, path_in
from loadwise.simulation.scenario.overrides import apply_setting, check_text
from loadwise.simulation.scenario.percentages import read_percentages
from loadwise.simulation.scenario.records import Scenario
from loadwise.simulation.scenario.schema import Raw, is_table

__all__ = ["load_scenario"]

_PATH = re.compile(r"[/\\]|\.toml$")


def load_scenario(source: str | Path | Mapping[str, Raw], settings: Iterable[str] = ()) -> Scenario:
    """Read a scenario, override some of its values, and check it.

    Args:
        source: Name of a scenario of the gallery, path of a TOML file, or what such a file holds.
        settings: Values to override, in order: ``"load=0.9"``, ``"servers.groups.1.speed=0.5"``,
            ``"faults.0.at=40%"``, ``"callers.timeout=none"``, ``"arrivals.kind=bursty"``. A value
            is TOML, or plain text.

    Raises:
        ScenarioError: There is no such scenario or file, or it is not as it must be.

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
    raw, name = _read(source)
    changed = [(apply_setting(raw, setting), setting) for setting in settings]
    read_percentages(raw)
    try:
        scenario = msgspec.convert(raw, Scenario)
    except msgspec.ValidationError as error:
        path = path_in(str(error))
        by = [f"--set {setting}" for dotted, setting in changed if _is_to_blame(dotted, path)]
        origin = by[-1] if by else name
        raise ScenarioError(f"{origin}: {explained(raw, path, str(error))}") from None
    try:
        check(scenario)
    except ScenarioError as error:
        raise ScenarioError(f"{name}: {error}") from None
    return scenario


def _read(source: str | Path | Mapping[str, Raw]) -> tuple[dict[str, Raw], str]:
    """Return what the source holds, to be changed, and what to call it in messages."""
    if isinstance(source, Mapping):
        return _copied(source), "the scenario"
    if isinstance(source, str) and source in scenario_names():
        return _parsed(scenario_text(source), source), source
    path = Path(source)
    if isinstance(source, str) and not _PATH.search(source):
        raise ScenarioError(
            f"there is no scenario {source!r}{nearest(source, scenario_names())} ('loadwise "
            f"scenarios' lists them; a file is named by its path, such as ./mine.toml)"
        )
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ScenarioError(f"the scenario {str(source)!r} cannot be read: {reason}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ScenarioError(f"{source}, line {line}: this is not UTF-8") from None
    raw = _parsed(text, str(source))
    arrivals = raw.get("arrivals")
    if is_table(arrivals) and isinstance(arrivals.get("file"), str):
        arrivals["file"] = str(path.absolute().parent / arrivals["file"])
    return raw, str(source)


def _parsed(text: str, name: str) -> dict[str, Raw]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ScenarioError(f"{name}: its lists are nested too deeply") from None
    except ValueError as error:
        found = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", str(error), re.DOTALL)
        place, reason = "", str(error)
        if found is not None:
            place, reason = f", line {found[2]}, column {found[3]}", found[1]
        raise ScenarioError(f"{name}{place}: this is not TOML: {reason}") from None


def _copied(value: Raw) -> Raw:
    if isinstance(value, Mapping):
        table = cast("Mapping[str, Raw]", value)
        return {_copied(key): _copied(inner) for key, inner in table.items()}
    if isinstance(value, str):
        check_text(value)
    if isinstance(value, list | tuple):
        return [_copied(inner) for inner in cast("Iterable[Raw]", value)]
    return value


def _is_to_blame(dotted: str, path: Route) -> bool:
    """Tell whether a setting, or a lack of its kind's keys, is what is wrong at a path."""
    wrong = ".".join(map(str, path))
    return f"{wrong}.".startswith(f"{dotted}.") or dotted == f"{wrong}.kind"
