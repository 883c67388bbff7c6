"""Prompts of conversations: what they share, and how long they are."""

from __future__ import annotations

from collections import Counter
from itertools import count, islice, pairwise
from random import Random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadwise.simulation.scenario import Conversations
from loadwise.simulation.scenario.fleet import mean_prompt
from loadwise.simulation.world.prompts import SimulatedPrompt, conversations


def drawn(kind: Conversations, requests: int) -> list[SimulatedPrompt]:
    """Return prompts, ten a second."""
    times = (number / 10 for number in count())
    return list(islice(conversations(kind, 16, times, Random(1)), requests))


def test_the_mean_prompt_is_the_one_that_loads_are_reckoned_with() -> None:
    """Once the first conversations have come to their ends."""
    kind = Conversations(
        system=100, document=200, message=50, output=70, turns=4, think=5, sigma=0.5
    )
    found = fmean(prompt.tokens for prompt in drawn(kind, 20_000)[2000:])
    assert found == pytest.approx(mean_prompt(kind), rel=0.05)


def test_blocks_are_as_many_as_tokens_fill() -> None:
    """The last one perhaps not full."""
    for prompt in drawn(Conversations(), 300):
        assert len(prompt.blocks) == -(-prompt.tokens // 16)
        assert len(set(prompt.blocks)) == len(prompt.blocks)
        assert prompt.output >= 1


def test_a_turn_goes_on_where_the_one_before_ended() -> None:
    """One conversation at a time: each prompt begins with the last one's full blocks."""
    kind = Conversations(systems=1, turns=1e6, think=0.0)
    prompts = drawn(kind, 50)
    for before, after in pairwise(prompts):
        full = before.tokens // 16
        assert after.blocks[:full] == before.blocks[:full]
        assert after.tokens > before.tokens + before.output


def test_branches_share_all_but_their_messages() -> None:
    """Five requests over one beginning, and the next five over another."""
    kind = Conversations(systems=1, system=160, document=800, branches=5, turns=1, sigma=0.1)
    prompts = drawn(kind, 100)
    for place in range(0, 100, 5):
        beginnings = {prompt.blocks[:30] for prompt in prompts[place : place + 5]}
        assert len(beginnings) == 1
    assert len({prompt.blocks[:30] for prompt in prompts}) == 20
    assert len({prompt.blocks[0] for prompt in prompts}) == 1


def test_systems_are_as_frequent_as_their_ranks_say() -> None:
    """With skew 1, the first is about twice as frequent as the second."""
    kind = Conversations(systems=3, skew=1.0, turns=1, document=0)
    often = Counter(prompt.blocks[0] for prompt in drawn(kind, 11_000))
    assert sorted(often.values(), reverse=True) == pytest.approx([6000, 3000, 2000], rel=0.08)


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=6),
    st.lists(st.integers(0, 3), min_size=1, max_size=6),
    st.integers(4, 40),
)
def test_texts_share_what_prompts_share(one: list[int], other: list[int], size: int) -> None:
    """Block by block, whatever the size of a block."""
    texts = [SimulatedPrompt(len(ids) * size, 1, tuple(ids)).text(size) for ids in (one, other)]
    for ids, text in zip((one, other), texts, strict=True):
        assert len(text) == len(ids) * size * 4
    for end in range(1, min(len(one), len(other)) + 1):
        same = texts[0][: end * size * 4] == texts[1][: end * size * 4]
        assert same == (one[:end] == other[:end])
