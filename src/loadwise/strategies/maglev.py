"""Maglev: a table of a prime number of cells, filled by all nodes in turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from math import isqrt
from typing import Any

from xxhash import xxh64_intdigest

from loadwise._native import mypyc_attr
from loadwise._numbers import whole
from loadwise.context import EMPTY, HashKey, SelectionContext
from loadwise.node_set import NodeSet
from loadwise.strategies._draws import share_of_full
from loadwise.strategies._keyed import Keyed, half_a_character
from loadwise.strategies._maglev_table import CellTable, build
from loadwise.strategies._planned import N, Plan, check_excluded, none_left

__all__ = ["Maglev"]

_MOST_MET = 64
"""So many cells of nodes in slow start may turn a key down."""
_MOST_CELLS = 5_000_011
"""As in Envoy, and prime: 20 MB, and seconds to fill."""


@mypyc_attr(allow_interpreted_subclasses=True)
class _TablePlan(Plan[CellTable]):
    """The table, and the index of each node: -1 for those that may not be chosen.

    Attributes:
        slow: Nodes in slow start, whose index is -1, too: a bound of 64 bits. As large a part of
            the hashes as they take of their keys is below it.
    """

    __slots__ = ("cells", "indices", "slow", "table")

    def __init__(self, nodes: NodeSet[Any], table: CellTable) -> None:  # only indices matter
        super().__init__(nodes, table)
        self.table = table.cells
        self.cells = len(table.cells)
        self.indices = [-1] * max(1, len(nodes))
        for index in self.eligible:
            self.indices[index] = index
        self._slow_down(nodes)

    def _slow_down(self, nodes: NodeSet[Any]) -> None:
        self.slow = {i: int(part * 2**64) for i, part in share_of_full(nodes).items()}
        for index in self.slow:
            self.indices[index] = -1

    def patched(self, nodes: NodeSet[Any], gone: Sequence[int], back: Sequence[int]) -> _TablePlan:
        """Return the plan for the same nodes with a few others eligible; see `Planned`."""
        twin = _TablePlan.__new__(_TablePlan)
        twin.follow(self, gone, back)
        twin.table, twin.cells = self.table, self.cells
        twin.indices = self.indices.copy()
        for index in self.slow:
            twin.indices[index] = index
        for index in gone:
            twin.indices[index] = -1
        for index in back:
            twin.indices[index] = index
        twin._slow_down(nodes)  # noqa: SLF001 - its own
        return twin


@mypyc_attr(allow_interpreted_subclasses=True)
class Maglev(Keyed[N, CellTable, _TablePlan]):
    """The node that a key belongs to, by a table.

    Use it as `ConsistentHash`, where shares are to be even to within a cell of the table, and a few
    keys more may move when nodes come or go. The context's ``hash_key`` is required, and hashed as
    there.

    Args:
        table_size: Cells of the table, a prime from 2 to 5,000,011. With a hundred cells or more
            for each node, shares differ by 1 % or less.

    Each node has an order of all cells of its own, by two hashes of its id. The nodes take turns,
    in the order of their ids as text, and each takes the first cell of its order that is free. A
    node of half the largest weight takes every second turn, and so on, and every node has one cell
    at least. Scaling all weights moves no key. A node without a weight has weight 1.

    When one of n equal nodes comes or goes, about 1/n of the keys move, and some between the
    others besides: see the page on hashing. A node that is down, filtered out or excluded passes
    its keys on, each to the node of the next cell along whose node may be chosen; nobody else's
    keys move, and nothing is rebuilt. A node in slow start takes as large a part of its keys as its
    factor says.

    Raises:
        TypeError: ``table_size`` is not an int.
        ValueError: It is no prime, or out of range; for a membership, where there are more nodes
            than cells; at the pick, when an int key is outside 0..2^64-1, or when a str key cannot
            be written in UTF-8.
        MissingHashKey: At the pick, when there is no ``hash_key``.

    Thread-safety: the table is immutable. While one is filled, picks go on with those there are: a
    `Balancer` adopts new members when their table is there.

    Cost: O(1) expected per pick. A membership of n nodes takes O(m log m + n) once, for m cells,
    and 4 bytes a cell. Each change of members does, for a table cannot be mended.

    Source: D. Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI
    2016; hashes and weights as in Envoy's maglev policy, whose table it is, cell by cell.

    Example:
        >>> nodes = ["cache-a", "cache-b", "cache-c"]
        >>> strategy = Maglev()
        >>> nodes[strategy.select(nodes, SelectionContext(hash_key="user-42"))]
        'cache-b'
        >>> nodes[strategy.select(nodes, SelectionContext(hash_key="user-42", exclude={1}))]
        'cache-c'
    """

    kept_size = 2**20

    def __init__(self, table_size: int = 65_537) -> None:
        self._table_size = size = whole("table_size", table_size, 1)
        if size > _MOST_CELLS:
            raise ValueError(f"table_size is {size}; it must be at most {_MOST_CELLS}")
        if not _is_prime(size):
            primes = [near for near in (_below(size), _above(size)) if 1 < near <= _MOST_CELLS]
            raise ValueError(
                f"table_size is {size}, which is no prime; near it are "
                f"{' and '.join(map(str, primes))}"
            )
        super().__init__()

    def _size(self, nodes: NodeSet[N]) -> int:  # noqa: ARG002 - the same for all
        return self._table_size

    def _make_state(self, nodes: NodeSet[N]) -> CellTable:
        return build(nodes, self._table_size)

    def _make_plan(self, nodes: NodeSet[N], state: CellTable) -> _TablePlan:
        return _TablePlan(nodes, state)

    def _patch(
        self,
        before: _TablePlan,
        nodes: NodeSet[N],
        gone: list[int],
        back: list[int],
    ) -> _TablePlan:
        return before.patched(nodes, gone, back)

    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the index of the node that ``context.hash_key`` belongs to, or ``None``."""
        source, plan = self._hot
        if source is not candidates:
            plan = self._resolve(candidates)
        key = context.hash_key
        try:
            hashed = xxh64_intdigest(key.encode()) if isinstance(key, str) else self._hash(key)
        except UnicodeEncodeError:
            raise half_a_character(key) from None
        cell = hashed % plan.cells
        if not context.exclude:
            index = plan.indices[plan.table[cell]]
            if index >= 0:
                return index
        return _walk(plan, cell, hashed, context.exclude)

    def peek(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return what `select` would return: it depends on the key alone."""
        return self.select(candidates, context)

    def owner(self, candidates: Sequence[N], hash_key: HashKey) -> int | None:
        """Return the index of the node that a key belongs to, or ``None`` when there is none.

        As `ConsistentHash.owner`: `select` for less, where there is no request to describe.

        Args:
            candidates: As for `select`.
            hash_key: As in a `SelectionContext`.

        Raises:
            MissingHashKey: ``hash_key`` is ``None``.
            TypeError: It is no str, bytes or int.
            ValueError: It is an int outside 0..2^64-1, or a str that UTF-8 cannot express.

        Thread-safety and cost: those of `select`.

        Example:
            >>> shards = NodeSet(["shard-0", "shard-1", "shard-2"])
            >>> table = Maglev()
            >>> [shards[table.owner(shards, name)] for name in ("ada", "grace", "edsger")]
            ['shard-2', 'shard-1', 'shard-1']
        """
        # What `select` does, written out, because a call would cost a third of it.
        source, plan = self._hot
        if source is not candidates:
            plan = self._resolve(candidates)
        try:
            hashed = (
                xxh64_intdigest(hash_key.encode())
                if isinstance(hash_key, str)
                else self._hash(hash_key)
            )
        except UnicodeEncodeError:
            raise half_a_character(hash_key) from None
        cell = hashed % plan.cells
        index = plan.indices[plan.table[cell]]
        return index if index >= 0 else _walk(plan, cell, hashed, EMPTY.exclude)

    def _order(self, plan: _TablePlan, hashed: int) -> Iterator[int]:
        seen: set[int] = set()
        cell = hashed % plan.cells
        while len(seen) < plan.count:
            if plan.slow:
                index = _walk(plan, cell, hashed, seen)
            else:
                index = plan.indices[plan.table[cell]]
                cell = (cell + 1) % plan.cells
            if index is not None and index >= 0 and index not in seen:
                seen.add(index)
                yield index


def _walk(plan: _TablePlan, cell: int, hashed: int, exclude: AbstractSet[int]) -> int | None:
    """Return the node of the first cell from ``cell`` on that may be chosen."""
    check_excluded(exclude, plan.size)
    if none_left(plan.eligible, exclude):
        return None
    if plan.slow:
        return _walk_past_slow(plan, cell, hashed, exclude)
    indices, table = plan.indices, plan.table
    while True:
        index = indices[table[cell]]
        if index >= 0 and index not in exclude:
            return index
        cell = (cell + 1) % plan.cells


def _walk_past_slow(
    plan: _TablePlan, cell: int, hashed: int, exclude: AbstractSet[int]
) -> int | None:
    """Do as `_walk` where nodes in slow start take but a part of what they own.

    For each of their cells that the key meets another hash decides, as on the ring.
    """
    key = hashed.to_bytes(8, "little")
    first: int | None = None
    met = 0
    while met < _MOST_MET:
        node = plan.table[cell]
        if node not in exclude:
            if plan.indices[node] >= 0:
                return node
            bound = plan.slow.get(node)
            if bound is not None:
                if xxh64_intdigest(key, met) < bound:
                    return node
                first = node if first is None else first
                met += 1
        cell = (cell + 1) % plan.cells
    return first  # there is hardly anybody but nodes in slow start


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, isqrt(number) + 1))


def _below(number: int) -> int:
    while number > 1 and not _is_prime(number):
        number -= 1
    return number


def _above(number: int) -> int:
    while not _is_prime(number):
        number += 1
    return number
