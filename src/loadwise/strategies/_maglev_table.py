"""The table of `Maglev`: which node has which cell."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heapreplace
from itertools import cycle
from math import ceil, inf, isinf, isqrt
from typing import Any

from xxhash import xxh64_intdigest

from loadwise.node_set import NodeSet

__all__ = ["CellTable", "build"]

_NEVER = 2.0**52
"""A round that no table comes to: it is full within as many as it has cells times nodes."""


class CellTable:
    """Cells of a membership, each with the index of its node. Immutable."""

    __slots__ = ("cells",)

    def __init__(self, cells: array[int]) -> None:
        self.cells = cells


def build(nodes: NodeSet[Any], size: int) -> CellTable:
    """Return the table of some nodes.

    Args:
        nodes: The nodes; those without a weight get none.
        size: How many cells there are, a prime.

    Returns:
        One cell, of node 0, where no node has a weight.

    Raises:
        ValueError: There are more nodes than cells.
    """
    members = nodes.membership.eligible
    if not members:
        return CellTable(array("I", [0]))
    if len(members) > size:
        raise ValueError(
            f"table_size is {size}, but there are {len(members)} nodes, and each needs a cell; "
            f"give a prime of about 100 for each node"
        )
    texts = {index: f"{nodes.ids[index]}".encode() for index in members}
    order = sorted(members, key=texts.__getitem__)
    labels = [texts[index] for index in order]
    weights = [nodes.weights[index] for index in order]
    turns = cycle(range(len(order))) if len(set(weights)) == 1 else _turns(weights)
    return CellTable(array("I", map(order.__getitem__, _filled(labels, turns, size))))


def _turns(weights: Sequence[int | float]) -> Iterator[int]:
    """Give whose turn it is, without end: round by round, and in each those that are due.

    In round t a node of weight w is due if t times w has reached its target, which begins at 0 and
    grows by the largest weight at each of its turns. Weights are shares of the sum, as in Envoy,
    and so is their rounding.
    """
    total = sum(weights)
    if isinf(total):
        weights = [weight / 2**64 for weight in weights]
        total = sum(weights)
    shares = [weight / total for weight in weights]
    most = max(shares)
    targets = [most] * len(shares)
    yield from range(len(shares))  # the first round
    due = [(_due(share, most, 1), position) for position, share in enumerate(shares)]
    heapify(due)
    while True:
        now, position = due[0]
        if isinf(now):
            heappop(due)
            continue
        yield position
        targets[position] += most
        heapreplace(due, (_due(shares[position], targets[position], now), position))


def _due(share: float, target: float, now: float) -> float:
    """Return the first round after this one in which the share has reached its target."""
    if target > share * _NEVER:
        return inf
    found = max(ceil(target / share), int(now) + 1)
    # The quotient may be rounded; what counts is the product.
    while found * share < target:
        found += 1
    while found - 1 > now and (found - 1) * share >= target:
        found -= 1
    return found


def _filled(labels: Sequence[bytes], turns: Iterator[int], size: int) -> list[int]:
    """Return who has each cell, by number among the labels.

    A node looks for a free cell one step of its order after another. When few are left that would
    take many steps, so from then on it is worked out how many steps away each of them is.
    """
    cells = [xxh64_intdigest(label) % size for label in labels]
    steps = [xxh64_intdigest(label, 1) % (size - 1) + 1 for label in labels]
    owners, taken = [0] * size, bytearray(size)
    few = isqrt(size)
    for _, turn in zip(range(size - few), turns, strict=False):
        cell, step = cells[turn], steps[turn]
        while taken[cell]:
            cell += step
            if cell >= size:
                cell -= size
        taken[cell] = 1
        owners[cell] = turn
        cells[turn] = cell
    left = [cell for cell in range(size) if not taken[cell]]
    for _, turn in zip(range(few), turns, strict=False):
        start, back = cells[turn], pow(steps[turn], -1, size)
        away = [(cell - start) * back % size for cell in left]
        nearest = min(away)
        cell = left.pop(away.index(nearest))
        owners[cell] = turn
        cells[turn] = cell
    return owners
