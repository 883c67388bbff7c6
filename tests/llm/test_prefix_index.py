"""The index of prefixes: what it finds, forgets and costs."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from loadwise._prefix_index import _Kept
from loadwise.llm import PrefixIndex

IDS = "abcd"


class PlainModel:
    """The same by brute force: of each node the prefixes it has, the least recent first."""

    def __init__(self, capacity: int, block: int) -> None:
        self.capacity, self.block = capacity, block
        self.kept: dict[str, list[str]] = {}

    def prefixes(self, prompt: str) -> list[str]:
        ends = range(self.block, len(prompt) + 1, self.block)
        return [prompt[:end] for end in ends]

    def insert(self, prompt: str, node: str) -> None:
        kept = self.kept.setdefault(node, [])
        for prefix in reversed(self.prefixes(prompt)[: self.capacity]):
            if prefix in kept:
                kept.remove(prefix)
            kept.append(prefix)
        del kept[: max(0, len(kept) - self.capacity)]

    def match(self, prompt: str) -> dict[str, int]:
        found = {
            node: sum(prefix in kept for prefix in self.prefixes(prompt))
            for node, kept in self.kept.items()
        }
        return {node: count for node, count in found.items() if count}


class IndexAgainstTheModel(RuleBasedStateMachine):
    """Prompts of few letters, so that they share prefixes, in an index of small capacity."""

    @initialize(capacity=st.integers(1, 9), block=st.integers(1, 3))
    def begin(self, capacity: int, block: int) -> None:
        self.index = PrefixIndex(capacity, block)
        self.model = PlainModel(capacity, block)

    @rule(prompt=st.text("xyé", max_size=14), node=st.sampled_from(IDS))
    def insert(self, prompt: str, node: str) -> None:
        self.index.insert(prompt, node)
        self.model.insert(prompt, node)

    @rule(prompt=st.text("xyé", max_size=14))
    def match(self, prompt: str) -> None:
        assert dict(self.index.match(prompt)) == self.model.match(prompt)

    @rule(node=st.sampled_from(IDS), later=st.booleans())
    def remove(self, node: str, *, later: bool) -> None:
        (self.index.leave if later else self.index.remove)(node)
        self.model.kept.pop(node, None)

    @invariant()
    def it_holds_what_the_model_holds(self) -> None:
        if not hasattr(self, "index"):
            return
        for node in IDS:
            assert self.index.blocks(node) == len(self.model.kept.get(node, ()))
        assert len(self.index) == len({p for kept in self.model.kept.values() for p in kept})

    @invariant()
    def what_is_kept_stands_on_what_is_kept(self) -> None:
        if not hasattr(self, "index"):
            return
        for kept in self.model.kept.values():
            for prefix in kept:
                assert self.model.prefixes(prefix) == sorted(
                    set(self.model.prefixes(prefix)) & set(kept), key=len
                )


def test_it_does_what_the_plain_model_does() -> None:
    """Inserts, look-ups and removals in any order agree with the model."""
    run_state_machine_as_test(
        IndexAgainstTheModel,
        settings=settings(max_examples=80, stateful_step_count=30, deadline=None),
    )


def test_only_whole_blocks_from_the_beginning_match() -> None:
    """The end that fills no block counts for nothing, nor do equal blocks after unequal ones."""
    index = PrefixIndex(block_chars=4)
    index.insert("aaaabbbbcc", 1)
    assert index.match("aaaabbbbcc") == {1: 2}
    assert index.match("aaaabbb") == {1: 1}
    assert index.match("xxxxbbbb") == {}
    assert index.match("aaa") == {}
    assert index.match("bbbb") == {}


def test_characters_are_counted_whatever_their_bytes() -> None:
    """A block is so many characters, and those that UTF-8 cannot have do no harm."""
    index = PrefixIndex(block_chars=2)
    index.insert("日本語の\ud800x", "a")
    assert index.match("日本語の\ud800y") == {"a": 2}
    assert index.match("日本語の\ud800x") == {"a": 3}


def test_plain_and_other_text_share_a_prefix() -> None:
    """What begins alike is alike, though a later letter is beyond ASCII."""
    index = PrefixIndex(block_chars=2)
    index.insert("abcdef", "a")
    assert index.match("abcdéf") == {"a": 2}


def test_many_nodes_with_the_same_prefix_are_all_found() -> None:
    """Those that have more of it are found with more, those that left are not found."""
    index = PrefixIndex(block_chars=1)
    for number in range(100):
        index.insert("ab" + "c" * (number % 3), number)
    for number in range(0, 100, 10):
        index.remove(number)
    expected = {number: 2 + number % 3 for number in range(100) if number % 10}
    assert index.match("abccc") == expected
    index.insert("abcc", "new")
    assert index.match("abcc") == expected | {"new": 4}


def test_the_end_is_evicted_before_the_beginning() -> None:
    """Of the least recent prompt the last block goes first; a shared beginning stays."""
    index = PrefixIndex(capacity_blocks=4, block_chars=1)
    index.insert("sab", 1)
    index.insert("sx", 1)
    assert index.match("sab") == {1: 3}
    index.insert("sy", 1)
    assert index.match("sab") == {1: 2}
    assert index.match("sx") == {1: 2}
    index.insert("12345678", 1)
    assert index.match("12345678") == {1: 4}
    assert index.match("s") == {}


def test_memory_is_bounded() -> None:
    """A thousand prompts leave no more than the capacity, and a node that left leaves nothing."""
    index = PrefixIndex(capacity_blocks=50, block_chars=4)
    for number in range(1000):
        index.insert(f"{number:08d}" * 3, "ab"[number % 2])
    assert index.blocks("a") == index.blocks("b") == 50
    assert len(index) <= 100
    index.remove("a")
    index.remove("b")
    index.remove("nobody")
    assert len(index) == index.blocks("a") == 0
    assert index._kept == {}


def test_what_is_sent_again_and_again_takes_no_more_room() -> None:
    """A prompt that is sent a thousand times is not remembered a thousand times."""
    index = PrefixIndex(capacity_blocks=50, block_chars=4)
    index.insert("once", "a")
    for number in range(1000):
        index.insert("abcd" * 20 + f"{number % 3}", "a")
    kept = index._kept["a"]
    assert index.blocks("a") == 21
    assert kept.count == sum(len(hashes) for _, hashes in kept.sent) <= 2 * 50 + 20
    assert index.match("once") == {"a": 1}


def test_numbers_of_those_that_left_are_used_again() -> None:
    """Nodes that come and go for ever do not make the sets of holders grow."""
    index = PrefixIndex(block_chars=1)
    for number in range(500):
        index.insert("abc", number)
        index.remove(number)
    assert len(index._ids) == 1


def test_no_text_is_kept() -> None:
    """Nothing that can be reached from an index holds the prompt or a part of it."""
    index = PrefixIndex(block_chars=4)
    index.insert("a secret of the user's own", "node")
    seen: set[int] = set()
    waiting: list[Any] = [vars(index)]
    texts: list[str] = []
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, type):
            continue
        seen.add(id(thing))
        if isinstance(thing, (str, bytes)):
            texts.append(thing if isinstance(thing, str) else thing.decode("latin-1"))
        elif isinstance(thing, (dict, list, tuple, int, _Kept)) or hasattr(thing, "__len__"):
            waiting.extend(gc.get_referents(thing))
    assert not any("secr" in text for text in texts)
    assert len(seen) > 5


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: PrefixIndex(0), ValueError, "capacity_blocks"),
        (lambda: PrefixIndex(block_chars=0), ValueError, "block_chars"),
        (lambda: PrefixIndex(capacity_blocks=2.5), TypeError, "capacity_blocks"),  # type: ignore[arg-type]  # the point
        (lambda: PrefixIndex().match(b"x"), TypeError, "prompt is b'x'"),  # type: ignore[arg-type]
        (lambda: PrefixIndex().insert(["a"], "b"), TypeError, "join"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_named(
    make: Callable[[], object], error: type[Exception], says: str
) -> None:
    """What is wrong is said with its name, its value and a remedy."""
    with pytest.raises(error, match=says):
        make()


def count_steps(work: Callable[[], object]) -> int:
    """Return how many lines and calls of Python a piece of work takes."""
    steps = 0

    def trace(_frame: Any, event: str, _arg: object) -> Any:
        nonlocal steps
        steps += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return steps


def test_a_request_costs_the_same_however_many_nodes_and_blocks() -> None:
    """Look-up and insert take the same steps over 8 nodes and 800, each with many blocks."""
    counts: list[list[int]] = []
    for nodes in (8, 800):
        index = PrefixIndex(capacity_blocks=300, block_chars=8)
        for number in range(nodes):
            for turn in range(4):
                index.insert(f"{number:03d}{turn:05d}" + "x" * 800, number)
        prompt = "00700003" + "x" * 800
        news = "new-text" + "y" * 800
        match, insert = index.match, index.insert
        counts.append(
            [
                count_steps(partial(match, prompt)),
                count_steps(partial(insert, prompt, 7)),
                count_steps(partial(insert, news, 7)),
            ]
        )
    assert counts[0] == counts[1]


def test_threads_leave_it_sound() -> None:
    """After inserts, look-ups and removals at once, every block has holders that have it."""
    index = PrefixIndex(capacity_blocks=40, block_chars=2)
    errors: list[BaseException] = []

    def work(mine: int) -> None:
        try:
            for turn in range(300):
                index.insert("shared" + f"{(turn * 7 + mine) % 50:02d}" * 6, turn % 5)
                index.match("shared" + "07" * 6)
                if turn % 60 == mine:
                    index.remove(turn % 5)
        except BaseException as error:  # noqa: BLE001 - it is asserted on below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    having: dict[int, int] = {}
    for kept in index._kept.values():
        assert len(kept.blocks) <= 40
        for block in kept.blocks:
            having[block] = having.get(block, 0) | kept.bit
    assert index._holders == having


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_starts_from_nothing() -> None:
    """A fork while another thread holds the lock leaves the child an index that works."""
    index = PrefixIndex(block_chars=1)
    index.insert("abc", "a")
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with index._lock:
            held.set()
            go_on.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    child = os.fork()
    if not child:
        sound = index.match("abc") == {}
        index.insert("ab", "b")
        os._exit(0 if sound and index.match("abc") == {"b": 2} else 1)
    go_on.set()
    thread.join(30)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert index.match("abc") == {"a": 3}


def test_what_a_node_lost_is_forgotten_with_all_before_it() -> None:
    """Where a block was missing, so is what was sent before it; what came after stays."""
    index = PrefixIndex(block_chars=4)
    for name in ("old ", "mine", "new "):
        index.insert(name * 6, "a")
    index.insert("old " * 6, "b")
    before = index.insert_hashes(index.hashes("mine" * 9), "a")
    assert len(before) == 6
    index.correct("a", before, 6)
    assert index.match("old " * 6) == {"a": 6, "b": 6}
    index.correct("a", before, 2)
    assert index.match("old " * 6) == {"b": 6}
    assert index.match("new " * 6) == {"a": 6}
    assert index.match("mine" * 9) == {"a": 9}
    index.correct("a", index.insert_hashes(index.hashes("new " * 6), "a"), 0)
    assert index.match("mine" * 9) == {"a": 9}
    assert index.match("new " * 6) == {"a": 6}
    index.remove("a")
    index.correct("a", before, 0)
    assert index.match("mine" * 9) == {}
