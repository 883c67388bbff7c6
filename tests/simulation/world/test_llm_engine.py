"""The engine of a server of a language model, against arithmetic and against another one."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.simulation.world.serving import Asked, Serving

from loadwise.simulation.scenario import LlmTable

WHOLE = LlmTable(
    prefill_rate=1000.0,
    prefill_base=0.5,
    decode_base=0.1,
    decode_each=0.01,
    step_tokens=100,
    blocks=50,
    block_tokens=10,
)


def table(prefill: str, **changes: Any) -> LlmTable:
    """Return the way to work of these tests, with changes."""
    values: dict[str, Any] = {field: getattr(WHOLE, field) for field in WHOLE.__struct_fields__}
    return LlmTable(**values | {"prefill": prefill} | changes)


def asked(at: float, tokens: int, output: int = 1, first_block: int = 0) -> Asked:
    """Return a request whose blocks count from a number on."""
    return at, tokens, output, tuple(range(first_block, first_block + -(-tokens // 10)))


def test_prompts_are_computed_one_after_another_and_answers_beside_them() -> None:
    """A prompt of 100 tokens takes 0.6 s, and a token of an answer 0.1 s, or 0.11 s of two."""
    serving = Serving(table("whole"))
    caller = serving.ask([asked(0.0, 100, 11), asked(0.0, 100, 6, 100)])
    serving.loop.finish()
    assert caller.first == pytest.approx({0: 0.6, 1: 1.2})
    # Six tokens of the first while it is alone, then four at 0.11 s and no more of it.
    assert caller.last[0] == pytest.approx(1.2 + 4 * 0.11)
    assert caller.last[1] == pytest.approx(1.2 + 4 * 0.11 + 0.1)


def test_what_is_cached_is_not_computed_again() -> None:
    """Only once it is computed, and but for the last token."""
    serving = Serving(table("whole"))
    caller = serving.ask([asked(0.0, 100), asked(0.1, 100), asked(0.1, 105)])
    serving.loop.finish()
    assert caller.first == pytest.approx({0: 0.6, 1: 0.6 + 0.501, 2: 0.6 + 0.501 + 0.505})
    assert (serving.engine.prompt_tokens, serving.engine.cached_tokens) == (305, 199)


def test_short_prompts_share_a_step_and_a_long_one_takes_several() -> None:
    """Of 100 tokens each, in the order in which they came; each prompt takes 0.5 s besides."""
    serving = Serving(table("chunked"))
    caller = serving.ask([asked(0.0, 10), asked(0.1, 130, 1, 100), asked(0.1, 20, 1, 200)])
    serving.loop.finish()
    assert caller.first == pytest.approx({0: 0.51, 1: 0.51 + 0.6 + 0.55, 2: 0.51 + 0.6 + 0.55})


def test_a_prompt_finds_what_is_computed_of_another_by_then() -> None:
    """In chunks: what came first is cached up to its last full block."""
    serving = Serving(table("chunked"))
    caller = serving.ask([asked(0.0, 195), asked(0.1, 195)])
    serving.loop.finish()
    assert serving.engine.cached_tokens == 100
    # The second step has 95 tokens of the first and five of the second.
    assert caller.first == pytest.approx({0: 0.6 + 0.6, 1: 0.6 + 0.6 + 0.09})


def test_prompts_and_answers_slow_each_other() -> None:
    """A step that computes a prompt writes one token, and takes as long as the prompt."""
    serving = Serving(table("coupled"))
    caller = serving.ask([asked(0.0, 100, 4), asked(0.75, 100, 1, 100)])
    serving.loop.finish()
    # The prompt comes in the middle of the second token, and begins with the third; 99 tokens fit.
    assert caller.first == pytest.approx({0: 0.6, 1: 0.8 + 0.599 + 0.001})
    assert caller.last[0] == pytest.approx(0.8 + 0.599)


def test_the_batch_has_an_end() -> None:
    """With one request at a time, the next one begins when the answer is complete."""
    for prefill in ("whole", "chunked", "coupled"):
        serving = Serving(table(prefill, batch=1))
        caller = serving.ask([asked(0.0, 100, 11), asked(0.0, 100, 1, 100)])
        serving.loop.advance(0.3)
        assert (serving.engine.size, serving.engine.room) == (2, -1)
        serving.loop.finish()
        assert caller.first == pytest.approx({0: 0.6, 1: 0.6 + 1.0 + 0.6})
        assert serving.engine.size == 0


@pytest.mark.parametrize("prefill", ["whole", "chunked", "coupled"])
@pytest.mark.parametrize("at", [0.0, 0.3, 0.6, 0.75, 1.35, 2.0])
def test_a_standstill_moves_all_that_follows(prefill: str, at: float) -> None:
    """All that ends after it ends later by its length, and the rest as before."""
    requests = [asked(0.0, 100, 4), asked(0.0, 100, 9, 100), asked(0.0, 30, 1, 200)]
    plain, held = Serving(table(prefill)), Serving(table(prefill))
    before, after = plain.ask(requests), held.ask(requests)
    plain.loop.finish()
    held.loop.at(at + 1e-6, lambda _: held.engine.hang(), None)
    held.loop.at(at + 7.0 + 1e-6, lambda _: held.engine.resume(), None)
    held.loop.finish()
    for one, other in ((before.first, after.first), (before.last, after.last)):
        moved = {number: end + 7.0 * (end > at + 1e-6) for number, end in one.items()}
        assert other == pytest.approx(moved)


@pytest.mark.parametrize("prefill", ["whole", "chunked", "coupled"])
def test_a_crash_loses_all_and_what_comes_after_is_served(prefill: str) -> None:
    """The requests are handed back, and the cache is cold."""
    serving = Serving(table(prefill))
    caller = serving.ask([asked(0.0, 100, 50), asked(0.0, 100, 50), asked(0.0, 100, 50, 100)])
    serving.loop.advance(0.9)
    assert set(serving.engine.crash()) == set(serving.attempts)
    assert (serving.engine.size, serving.engine.held()) == (0, [])
    serving.ask([asked(1.0, 100)])
    serving.loop.finish()
    assert caller.first[3] == pytest.approx(1.6)
    assert set(caller.last) == {3}


def test_a_slower_pace_holds_for_what_begins_then() -> None:
    """And for the answers that are written."""
    serving = Serving(table("whole"))
    caller = serving.ask([asked(0.0, 100, 11), asked(0.0, 100, 1, 100)])
    serving.loop.at(0.8, lambda _: serving.engine.change_pace(3.0), None)
    serving.loop.finish()
    assert caller.first[1] == pytest.approx(1.2)
    assert caller.last[0] == pytest.approx(0.8 + 8 * 0.3)


def test_a_request_that_waits_is_dropped() -> None:
    """One in work is not."""
    serving = Serving(table("whole"))
    caller = serving.ask([asked(0.0, 100), asked(0.0, 100, 1, 100)])
    serving.loop.advance(0.1)
    for attempt in serving.attempts:
        serving.engine.drop(attempt)
    serving.loop.finish()
    assert set(caller.last) == {0}


@dataclass
class Plain:
    """One request of the plain engine: tokens to compute, and tokens of its answer to write."""

    at: float
    left: int
    output: int
    begun: bool = False
    written: int = 0
    first: float = 0.0
    last: float = 0.0


def step_of(how: LlmTable, here: list[Plain]) -> tuple[float, list[tuple[Plain, int]]]:
    """Return how long the next step takes, and how many tokens it computes of which prompts."""
    answers = sum(not each.left for each in here)
    budget, seconds = how.step_tokens - answers, 0.0
    parts: list[tuple[Plain, int]] = []
    for each in here:
        tokens = min(each.left, budget)
        if tokens > 0:
            seconds += tokens / how.prefill_rate + how.prefill_base * (not each.begun)
            each.begun = True
            parts.append((each, tokens))
            budget -= tokens
    if answers:
        seconds = max(seconds, how.decode_base) + how.decode_each * (answers - 1)
    return seconds, parts


def played_plainly(how: LlmTable, requests: list[Asked]) -> list[Plain]:
    """Return what comes of requests in coupled steps, one token at a time, without a cache."""
    all_of_them = [Plain(at, tokens, output) for at, tokens, output, _ in requests]
    coming, here, now = deque(all_of_them), list[Plain](), 0.0
    while coming or here:
        if not here:
            now = max(now, coming[0].at)
        while coming and coming[0].at <= now:
            here.append(coming.popleft())
        answers = [each for each in here if not each.left]
        seconds, parts = step_of(how, here)
        now += seconds
        for each in answers:
            each.written += 1
        for each, tokens in parts:
            each.left -= tokens
            if not each.left:
                each.first, each.written = now, 1
        for each in here:
            each.last = now
        here = [each for each in here if each.written < each.output]
    return all_of_them


@given(
    st.lists(
        st.tuples(st.integers(0, 4000), st.integers(1, 350), st.integers(1, 30)),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=60, deadline=None)
def test_coupled_steps_are_those_of_an_engine_that_takes_them_one_by_one(
    drawn: list[tuple[int, int, int]],
) -> None:
    """Steps that only write answers count as one, and nobody sees it."""
    how = table("coupled", blocks=0)
    # Odd moments, which are never those at which a step ends.
    requests: list[Asked] = [
        (at / 1000 + 0.000_317 * (1 + place), tokens, output, tuple(range(-(-tokens // 10))))
        for place, (at, tokens, output) in enumerate(sorted(drawn))
    ]
    serving = Serving(how)
    caller = serving.ask(requests)
    serving.loop.finish()
    expected = played_plainly(how, requests)
    assert caller.first == pytest.approx({n: each.first for n, each in enumerate(expected)})
    assert caller.last == pytest.approx({n: each.last for n, each in enumerate(expected)})
