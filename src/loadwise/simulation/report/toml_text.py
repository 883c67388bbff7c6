"""A scenario as the TOML file that it could have been read from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeGuard

import msgspec

from loadwise._text import visible
from loadwise.simulation.scenario import Scenario

__all__ = ["toml_of"]

Table = dict[str, Any]


def toml_of(scenario: Scenario) -> str:
    """Return the scenario with all its values, the defaults too; ``None`` is left unsaid.

    Reading it gives an equal scenario.
    """
    return "\n".join(_lines(msgspec.to_builtins(scenario), ())).strip() + "\n"


def _lines(table: Table, path: tuple[str, ...]) -> list[str]:
    """Return a table's own values, and then its tables, since those end it."""
    values: list[str] = []
    tables: list[str] = []
    for key, value in table.items():
        deeper = (*path, key)
        if _is_table(value):
            tables += ["", f"[{'.'.join(deeper)}]", *_lines(value, deeper)]
        elif _is_list(value) and value and _is_table(value[0]):
            for item in value:
                tables += ["", f"[[{'.'.join(deeper)}]]", *_lines(item, deeper)]
        elif value is not None:
            values.append(f"{key} = {_value(value)}")
    return values + tables


def _is_table(value: object) -> TypeGuard[Table]:
    return isinstance(value, dict)


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, list | tuple)


def _value(value: object) -> str:
    if _is_list(value):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        lines = [_escaped(line) for line in value.split("\n")]
        return f'"{lines[0]}"' if len(lines) == 1 else '"""\n' + "\n".join(lines) + '"""'
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value)


def _escaped(line: str) -> str:
    # JSON's escapes are TOML's. TOML wants DEL escaped, too, and readers what they cannot see.
    escaped = json.dumps(line, ensure_ascii=False)[1:-1]
    if escaped.isprintable():
        return escaped
    return "".join(each if visible(each) == each else f"\\U{ord(each):08x}" for each in escaped)
