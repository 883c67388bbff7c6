"""Meanings of records and their keys, taken from their docstrings."""

from __future__ import annotations

import re
from inspect import cleandoc, getmro

__all__ = ["meaning_of", "meanings_of_keys"]


def meaning_of(record: type) -> str:
    """Return what a record is.

    Example:
        >>> from loadwise._tables.records import Health
        >>> meaning_of(Health)
        'Health tracking of servers.'
    """
    return _plain(cleandoc(record.__doc__ or "").partition("\n\nAttributes:")[0])


def meanings_of_keys(record: type) -> dict[str, str]:
    """Return what docstrings say of the keys of a record and of those it is made from.

    Example:
        >>> from loadwise._tables.records import Health
        >>> meanings_of_keys(Health)["jitter"]
        'Share by which each interval is lengthened at random.'
    """
    found: dict[str, str] = {}
    for each in reversed(getmro(record)):
        _, _, attributes = cleandoc(each.__doc__ or "").partition("Attributes:\n")
        for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE):
            found[name] = _plain(text)
    return found


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("``", "`").strip()
