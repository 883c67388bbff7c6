"""A hash ring as a table: which node owns a hash, read at one place.

The ring's points lie in ascending order in a table of 1.5 to 3 cells per point. A point's *home* is
the cell that its top bits number. It lies there or, where points before it have taken that, in the
next free cell to the right; a cell without a point repeats the point to its right. So from the home
of any hash the first point at or after it is a step or so away, whatever the size of the ring, and
a node comes or goes by edits near the homes of its own points: nobody else's are hashed or sorted
again. A last cell, as high as any hash and owned by nobody, says to go on at the first.

Where a key belongs to the nearest point, and not to the next, the table holds the *bounds*: up to
where keys are nearest to each point. The points themselves are kept beside it, to be searched when
the nearest one's owner may not be chosen.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from itertools import chain, count
from operator import mul
from typing import NamedTuple

from loadwise.strategies._points import XXH64, Points

__all__ = ["Ring", "build", "derive"]

_END = 2**64 - 1
_OWNER_BYTES = 4
_UPPER = 2**64 - 2**32
_HIGH = 1 if sys.byteorder == "little" else 0
_BUCKETS = 256
_FEW = 16_384
"""Points below which they are sorted all at once."""
_EMPTIEST, _FULLEST = 0.25, 0.8
"""Points per cell beyond which a table is not edited, but laid out again with 0.33 to 0.67."""
_MOST_EDITS = 0.25
"""Edits per point beyond which it is quicker to build a ring than to derive it."""


class _Host(NamedTuple):
    """Node of a ring: its number as an owner, and how many points."""

    number: int
    points: int


class Ring:
    """Points and their owners, by cell. Immutable.

    Owners are numbers from 1 on, which nodes keep while others come and go; 0 stands for nobody.

    Attributes:
        points: The point that each cell holds or repeats.
        owners: Who owns it.
        shift: ``point >> shift`` is a point's home.
        order: The owners' numbers, by the nodes' indices.
        hosts: What each name has; ``None`` if two nodes share a point, because then their order
            decides whose it is, and the ring cannot serve nodes in another order. It is ``None``
            of a table of bounds, too, of which none is derived.
        sites: The points themselves and their owners, ascending, where the table has bounds.
    """

    __slots__ = ("hosts", "order", "owners", "points", "shift", "sites")

    def __init__(
        self,
        points: array[int],
        owners: array[int],
        shift: int,
        order: Sequence[int],
        hosts: dict[str, _Host] | None,
        sites: tuple[array[int], array[int]] | None = None,
    ) -> None:
        self.points = points
        self.owners = owners
        self.shift = shift
        self.order = order
        self.hosts = hosts
        self.sites = sites


def build(names: Sequence[str], counts: Sequence[int], kind: Points = XXH64) -> Ring:
    """Hash and sort all points.

    Where nodes share a point, it is that of the first.
    """
    buckets = _buckets(names, counts, kind)
    if not kind.nearest:
        return _laid_out(buckets, names, counts)
    sites = _columns(b"".join(sorted(chain.from_iterable(buckets))))
    ring = _laid_out([_bounds(*sites)], names, counts)
    ring.hosts, ring.sites = None, sites
    return ring


def _laid_out(buckets: list[list[bytes]], names: Sequence[str], counts: Sequence[int]) -> Ring:
    total = sum(counts)
    bits = (total + total // 2).bit_length()
    shift = 64 - bits
    points, owners = array("Q"), array("I")
    size, last, tied = 0, -1, len(set(names)) < len(names)
    for bucket in buckets:
        bucket.sort()
        repeats: list[int] = []
        for point in _columns(b"".join(bucket))[0]:
            home = point >> shift
            if home > size:
                repeats.append(home - size + 1)
                size = home + 1
            else:
                repeats.append(1)
                size += 1
                tied = tied or point == last  # points alike have one home, so this is not it
            last = point
        for column, cells in zip(
            (points, owners), _columns(b"".join(map(mul, bucket, repeats))), strict=True
        ):
            column.extend(cells)
    missing = max(1, (1 << bits) - size)
    points.extend(array("Q", [_END]) * missing)
    owners.extend(array("I", [0]) * missing)
    order = range(1, len(names) + 1)
    hosts = None if tied else dict(zip(names, map(_Host, order, counts), strict=True))
    return Ring(points, owners, shift, order, hosts)


def _bounds(points: array[int], owners: array[int]) -> list[bytes]:
    """Return up to where each point is the nearest, half way included; the first after the last.

    Points alike have the same bound, and the order of their owners must stay as it is.
    """
    following = [*points[1:], points[0] + 2**64] if points else []
    return [
        ((point + after) // 2 % 2**64 & _UPPER).to_bytes(8, "big")
        + owner.to_bytes(_OWNER_BYTES, "big")
        for point, after, owner in zip(points, following, owners, strict=True)
    ]


def _buckets(names: Sequence[str], counts: Sequence[int], kind: Points) -> list[list[bytes]]:
    """Return all points with their owners, as bytes that sort like them; many by first byte.

    Sorting bucket by bucket is quicker than all at once, because the points of one stay in the
    processor's cache; and a sort cannot be interrupted, so a large one would keep every other
    thread from picking.
    """
    whole: list[bytes] = []
    buckets: list[list[bytes]] = [[] for _ in range(_BUCKETS)]
    few = sum(counts) < _FEW
    for number, (name, points) in enumerate(zip(names, counts, strict=True), 1):
        owner = number.to_bytes(_OWNER_BYTES, "big")
        records = [digest + owner for digest in kind.digests(name, points)]
        if few:
            whole += records
        else:
            for record in records:
                buckets[record[0]].append(record)
    return [whole] if few else buckets


def _columns(records: bytes) -> tuple[array[int], array[int]]:
    """Return the points and the owners of joined records, without a loop in Python."""
    words = array("I", records)
    if _HIGH:
        words.byteswap()
    halves = array("I", bytes(len(words) // 3 * 8))
    halves[_HIGH::2], halves[1 - _HIGH :: 2] = words[::3], words[1::3]
    return array("Q", halves.tobytes()), words[2::3]


def derive(
    base: Ring, names: Sequence[str], counts: Sequence[int], kind: Points = XXH64
) -> Ring | None:
    """Return what `build` would, but for the size of the table, by edits of a copy of ``base``.

    Returns:
        ``None`` where that is not possible, or no quicker than building.
    """
    total, after, before = sum(counts), dict(zip(names, counts, strict=True)), base.hosts
    cells = 1 << (64 - base.shift)
    if (
        before is None
        or len(after) < len(names)
        or not _EMPTIEST * cells <= total <= _FULLEST * cells
    ):
        return None
    # Of each that has other points than before: its number, how many it had, and how many it has.
    fewer = [
        (name, host, after.get(name, 0))
        for name, host in before.items()
        if after.get(name, 0) < host.points
    ]
    more = [
        (name, before.get(name), points)
        for name, points in after.items()
        if name not in before or before[name].points < points
    ]
    edits = sum([host.points - points for _, host, points in fewer])
    edits += sum([points - (host.points if host else 0) for _, host, points in more])
    if edits > _MOST_EDITS * total:
        return None
    ring = Ring(base.points[:], base.owners[:], base.shift, (), None)
    hosts = {name: before[name] for name in names if name in before}
    taken = set(base.order)
    for name, host, points in fewer:
        for point in kind.between(name, points, host.points):
            _take_out(ring, point, host.number)
        if name in hosts:
            hosts[name] = _Host(host.number, points)
        else:
            taken.discard(host.number)
    free = (number for number in count(1) if number not in taken)
    for name, known, points in more:
        host = known or _Host(next(free), 0)
        for point in kind.between(name, host.points, points):
            if not _put_in(ring, point, host.number):
                return None
        hosts[name] = _Host(host.number, points)
    ring.hosts = hosts
    ring.order = [hosts[name].number for name in names]
    return ring


def _take_out(ring: Ring, point: int, owner: int) -> None:
    """Let those that have no home move up, and the cell that falls free repeat the next."""
    points, owners, shift = ring.points, ring.owners, ring.shift
    at = point >> shift
    while points[at] != point or owners[at] != owner:
        at += 1
    free = at
    while free + 1 < len(points) and points[free + 1] >> shift <= free:
        free += 1
    points[at:free], owners[at:free] = points[at + 1 : free + 1], owners[at + 1 : free + 1]
    if free + 1 < len(points):
        points[free], owners[free] = points[free + 1], owners[free + 1]
    else:
        del points[free], owners[free]
    _repeat(ring, at)


def _put_in(ring: Ring, point: int, owner: int) -> bool:
    """Move those in the way on to the next free cell; refuse if the point is another's."""
    points, owners, shift = ring.points, ring.owners, ring.shift
    at = point >> shift
    while points[at] < point:
        at += 1
    if points[at] == point and owners[at]:
        return False
    free = at
    while free < len(points) and points[free] >> shift <= free:
        free += 1
    points[at + 1 : free + 1], owners[at + 1 : free + 1] = points[at:free], owners[at:free]
    points[at], owners[at] = point, owner
    _repeat(ring, at)
    return True


def _repeat(ring: Ring, at: int) -> None:
    """Have the cells without a point left of ``at`` repeat what is there now."""
    points, owners, shift = ring.points, ring.owners, ring.shift
    left = at - 1
    while left >= 0 and points[left] >> shift > left:
        points[left], owners[left] = points[at], owners[at]
        left -= 1
