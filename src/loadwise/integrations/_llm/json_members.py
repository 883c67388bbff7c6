"""Members of a JSON object, found without holding the text, or changing a byte of the rest.

An answer with images or embeddings has megabytes, and a hundred bytes of them tell what it cost. So
strings are skipped by regular expressions, and only the wanted members are kept. The text is not
checked: what is not JSON has members, or has not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import NamedTuple

__all__ = ["Member", "MemberScanner", "value_in"]

_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_SHALLOW = re.compile(rb'["{}\[\],]')
_DEEP = re.compile(rb'["{}\[\]]')
_QUOTE, _COMMA = b'"', b","
_BLANK = b" \t\r\n"
_LONGEST_NAME = 256


class Member(NamedTuple):
    """A member that was found.

    Attributes:
        path: Its name, after those of the objects it is in.
        value: The text of its value.
        start: Where that begins in the whole text.
    """

    path: tuple[str, ...]
    value: bytes
    start: int


class MemberScanner:
    """Finds members of a JSON object in a text that comes in pieces.

    Args:
        paths: The members wanted: their names, after those of the objects they are in.
        most: Bytes of a value that are held; a longer one is passed over.

    Attributes:
        found: The members found so far; a name that is there twice is found twice.

    Cost: O(length) in all, however the text is cut.
    """

    def __init__(self, paths: Collection[tuple[str, ...]], most: int) -> None:
        self.found: list[Member] = []
        self._paths = frozenset(paths)
        self._deepest = max(map(len, paths))
        self._most = most
        self._offset = 0
        self._depth = 0
        # The names on the way to here, one for each level: None in an array.
        self._names: list[str | None] = []
        self._in_string = False
        self._escaped = False
        self._awaits_name = False
        # What is being held, and where it began: a name, or the value of a member.
        self._held: list[bytes] | None = None
        self._room = 0
        self._began = 0
        self._is_name = False

    def feed(self, chunk: bytes) -> None:
        """Take in a piece of the text."""
        position, end = 0, len(chunk)
        self._from = 0
        while position < end:
            if self._in_string:
                position = self._pass_string(chunk, position, end)
                continue
            pattern = _SHALLOW if self._depth <= self._deepest else _DEEP
            match = pattern.search(chunk, position)
            if match is None:
                break
            position = match.end()
            mark = match[0]
            if mark == _QUOTE:
                self._in_string = True
                if self._awaits_name:
                    self._hold(position, is_name=True)
            elif mark == _COMMA:
                self._end_value(chunk, position - 1)
                self._awaits_name = bool(self._names) and self._names[-1] is not None
            elif mark in b"{[":
                self._enter(is_object=mark == b"{")
            else:
                self._leave(chunk, position - 1)
        if self._held is not None:
            self._keep(chunk[self._from :])
        self._offset += end

    def _pass_string(self, chunk: bytes, position: int, end: int) -> int:
        if self._escaped:
            self._escaped = False
            return position + 1
        match = _STRING.match(chunk, position)
        position = end if match is None else match.end()
        if position == end:
            return position
        if chunk[position : position + 1] == _QUOTE:
            self._in_string = False
            if self._is_name:
                self._end_name(chunk, position)
        else:
            self._escaped = True  # a backslash that is the last of the piece
        return position + 1

    def _enter(self, *, is_object: bool) -> None:
        self._depth += 1
        if self._depth <= self._deepest:
            is_open = is_object and self._held is None  # nothing is wanted of a value that is held
            self._names.append("" if is_open else None)
            self._awaits_name = is_open

    def _leave(self, chunk: bytes, position: int) -> None:
        if self._depth <= self._deepest:
            self._end_value(chunk, position)
            del self._names[-1:]
            self._awaits_name = False
        self._depth = max(0, self._depth - 1)

    def _hold(self, position: int, *, is_name: bool) -> None:
        self._held, self._is_name = [], is_name
        self._room = _LONGEST_NAME if is_name else self._most
        self._from, self._began = position, self._offset + position

    def _keep(self, piece: bytes) -> None:
        self._room -= len(piece)
        if self._room < 0 or self._held is None:
            self._held = None
        else:
            self._held.append(piece)

    def _end_hold(self, chunk: bytes, position: int) -> bytes | None:
        """Return what has been held up to here; ``None`` if it was too long."""
        self._keep(chunk[self._from : position])
        held, self._held = self._held, None
        return None if held is None else b"".join(held)

    def _end_name(self, chunk: bytes, position: int) -> None:
        self._is_name = self._awaits_name = False
        text = self._end_hold(chunk, position)
        self._names[-1] = "" if text is None else _name_of(text)
        if tuple(self._names) in self._paths:
            self._hold(position + 1, is_name=False)

    def _end_value(self, chunk: bytes, position: int) -> None:
        if self._held is None or tuple(self._names) not in self._paths:
            return
        text = self._end_hold(chunk, position)
        if text is not None:
            value = text.lstrip(_BLANK).removeprefix(b":").lstrip(_BLANK)
            names = tuple([name or "" for name in self._names])
            start = self._began + len(text) - len(value)
            self.found.append(Member(names, value.rstrip(_BLANK), start))


def value_in(member: Member) -> object:
    """Return the value of a member; ``None`` if it is no JSON."""
    try:
        value: object = json.loads(member.value)
    except (ValueError, RecursionError):
        return None
    return value


def _name_of(text: bytes) -> str:
    """Return a name as it is meant; an empty one if it is no JSON."""
    try:
        return str(json.loads(b'"' + text + b'"', strict=False))
    except ValueError:
        return ""
