"""The times at which the demo's requests are handed out."""

from __future__ import annotations

from collections import Counter
from threading import Thread

from loadwise.cli.demo.stream import Stream


def test_each_number_is_handed_out_once_to_many_threads() -> None:
    """Eight threads share a stream: every number is taken by exactly one of them."""
    stream = Stream(400, 0.05, seed=1, gate=400)
    taken: list[int] = []

    def take_all() -> None:
        while (number := stream.take()) is not None:
            taken.append(number)

    threads = [Thread(target=take_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert Counter(taken) == Counter(range(400))


def test_gate_holds_the_last_requests_until_it_opens() -> None:
    """Requests before the gate pass, the first one at the gate waits for `open`."""
    stream = Stream(3, 0.0, seed=1, gate=2)
    assert [stream.take(), stream.take()] == [0, 1]
    got: list[int | None] = []
    waiting = Thread(target=lambda: got.append(stream.take()))
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    stream.open()
    waiting.join(20)
    assert got == [2]
    assert stream.take() is None


def test_stop_ends_a_wait() -> None:
    """A thread that waits for a request due in an hour is told at once that there is none."""
    stream = Stream(10, 3600.0, seed=1, gate=10)
    got: list[int | None] = []
    waiting = Thread(target=lambda: got.append(stream.take()))
    waiting.start()
    stream.stop()
    waiting.join(20)
    assert got == [None]
    assert stream.take() is None
