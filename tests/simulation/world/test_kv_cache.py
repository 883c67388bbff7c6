"""The cache of computed prompts, against a list that does the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loadwise.simulation.world.kv_cache import KvCache

PROMPTS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=7), max_size=30)


def chained(bits: list[int]) -> tuple[int, ...]:
    """Return blocks of which each tells of all before it, too."""
    return tuple(int("1" + "".join(map(str, bits[: end + 1])), 2) for end in range(len(bits)))


@given(PROMPTS, st.integers(0, 9))
def test_as_a_plain_list(prompts: list[list[int]], capacity: int) -> None:
    """The least recent goes first; in a prompt, the end before the beginning."""
    cache, kept = KvCache(capacity), list[int]()
    for bits in prompts:
        blocks = chained(bits)
        matched = 0
        while matched < len(blocks) and blocks[matched] in kept:
            matched += 1
        assert cache.matched(blocks) == matched
        cache.keep(blocks)
        kept = [block for block in kept if block not in blocks] + list(reversed(blocks))
        kept = kept[len(kept) - min(capacity, len(kept)) :]
        assert len(cache) == len(kept) <= capacity
        # Nothing is left whose beginning is gone.
        assert all(block in {2, 3} or block // 2 in kept for block in kept)
    cache.clear()
    assert len(cache) == 0
