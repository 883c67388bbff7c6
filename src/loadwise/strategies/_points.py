"""Points functions of hash rings: where a node's points lie, and where a key does.

Each is that of some proxy, so that a client agrees with it. Hashes of 32 bits are taken as the
upper half of one of 64, which keeps their order, so that one kind of ring serves all.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Final
from zlib import crc32

from xxhash import xxh64_digest, xxh64_intdigest

from loadwise.strategies._numbered import numbers_of

__all__ = ["KINDS", "XXH64", "Points"]

_MASK_64: Final = 2**64 - 1
_MASK_32: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Points:
    """Points function of a ring.

    Attributes:
        name: The name that callers choose it by.
        of_key: Hashes a key.
        labels: Turns ids into the texts that decide where the points lie.
        between: Gives the points of a node, by its text, from one number until before another.
        digests: Gives the first so many points as bytes, the high ones first.
        bits: Bits of a hash; a key that is an int has no more.
        unit: Points for each unit of weight; ``None`` where weights are relative.
        most_weight: The largest weight; ``None`` for no limit.
        nearest: Whether a key belongs to the nearest point, and not to the next.
        proxy: Whose map it is.
    """

    name: str
    of_key: Callable[[bytes], int]
    labels: Callable[[Sequence[Hashable]], list[str]]
    between: Callable[[str, int, int], Iterator[int]]
    digests: Callable[[str, int], list[bytes]]
    proxy: str
    bits: int = 64
    unit: int | None = None
    most_weight: int | None = None
    nearest: bool = False


def _underscored(ids: Sequence[Hashable]) -> list[str]:
    return [f"{identity}_" for identity in ids]


def _as_text(ids: Sequence[Hashable]) -> list[str]:
    return [f"{identity}" for identity in ids]


def _as_numbers(ids: Sequence[Hashable]) -> list[str]:
    return [str(number) for number in numbers_of(ids, "points='haproxy'")]


def _xxh64_between(label: str, first: int, stop: int) -> Iterator[int]:
    prefix = label.encode()
    return (xxh64_intdigest(prefix + b"%d" % point) for point in range(first, stop))


_SUFFIXES: Final = [b"%d" % point for point in range(1024)]


def _xxh64_digests(label: str, count: int) -> list[bytes]:
    prefix, suffixes = label.encode(), _SUFFIXES[:count]
    if count > len(suffixes):
        suffixes = [b"%d" % point for point in range(count)]
    return [xxh64_digest(prefix + suffix) for suffix in suffixes]


_FACTOR: Final = 0xC6A4A7935BD1E995
_SEED: Final = 0xC70F6907


def _murmur2(data: bytes) -> int:
    """Return the 64-bit murmur hash 2 of some bytes, as the standard library of GCC has it."""
    size = len(data)
    hashed = _SEED ^ (size * _FACTOR & _MASK_64)
    whole = size & ~7
    for start in range(0, whole, 8):
        word = int.from_bytes(data[start : start + 8], "little") * _FACTOR & _MASK_64
        hashed ^= (word ^ word >> 47) * _FACTOR & _MASK_64
        hashed = hashed * _FACTOR & _MASK_64
    if whole < size:
        hashed ^= int.from_bytes(data[whole:], "little")
        hashed = hashed * _FACTOR & _MASK_64
    hashed = (hashed ^ hashed >> 47) * _FACTOR & _MASK_64
    return hashed ^ hashed >> 47


def _murmur2_between(label: str, first: int, stop: int) -> Iterator[int]:
    prefix = label.encode()
    return (_murmur2(prefix + b"%d" % point) for point in range(first, stop))


def _digests(
    between: Callable[[str, int, int], Iterator[int]],
) -> Callable[[str, int], list[bytes]]:
    def digests(label: str, count: int) -> list[bytes]:
        return [point.to_bytes(8, "big") for point in between(label, 0, count)]

    return digests


def _crc32_of_key(data: bytes) -> int:
    return crc32(data) << 32


def _ketama_chain(label: str) -> Iterator[int]:
    """Give one point after the other, each the checksum of the server and the point before."""
    host, colon, port = label.rpartition(":")
    if label[:5].lower() == "unix:":
        host, port = label[5:], ""
    elif not colon or port.strip("0123456789"):
        host, port = label, ""
    base = crc32(f"{host}\0{port}".encode())
    point = 0
    while True:
        point = crc32(point.to_bytes(4, "little"), base)
        yield point << 32


def _ketama_between(label: str, first: int, stop: int) -> Iterator[int]:
    return islice(_ketama_chain(label), first, stop)


def _avalanche(number: int) -> int:
    """Mix 32 bits as HAProxy does: a full avalanche of Bob Jenkins's, times a large prime."""
    number = (number + 0x7ED55D16 + (number << 12)) & _MASK_32
    number = number ^ 0xC761C23C ^ number >> 19
    number = (number + 0x165667B1 + (number << 5)) & _MASK_32
    number = ((number + 0xD3A2646C) ^ (number << 9)) & _MASK_32
    number = (number + 0xFD7046C5 + (number << 3)) & _MASK_32
    number = number ^ 0xB55A4F09 ^ number >> 16
    return number * 3221225473 & _MASK_32


def _sdbm_of_key(data: bytes) -> int:
    hashed = 0
    for byte in data:
        hashed = (hashed * 65599 + byte) & _MASK_32
    return _avalanche(hashed) << 32


_POINTS_OF_ONE_SERVER: Final = 256 * 16


def _haproxy_between(label: str, first: int, stop: int) -> Iterator[int]:
    start = int(label) * _POINTS_OF_ONE_SERVER
    return (_avalanche((start + point) & _MASK_32) << 32 for point in range(first, stop))


XXH64: Final = Points(
    "xxh64", xxh64_intdigest, _underscored, _xxh64_between, _xxh64_digests, "Envoy"
)
"""Envoy's and gRPC's by default."""

KINDS: Final = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            XXH64,
            Points(
                "ketama",
                _crc32_of_key,
                _as_text,
                _ketama_between,
                _digests(_ketama_between),
                "nginx",
                bits=32,
                unit=160,
            ),
            Points(
                "murmur2",
                xxh64_intdigest,
                _underscored,
                _murmur2_between,
                _digests(_murmur2_between),
                "Envoy",
            ),
            Points(
                "haproxy",
                _sdbm_of_key,
                _as_numbers,
                _haproxy_between,
                _digests(_haproxy_between),
                "HAProxy",
                bits=32,
                unit=16,
                most_weight=256,
                nearest=True,
            ),
        )
    }
)
"""All of them, by name."""
