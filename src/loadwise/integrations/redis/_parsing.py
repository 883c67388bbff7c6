"""Validation of the server's replies: nothing in them is used unchecked."""

from __future__ import annotations

import json
import math
from typing import NoReturn, cast

__all__ = [
    "EXACT",
    "Rejected",
    "check_schema",
    "decode_json",
    "fields",
    "number",
    "text",
    "whole",
]

EXACT = 2**53
"""Whole numbers up to here are exact in every language involved."""


class Rejected(ValueError):  # noqa: N818 - names the fact, as KeyError does
    """The server holds something that loadwise would not have put there."""


def text(value: object, longest: int = 200) -> str:
    """Return an answer as a str of at most ``longest`` bytes.

    Raises:
        Rejected: It is none.
    """
    try:
        found = value.decode() if isinstance(value, bytes) else value
        if not isinstance(found, str):
            raise Rejected(f"{value!r:.40} is no text")
        length = len(value if isinstance(value, bytes) else found.encode())
    except UnicodeError:
        raise Rejected(f"{value!r:.40} is not UTF-8") from None
    if length > longest:
        raise Rejected(f"{length} bytes where at most {longest} belong")
    return found


def number(value: object) -> float:
    """Return an answer as a number from 0 to `EXACT`.

    Raises:
        Rejected: It is none.
    """
    try:
        found = float(text(value, 40))
    except ValueError:
        found = math.nan
    if not 0 <= found <= EXACT:
        raise Rejected(f"{str(value)[:40]!r} is no number from 0 to 2**53")
    return int(found) if found.is_integer() else found


def whole(value: object) -> int:
    """Return an answer as a whole number from 0 to `EXACT`.

    Raises:
        Rejected: It is none.
    """
    found = number(value)
    if not isinstance(found, int):
        raise Rejected(f"{found!r} is no whole number")
    return found


def fields(reply: object) -> list[object]:
    """Return an answer as the list that it should be, with a text first.

    Raises:
        Rejected: It is none.
    """
    if not isinstance(reply, list) or not reply:
        raise Rejected(f"{reply!r:.40} is no list")
    return cast("list[object]", reply)


def check_schema(version: object, known: int) -> None:
    """Refuse what another schema may have put differently.

    Raises:
        Rejected: It is not the schema known.
    """
    if type(version) is not int or version != known:
        raise Rejected(f"schema {version!r:.40}; this loadwise reads {known}")


def decode_json(raw: str | bytes) -> object:
    """Return what a JSON text says.

    Raises:
        Rejected: It is none, it is nested too deeply, or it has a NaN or an infinity.
    """
    try:
        value: object = json.loads(raw, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise Rejected(f"no JSON ({error})") from None
    return value


def _finite(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):  # JSON has no word for infinity, but numbers that are as good as that
        _refuse(literal)
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
