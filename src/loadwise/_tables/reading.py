"""Content of TOML files, with errors that say where one is not TOML."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from loadwise._tables.overrides import check_text
from loadwise._tables.schema import Raw

__all__ = ["copied", "parsed", "read_toml"]


def read_toml(source: str | Path, what: str) -> dict[str, Raw]:
    """Return what a TOML file holds.

    Args:
        source: Path of the file, as messages name it.
        what: What the message calls it where it cannot be read.

    Raises:
        ValueError: It cannot be read, is not UTF-8 or no TOML.
    """
    try:
        content = Path(source).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{what} cannot be read: {reason}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{source}, line {line}: this is not UTF-8") from None
    return parsed(text, str(source))


def parsed(text: str, name: str) -> dict[str, Raw]:
    """Return what a text of TOML holds.

    Args:
        text: The text.
        name: What messages call it.

    Raises:
        ValueError: It is no TOML.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError(f"{name}: its lists are nested too deeply") from None
    except ValueError as error:
        found = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", str(error), re.DOTALL)
        place, reason = "", str(error)
        if found is not None:
            place, reason = f", line {found[2]}, column {found[3]}", found[1]
        raise ValueError(f"{name}{place}: this is not TOML: {reason}") from None


def copied(value: Raw) -> Raw:
    """Return a copy of what a file could hold, to be changed.

    Raises:
        ValueError: A text in it cannot be written.
    """
    if isinstance(value, Mapping):
        table = cast("Mapping[str, Raw]", value)
        return {copied(key): copied(inner) for key, inner in table.items()}
    if isinstance(value, str):
        check_text(value)
    if isinstance(value, list | tuple):
        return [copied(inner) for inner in cast("Iterable[Raw]", value)]
    return value
