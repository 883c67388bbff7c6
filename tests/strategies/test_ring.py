"""The table of a hash ring: what edits make of it is what building it anew would."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strategies.support import ReferenceRing, ring_entries

from loadwise import ConsistentHash, Endpoint, NodeSet
from loadwise.strategies import _points, _ring
from loadwise.strategies._ring import Ring, build, derive

END = 2**64 - 1

Spread = Callable[[int], int]

SPREADS: dict[str, Spread] = {
    "even": lambda point: point,
    "at the end": lambda point: point | (0xFF << 56),
    "at the beginning": lambda point: point & ~(0xFF << 56),
    "in clusters": lambda point: (point & 3) << 62 | point >> 8,
    "at both ends, some alike": lambda point: (END - (point & 7)) if point & 8 else point & 7,
}
"""What to do to hashes, that points be displaced, past the last cell too, and some coincide."""

hosts = st.dictionaries(st.text("abc", max_size=2), st.integers(0, 6), max_size=8)


def hash_like(spread: Spread) -> tuple[Callable[[bytes], int], Callable[[bytes], bytes]]:
    """Return hash functions whose values are spread so."""

    def as_int(data: bytes) -> int:
        return spread(xxhash.xxh64_intdigest(data))

    return as_int, lambda data: as_int(data).to_bytes(8, "big")


def laid_out(entries: list[tuple[int, int]], shift: int) -> Iterator[tuple[int, int]]:
    """Lay out points with their owners by the definition of the table; -1 owns the end."""
    cells: list[tuple[int, int]] = []
    for entry in [*entries, (END, -1)]:
        cells += [entry] * max(1, (entry[0] >> shift) - len(cells) + 1)
    return iter(cells)


def table(ring: Ring) -> list[tuple[int, int]]:
    """Return the point and the index of the owner of each cell."""
    index_of = {0: -1} | {number: index for index, number in enumerate(ring.order)}
    return [(p, index_of[o]) for p, o in zip(ring.points, ring.owners, strict=True)]


def entries_of(named: dict[str, int], as_int: Callable[[bytes], int]) -> list[tuple[int, int]]:
    """Return the points of nodes with so many, sorted, each with the index of its owner."""
    return sorted(
        (as_int(f"{name}{point}".encode()), index)
        for index, (name, count) in enumerate(named.items())
        for point in range(count)
    )


@pytest.mark.parametrize("spread", SPREADS.values(), ids=SPREADS)
@settings(deadline=None, max_examples=60)
@given(steps=st.lists(hosts, min_size=1, max_size=6))
def test_edits_lead_to_the_table_that_building_does(
    spread: Spread, steps: list[dict[str, int]]
) -> None:
    """However nodes come, go, change and trade places, each table is that of its definition."""
    as_int, as_bytes = hash_like(spread)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_points, "xxh64_intdigest", as_int)
        patch.setattr(_points, "xxh64_digest", as_bytes)
        patch.setattr(_ring, "_MOST_EDITS", math.inf)
        ring = build([], [])
        for named in steps:
            names, counts = list(named), list(named.values())
            ring = derive(ring, names, counts) or build(names, counts)
            entries = entries_of(named, as_int)
            assert table(ring) == list(laid_out(entries, ring.shift))
            alike = any(one == other for (one, _), (other, _) in pairwise(entries))
            assert (ring.hosts is None) == alike


@pytest.mark.parametrize("spread", list(SPREADS)[:-1])
@settings(deadline=None, max_examples=40)
@given(nodes=st.permutations("abcdefghijklmnop"), data=st.data())
def test_few_changes_are_edits(spread: str, nodes: Sequence[str], data: st.DataObject) -> None:
    """A node more, one less, another weight and another order are derived, not built."""
    as_int, as_bytes = hash_like(SPREADS[spread])
    named = dict.fromkeys(nodes, 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_points, "xxh64_intdigest", as_int)
        patch.setattr(_points, "xxh64_digest", as_bytes)
        base = build(list(named), list(named.values()))
        before = base.points[:], base.owners[:]
        del named[data.draw(st.sampled_from(nodes))]
        named[data.draw(st.sampled_from(list(named)))] = data.draw(st.integers(0, 30))
        named["new"] = data.draw(st.integers(0, 25))
        named = dict(data.draw(st.permutations(list(named.items()))))
        ring = derive(base, list(named), list(named.values()))
    assert ring is not None
    assert table(ring) == list(laid_out(entries_of(named, as_int), ring.shift))
    assert (base.points, base.owners) == before


def test_a_ring_is_built_anew_where_edits_would_not_do() -> None:
    """Too many edits, a table too full or too empty, points alike: there is nothing to derive."""
    names = [f"node-{number}_" for number in range(100)]
    more_names = [f"more-{number}_" for number in range(64)]
    base = build(names, [20] * 100)
    assert derive(base, names[:90], [20] * 90) is not None
    assert derive(base, names[:79], [20] * 79) is None, "more than a quarter of the points differ"
    # 2,000 points have 4,096 cells: 1,024 of them must be filled, and 3,276 may be.
    grown, shrunk = base, base
    for more in range(1, 64):
        step = derive(grown, [*names, *more_names[:more]], [20] * (100 + more))
        assert step is not None
        grown = step
    assert derive(grown, [*names, *more_names], [20] * 164) is None, "too full"
    for left in range(99, 51, -1):
        step = derive(shrunk, names[:left], [20] * left)
        assert step is not None
        shrunk = step
    assert derive(shrunk, names[:51], [20] * 51) is None, "too empty"
    assert derive(base, [*names, "node-7_"], [20] * 101) is None, "two of a name"
    twins = build([*names, "node-7_"], [20] * 101)
    assert twins.hosts is None
    assert derive(twins, names, [20] * 100) is None, "made from two of a name"


changes = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "weigh", "move"]),
        st.integers(0, 99),
        st.sampled_from([0, 1, 2, 0.5, 3]),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(changes=changes, twin=st.booleans())
def test_any_history_leads_to_the_ring_of_the_nodes(
    changes: list[tuple[str, int, float]], *, twin: bool
) -> None:
    """A strategy that has seen many memberships has for each the ring of its definition.

    With ids that are alike as text, too: 7 and "7" share points, and the first has them.
    """
    strategy = ConsistentHash[Endpoint](virtual_nodes=4)
    nodes = [Endpoint(number, weight=1) for number in range(16)]
    if twin:
        nodes.append(Endpoint("7"))
    for step, (change, where, weight) in enumerate(changes):
        node = nodes.pop(where % len(nodes))
        if change == "add":
            nodes += [node, Endpoint(f"new-{step}", weight=weight)]
        elif change == "weigh":
            nodes.insert(where % (len(nodes) + 1), Endpoint(node.id, weight=weight))
        elif change == "move":
            nodes.insert(0, node)
        counts = [max(1, round(4 * node.weight)) if node.weight else 0 for node in nodes]
        ring = strategy._resolve(NodeSet(nodes)).state
        assert ring_entries(ring) == ReferenceRing([node.id for node in nodes], counts).points
