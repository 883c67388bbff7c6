"""Fleets from TOML files, with errors that say where and what instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from loadwise._tables.messages import Route
from loadwise._tables.overrides import apply_setting, as_settings, is_to_blame
from loadwise._tables.percentages import read_percentages
from loadwise._tables.problems import problems_in
from loadwise._tables.reading import copied, read_toml
from loadwise._tables.schema import Raw, is_list, is_table
from loadwise.config.consistency import inconsistencies, strategy_faults
from loadwise.config.errors import ConfigError
from loadwise.config.layout import FLEET
from loadwise.config.records import FleetTable
from loadwise.config.unused import unused_values
from loadwise.node_list import NodeListError, nodes_in
from loadwise.nodes import Endpoint

__all__ = ["FleetFile", "read_fleet"]


@dataclass(frozen=True, slots=True)
class FleetFile:
    """A fleet file that has been read and checked.

    Attributes:
        origin: The file, as it was named.
        table: What it says.
        nodes: The nodes that it names; none where it names a source of them.
        unused: What it says in vain, in words.
    """

    origin: str
    table: FleetTable
    nodes: tuple[Endpoint, ...]
    unused: tuple[str, ...] = ()


def read_fleet(source: str | Path | Mapping[str, Raw], settings: Iterable[str] = ()) -> FleetFile:
    """Read a fleet file, override some of its values, and check it. It builds nothing.

    Args:
        source: Path of a TOML file, or what such a file holds.
        settings: Values to override, in order: ``"clients.zone=eu-1"``, ``"nodes.0.weight=2"``.

    Raises:
        ConfigError: It cannot be read or is not as it must be; all that is wrong is told.
        TypeError: The settings are no list of texts.
    """
    name = "the fleet" if isinstance(source, Mapping) else str(source)
    try:
        raw = copied(source) if isinstance(source, Mapping) else _beside(source)
    except ValueError as error:
        raise ConfigError(name, [_without(name, str(error))]) from None
    raw, changed, problems = _changed(raw, as_settings(settings))
    read_percentages(raw, FLEET)
    found = list(problems_in(raw, FLEET))
    problems += [_blamed(path, text, changed) for path, text in found]
    nodes: tuple[Endpoint, ...] = ()
    if raw.get("nodes") is not None and not any(path[:1] == ("nodes",) for path, _ in found):
        try:
            nodes = nodes_in(raw["nodes"])
        except NodeListError as error:
            problems.append(str(error))
    problems += _of_strategy(raw) if problems else []
    if not problems:
        table = msgspec.convert(raw, FleetTable)
        problems += inconsistencies(table, nodes)
        if not problems:
            unused = unused_values(table, nodes, has_tau="tau" in raw)
            return FleetFile(name, table, nodes, tuple(unused))
    raise ConfigError(name, problems)


def _changed(
    raw: dict[str, Raw], settings: Iterable[str]
) -> tuple[dict[str, Raw], list[tuple[str, str]], list[str]]:
    """Return a fleet with its settings, the keys that these set, and what is wrong with them."""
    keys: list[tuple[str, str]] = []
    problems: list[str] = []
    for setting in settings:
        trial = copied(raw)  # for one that is refused half way
        try:
            keys.append((_set(trial, setting), setting))
        except ValueError as error:
            problems.append(str(error))
        else:
            raw = trial
    return raw, keys, problems


def _set(raw: dict[str, Raw], setting: str) -> str:
    """Change a fleet, and return the key that was set. A node that is but an id may get more."""
    nodes = raw.get("nodes")
    if is_list(nodes) and re.match(r"\s*nodes\.\d+\.", setting):
        raw["nodes"] = [{"id": each} if isinstance(each, str) else each for each in nodes]
    return apply_setting(raw, FLEET, setting)


def _of_strategy(raw: dict[str, Raw]) -> list[str]:
    """Return what is wrong with the strategy's name, where the rest is not as it must be either."""
    name = raw.get("strategy")
    return list(strategy_faults(name)) if isinstance(name, str) and name else []


def _beside(path: str | Path) -> dict[str, Raw]:
    """Return what a file holds, with the paths in it relative to the file's own folder."""
    raw = read_toml(path, "it")
    source = raw.get("source")
    if is_table(source):
        for key in {"path", "cache"} & source.keys():
            if isinstance(source[key], str) and source[key]:
                source[key] = str(Path(path).absolute().parent / source[key])
    return raw


def _without(name: str, text: str) -> str:
    """Return what a message says about a file, without its name."""
    return text.removeprefix(name).lstrip(":, ")


def _blamed(path: Route, text: str, changed: Iterable[tuple[str, str]]) -> str:
    """Return a problem with the setting that brought it, if one did."""
    by = [setting for dotted, setting in changed if is_to_blame(dotted, path)]
    return f"--set {by[-1]}: {text}" if by else text
