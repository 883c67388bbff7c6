"""Numbers that ids stand for: an int, digits, or digits after the last dash."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from typing import Final

from loadwise._numbers import shown

__all__ = ["numbers_of"]

_NUMBER: Final = re.compile(r"(?:.*-)?([0-9]{1,10})", re.DOTALL | re.ASCII)
_LIMIT: Final = 2**31


def numbers_of(ids: Sequence[Hashable], asked_by: str) -> list[int]:
    """Return the number of each node.

    Args:
        ids: The nodes' ids.
        asked_by: Who needs them, for the messages.

    Raises:
        ValueError: An id stands for no number from 0 to 2^31-1, or two for the same.
    """
    found: list[int] = []
    holders: dict[int, Hashable] = {}
    for identity in ids:
        number = _number_of(identity)
        if number is None:
            raise ValueError(
                f"{asked_by} needs numbered nodes, but one has the id {shown(identity)}; give ids "
                f"that are ints from 0 to 2^31-1, digits, or end in a number after a dash, such as "
                f"'shard-0'"
            )
        if number in holders:
            raise ValueError(
                f"{asked_by} needs nodes of different numbers, but {shown(holders[number])} and "
                f"{shown(identity)} both have {number}"
            )
        holders[number] = identity
        found.append(number)
    return found


def _number_of(identity: Hashable) -> int | None:
    number = -1
    if isinstance(identity, str):
        match = _NUMBER.fullmatch(identity)
        if match is not None:
            number = int(match[1])
    elif isinstance(identity, int) and not isinstance(identity, bool):
        number = int(identity)
    return number if 0 <= number < _LIMIT else None
