"""Reader of protobuf's wire format, for the few messages that gRPC keeps in metadata.

Each is a handful of fields, so the generated classes, and the package that they come in, would be
more than what is read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["as_double", "fields", "varint"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTHS = {_FIXED64: 8, _FIXED32: 4}
_LONGEST_VARINT = 10
_CONTINUES = 0x80


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and the value of each field, in order.

    Varints are ints without sign, all else is bytes: those of fixed-width numbers, too.

    Source: "Encoding" in the documentation of Protocol Buffers.

    Raises:
        ValueError: It is no message.

    Cost: O(length).

    Example:
        >>> list(fields(bytes([0x08, 0x96, 0x01, 0x12, 0x02]) + b"ok"))
        [(1, 150), (2, b'ok')]
    """
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = varint(message, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            width, at = varint(message, at)
        elif kind in _WIDTHS:
            width = _WIDTHS[kind]
        else:
            raise ValueError(f"wire type {kind} at position {at} is none of protobuf's")
        if at + width > len(message):
            raise ValueError(f"a field of {width} bytes at position {at} is cut off")
        yield tag >> 3, message[at : at + width]
        at += width


def varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at a position, and the position after it.

    Raises:
        ValueError: There is none.
    """
    value = 0
    for step in range(_LONGEST_VARINT):
        if at >= len(message):
            raise ValueError(f"a number at position {at} is cut off")
        byte = message[at]
        at += 1
        value |= (byte & ~_CONTINUES) << (7 * step)
        if byte < _CONTINUES:
            return value, at
    raise ValueError(f"a number before position {at} is longer than 64 bits")


def as_double(value: int | bytes) -> float:
    """Return the number in a field of type double.

    Raises:
        ValueError: It is of another type.
    """
    if isinstance(value, int) or len(value) != _WIDTHS[_FIXED64]:
        raise ValueError(f"{value!r} is no double")
    (number,) = struct.unpack("<d", value)
    return float(number)
