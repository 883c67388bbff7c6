"""JSON read entry by entry, so that a long list does not hold up the threads that serve requests.

One call of `json.loads` keeps the interpreter's lock until it is done.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from loadwise._turns import in_turns

__all__ = ["parsed_json"]

_GAP: Final = re.compile(r"[ \t\n\r]*")
_decode = json.JSONDecoder().raw_decode


def parsed_json(content: bytes | bytearray) -> Any:
    """Return what JSON says, the entries of a list one after another in turns with other threads.

    Raises:
        ValueError: It is not JSON, or not UTF-8.
        RecursionError: It is nested too deeply.

    Example:
        >>> parsed_json(b' [1, {"a": [2]}] '), parsed_json(b"3")
        ([1, {'a': [2]}], 3)
    """
    text = content.decode("utf-8-sig")
    begin = _after_gap(text, 0)
    if text[begin : begin + 1] != "[":
        return json.loads(text)
    return list(in_turns(_entries(text, begin + 1)))


def _entries(text: str, position: int) -> Iterator[Any]:
    """Yield the entries of a list that begins before a position, and ends the text."""
    position = _after_gap(text, position)
    mark = text[position : position + 1]
    if mark == "]":
        position += 1
    while mark != "]":
        entry, position = _decode(text, position)
        yield entry
        position = _after_gap(text, position)
        mark = text[position : position + 1]
        if mark not in {",", "]"}:
            raise json.JSONDecodeError("Expecting ',' delimiter", text, position)
        position = _after_gap(text, position + 1)
    if _after_gap(text, position) != len(text):
        raise json.JSONDecodeError("Extra data", text, position)


def _after_gap(text: str, position: int) -> int:
    found = _GAP.match(text, position)
    return position if found is None else found.end()
