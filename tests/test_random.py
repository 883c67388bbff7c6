"""Where randomised strategies draw from: a generator for all threads, or one for each."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from loadwise._gil import HAS_GIL
from loadwise._random import OwnDraws, fork_of, random_of_this_thread, source_of


def several(draws: int = 5) -> tuple[float, ...]:
    """Return some draws of the calling thread."""
    return tuple(random_of_this_thread() for _ in range(draws))


def test_each_thread_has_a_generator_of_its_own() -> None:
    """Eight threads at once draw eight sequences, and each goes on with its own."""
    together = Barrier(8, timeout=20.0)

    def draw() -> tuple[float, ...]:
        together.wait()
        return several() + several()

    with ThreadPoolExecutor(8) as pool:
        found = [future.result() for future in [pool.submit(draw) for _ in range(8)]]
    assert len({each for draws in found for each in draws}) == 8 * 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_draws_something_else() -> None:
    """The child's generator is seeded anew, so workers of one parent do not draw alike."""
    several()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, repr(several()).encode())
        os._exit(0)
    os.close(writing)
    theirs = os.read(reading, 1000).decode()
    os.close(reading)
    os.waitpid(child, 0)
    assert theirs != repr(several())


def test_without_the_gil_each_thread_draws_by_itself() -> None:
    """There the default is the thread's generator, and looking ahead leaves it as it is."""
    assert source_of(None, shared=False) is random_of_this_thread
    ahead = fork_of(None, shared=False)
    assert tuple(ahead() for _ in range(5)) == several()


def test_with_the_gil_all_draw_from_the_module() -> None:
    """So that ``random.seed`` makes a program repeatable."""
    if not HAS_GIL:
        pytest.skip("there is no GIL here")
    assert source_of(None) is random.random
    own = random.Random(1)
    assert source_of(own) == own.random


@pytest.mark.parametrize("shared", [True, False])
def test_draws_of_ones_own_are_nobody_elses(shared: bool) -> None:  # noqa: FBT001 - a parameter
    """What others draw changes nothing, looking ahead neither, and a child begins elsewhere."""
    draws, other = OwnDraws(None, shared=shared), OwnDraws(None, shared=shared)
    ahead = draws.fork()
    told = [ahead() for _ in range(5)]
    random.random()
    others = [other.random() for _ in range(5)]
    assert [draws.random() for _ in range(5)] == told
    assert others != told
    ahead = draws.fork()
    draws.renew()
    assert draws.random() != ahead()


def test_draws_of_ones_own_are_repeatable() -> None:
    """Those of a source that was given are its own; by default the module's seed decides."""
    source = random.Random(1)
    draws, twin = OwnDraws(source), random.Random(1)
    draws.renew()
    assert draws.random() == twin.random()
    assert source.random() == twin.random()
    if HAS_GIL:
        state = random.getstate()
        found: list[float] = []
        for _ in range(2):
            random.seed(5)
            found.append(OwnDraws(None).random())
        random.setstate(state)
        assert found[0] == found[1]
