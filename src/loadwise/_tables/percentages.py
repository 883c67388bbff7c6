"""Shares that are written as percentages, such as ``load = "80%"``."""

from __future__ import annotations

import re

from loadwise._tables.schema import FileLayout, Place, Raw, child, is_list, is_share, is_table

__all__ = ["read_percentages"]

_PERCENTAGE = re.compile(r"([0-9]+(?:\.[0-9]+)?)%")


def read_percentages(raw: dict[str, Raw], layout: FileLayout) -> None:
    """Replace each percentage by its share, wherever a file takes a share.

    Text anywhere else stays as it is; a percentage of the timeline is one of its own.

    Args:
        raw: The content of the file, not validated yet; it is changed.
        layout: The layout of such files.

    Example:
        >>> from loadwise._tables.records import Health
        >>> health = {"jitter": "80%", "probe_interval": "80%"}
        >>> read_percentages(health, FileLayout(Health, "health table"))
        >>> health
        {'jitter': 0.8, 'probe_interval': '80%'}
    """
    _read(raw, layout.root)


def _read(value: Raw, place: Place | None) -> Raw:
    """Return the value at a place; tables and lists are changed."""
    if place is None:
        return value
    if isinstance(value, str):
        found = _PERCENTAGE.fullmatch(value)
        # By way of text: 30.1 / 100 is not 0.301.
        return float(f"{found[1]}e-2") if found is not None and is_share(place) else value
    if is_table(value):
        for key, inner in value.items():
            value[key] = _read(inner, child(place, value, key))
    elif is_list(value):
        value[:] = [_read(inner, child(place, value, i)) for i, inner in enumerate(value)]
    return value
