"""Logs of prompts: read whole or not at all, whoever writes meanwhile, or has written over them."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadwise.llm import PrefixIndex
from loadwise.shared_memory._layout import LOG, MemoryLayout
from loadwise.shared_memory._memory import HostMemory
from loadwise.shared_memory._prefix_news import HostNews
from loadwise.shared_memory._prompt_log import MOST_BLOCKS, PromptLog, Sent

LAYOUT = MemoryLayout(2, 1)


def memories() -> tuple[HostMemory, HostMemory]:
    """Return the memory of two processes, as each sees it."""
    buffer = mmap.mmap(-1, LAYOUT.size)
    return HostMemory(LAYOUT, buffer, None, 0), HostMemory(LAYOUT, buffer, None, 1)


@pytest.fixture
def pair() -> tuple[PromptLog, PromptLog]:
    """Return the logs of two processes: the first writes and the second reads."""
    one, other = memories()
    return PromptLog(one), PromptLog(other)


def told(found: list[Sent]) -> list[tuple[int, int, list[int]]]:
    """Return entries as plain values."""
    return [(sent.node, sent.block_chars, sent.hashes.tolist()) for sent in found]


def hashes(number: int, count: int) -> list[int]:
    """Return as many hashes, which differ by number and place."""
    return [(number * 2**40 + place) % 2**64 for place in range(count)]


def read_all(
    log: PromptLog, place: int = 0, most: int = 100
) -> Iterator[tuple[int, int, list[int]]]:
    """Yield all that the first process has sent, a part at a time."""
    for _ in range(LOG):
        if log.heads[0] == place:
            return
        found, place = log.read(0, place, most)
        yield from told(found)
    pytest.fail("it never ends")


@settings(max_examples=30)
@given(st.lists(st.integers(0, 3 * MOST_BLOCKS // 2), max_size=40), st.integers(1, LOG))
def test_what_is_written_is_read(counts: list[int], most: int) -> None:
    """In order, by parts, of long prompts the beginning; and the last of what has no room."""
    one, other = memories()
    writer, reader = PromptLog(one), PromptLog(other)
    written = [(number, 256, hashes(number, count)) for number, count in enumerate(counts)]
    for node, size, blocks in written:
        writer.append(node, size, blocks)
    kept = [(node, size, blocks[:MOST_BLOCKS]) for node, size, blocks in written]
    found = list(read_all(reader, most=most))
    assert found == kept[len(kept) - len(found) :]
    assert len(found) == len(kept) or sum(len(blocks) + 3 for *_, blocks in kept) > LOG - 5000


def test_who_is_behind_goes_on_with_what_is_left(pair: tuple[PromptLog, PromptLog]) -> None:
    """What was written over is left out, in the midst of reading, too."""
    writer, reader = pair
    writer.append(1, 256, hashes(1, 100))
    _, place = reader.read(0, 0, 10_000)
    for number in range(2, 40):
        writer.append(number, 256, hashes(number, 3000))
    found = list(read_all(reader, place))
    assert 15 < len(found) < 22
    assert found[-1] == (39, 256, hashes(39, 3000))


def test_reading_while_another_writes(pair: tuple[PromptLog, PromptLog]) -> None:
    """Whatever is read was written so, and what was written last is read in the end."""
    writer, reader = pair
    done: list[None] = []

    def write() -> None:
        for number in range(1000):
            writer.append(number, 256, hashes(number, number * 7919 % 600))
        done.append(None)

    thread = Thread(target=write)
    thread.start()
    place, last = 0, -1
    while not done or place != reader.heads[0]:
        found, place = reader.read(0, place, 1000)
        for node, size, blocks in told(found):
            assert node > last
            assert (size, blocks) == (256, hashes(node, node * 7919 % 600))
            last = node
    thread.join()
    assert last == 999


@given(st.integers(0, 400), st.integers(0, 2**64 - 1))
def test_what_was_written_over_is_not_believed(place: int, word: int) -> None:
    """One word that somebody else wrote costs what was not read yet, and nothing else."""
    one, other = memories()
    writer, reader = PromptLog(one), PromptLog(other)
    for number in range(4):
        writer.append(number, 256, hashes(number, 90))
    before = list(read_all(reader))
    one.words[LAYOUT.logs // 8 + place] = word
    found = list(read_all(reader))
    assert found == before[: len(found)]
    writer.append(4, 256, hashes(4, 90))
    assert (4, 256, hashes(4, 90)) in list(read_all(reader, reader.heads[0] - 93))


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_forged_heads_end_nothing(head: int, tail: int) -> None:
    """Reading ends, and the writer begins anew where its own numbers cannot be."""
    one, other = memories()
    writer, reader = PromptLog(one), PromptLog(other)
    one.words[LAYOUT.heads // 8], one.words[LAYOUT.tails // 8] = head, tail
    list(read_all(reader, most=LOG))
    begin, end = writer.append(1, 256, [1, 2, 3])
    assert end - begin == 6
    assert told(reader.read(0, begin, 100)[0]) == [(1, 256, [1, 2, 3])]


def test_a_pick_takes_in_a_bounded_part() -> None:
    """However much others have sent, the rest is left to later picks; each row has its turn."""
    one, other = memories()
    writer = PromptLog(one)

    class Source:
        log = PromptLog(other)
        reach = 2
        turn = 0

    index = PrefixIndex()
    news = HostNews(Source(), index)
    for number in range(200):
        writer.append(number, 256, hashes(number, 200))
    looks = 0
    while not looks or news._places[0] != writer.heads[0]:
        before = news._places[0] if looks else 0
        news.catch_up()
        assert 0 < news._places[0] - before < 9_000
        looks += 1
    assert 8 <= looks <= 12
