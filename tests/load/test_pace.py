"""Pace of nodes: what is learned from first bytes, and what must not disturb it."""

from __future__ import annotations

from itertools import count, islice
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadwise import Balancer, by_id
from loadwise.llm import PendingTokens, PrefixAffinity, PrefixIndex
from loadwise.load._pace import Pace, relative_paces
from loadwise.testing import ManualClock


def one_by_one(pace: Pace, prompts: list[float], seconds: float, besides: float = 0.0) -> None:
    """Have a node compute prompts, each sent when the one before is done."""
    now = 100.0
    for turn, tokens in enumerate(prompts, 1):
        pace.begin(now, idle=True)
        now += tokens * seconds + besides
        pace.first_byte(tokens, now, turn, idle=True)
        now += 5.0


def at_once(pace: Pace, prompts: list[float], order: list[int], seconds: float) -> None:
    """Have a node compute prompts sent at once, their first bytes in some order."""
    for number in range(len(prompts)):
        pace.begin(0.0, idle=not number)
    now = 0.0
    for place, number in enumerate(order, 1):
        now += prompts[number] * seconds
        pace.first_byte(prompts[number], now, place, idle=place == len(order))


def test_three_spans_make_a_pace() -> None:
    """Before that nothing is known."""
    pace = Pace()
    one_by_one(pace, [1000.0] * 2, 0.001)
    assert pace.seconds == 0.0
    one_by_one(pace, [1000.0], 0.001)
    assert pace.seconds == pytest.approx(0.001)


@given(st.lists(st.integers(100, 5000).map(float), min_size=20, max_size=30), st.randoms())
@settings(max_examples=40, deadline=None)
def test_queues_count_by_the_work_in_them(prompts: list[float], rng: Random) -> None:
    """Waiting is not work: what a prompt waited for others is theirs."""
    order = [*range(len(prompts))]
    rng.shuffle(order)
    pace = Pace()
    at_once(pace, prompts, order, 0.002)
    assert pace.seconds == pytest.approx(0.002)


def test_prompts_side_by_side_count_together() -> None:
    """Four at a time take four times as long each, and the node is as quick as ever."""
    pace, now = Pace(), 0.0
    for turn in range(8):
        for number in range(4):
            pace.begin(now, idle=not number)
        now += 4 * 1000 * 0.001
        for number in range(4):
            pace.first_byte(1000.0, now, turn, idle=number == 3)
        now += 1.0
    assert pace.seconds == pytest.approx(0.001)


@pytest.mark.parametrize("outlier", [0.0, 30.0, 3600.0])
def test_outliers_change_nothing(outlier: float) -> None:
    """Three of seven spans may be anything: an answer that hung, or was cached after all."""
    pace = Pace()
    for number in range(14):
        pace.begin(0.0, idle=True)
        seconds = outlier if number % 7 in (0, 3, 5) else 1.0 + number / 1000
        pace.first_byte(1000.0, seconds, number, idle=True)
    assert pace.seconds == pytest.approx(0.001, rel=0.02)


def test_what_prompts_take_besides_is_taken_off() -> None:
    """A node whose prompts are short or cached is not slow for the network's sake."""
    pace = Pace()
    one_by_one(pace, [2000.0, 1.0, 2000.0, 1.0] * 8, 0.0001, besides=0.1)
    assert pace.seconds == pytest.approx(0.0001, rel=0.2)


def test_prompts_without_first_byte_tell_nothing() -> None:
    """After one that failed, the time until the next first byte is not counted."""
    pace = Pace()
    for turn in range(6):
        pace.begin(0.0, idle=True)
        pace.begin(0.0, idle=False)
        pace.spoil()
        pace.first_byte(1000.0, 50.0, turn, idle=True)
        one_by_one(pace, [1000.0], 0.001)
    assert pace.seconds == pytest.approx(0.001)


def test_a_clock_that_goes_back_tells_nothing() -> None:
    """No node is quicker than at once."""
    pace = Pace()
    pace.begin(10.0, idle=True)
    pace.first_byte(1000.0, 5.0, 1, idle=True)
    one_by_one(pace, [1000.0] * 3, 0.001)
    assert pace.seconds == pytest.approx(0.001)


def paced(seconds: float, turn: int = 1) -> Pace:
    """Return the pace of a node that needs so many seconds for a token."""
    pace = Pace()
    if seconds:
        one_by_one(pace, [1000.0] * 7, seconds)
    pace.turn = turn
    return pace


def test_alike_is_none() -> None:
    """Differences of a fifth count for nothing, nor does a single node that is known."""
    assert relative_paces([paced(1.0), paced(1.2), paced(0.9)], None, 1) is None
    assert relative_paces([paced(1.0), paced(0.0), paced(0.0)], None, 1) is None
    assert relative_paces([], None, 0) is None


def test_unknown_is_typical() -> None:
    """Who was not measured, or too long ago, counts as the others, so that it is tried."""
    paces = [paced(1.0, 1000), paced(3.0, 1000), paced(0.0), paced(9.0, 10), paced(1.0, 1000)]
    assert relative_paces(paces, None, 1000) == pytest.approx([1.0, 3.0, 1.0, 1.0, 1.0])


def test_no_pace_is_beyond_reason() -> None:
    """A node that seems to be a thousand times slower is still sent something."""
    found = relative_paces([paced(1.0), paced(1.0), paced(1000.0)], None, 1)
    assert found == pytest.approx([1.0, 1.0, 16.0])


def test_weights_are_expected_of_a_pace() -> None:
    """Nodes that are as quick as their weights say are alike."""
    assert relative_paces([paced(1.0), paced(3.0)], [1.0, 1 / 3], 1) is None
    found = relative_paces([paced(1.0), paced(1.0)], [1.0, 0.5], 1)
    assert found == pytest.approx([2.0, 1.0])


def test_a_node_that_recovers_is_found_out() -> None:
    """A slow node that is quick again has its share again, though little is sent to it."""
    clock = ManualClock()
    strategy: PrefixAffinity[str] = PrefixAffinity(PrefixIndex(block_chars=16), rng=Random(3))
    balancer: Balancer[str] = Balancer(["a", "b", "c"], strategy, clock=clock)

    numbers = count()

    def play(prompts: int, slow: float) -> int:
        sent = 0
        for number in islice(numbers, prompts):
            with balancer.acquire(prompt=f"{number:8d}" * 20) as lease:
                clock.advance(8.0 * (slow if lease.node == "c" else 1.0))
                lease.first_byte()
                sent += lease.node == "c"
        return sent

    play(90, slow=8.0)
    assert strategy.facts(["a", "b", "c"])["speed"] == pytest.approx([1.0, 1.0, 0.125], rel=0.01)
    assert 1 <= play(600, slow=8.0) < 60
    play(1200, slow=1.0)
    assert 60 <= play(300, slow=1.0) <= 140


def test_pending_tokens_learn_by_first_bytes_only() -> None:
    """Without them nothing is known of any pace."""
    clock, measure = ManualClock(), PendingTokens()
    strategy: PrefixAffinity[str] = PrefixAffinity()
    strategy.share_measures([measure])
    balancer: Balancer[str] = Balancer(["a", "b"], strategy, clock=clock)
    for number in range(40):
        with balancer.acquire(prompt=f"{number:4d}" * 100, where=by_id("ab"[number % 2])):
            clock.advance(1.0 + 9 * (number % 2))
    assert "speed" not in strategy.facts(["a", "b"])
    assert measure.waiting(measure.cell("a")).pace.seconds == 0.0
