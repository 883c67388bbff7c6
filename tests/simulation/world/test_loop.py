"""The queue of what happens next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loadwise.simulation.world.loop import Loop


@given(st.lists(st.floats(0.0, 100.0), max_size=50))
def test_actions_are_carried_out_in_order_of_time_and_then_of_planning(times: list[float]) -> None:
    """Whatever the order of planning, time never goes back, and ties keep their order."""
    loop = Loop()
    seen: list[tuple[float, float, int]] = []
    for number, time in enumerate(times):
        loop.at(time, lambda what: seen.append((loop.now, *what)), (time, number))
    loop.finish()
    assert [(now, number) for now, _, number in seen] == sorted(
        (time, number) for number, time in enumerate(times)
    )
    assert all(now == time for now, time, _ in seen)


def test_it_advances_to_a_time_and_leaves_the_rest() -> None:
    """What is planned for the very time is carried out, what comes later is not."""
    loop, seen = Loop(), list[object]()
    for time in (1.0, 2.0, 3.0):
        loop.at(time, seen.append, time)
    loop.advance(2.0)
    assert (loop.now, loop.clock(), seen) == (2.0, 2.0, [1.0, 2.0])
    loop.finish()
    assert seen == [1.0, 2.0, 3.0]


def test_actions_plan_others() -> None:
    """What an action plans within reach is carried out in the same advance."""
    loop, seen = Loop(), list[float]()

    def count(left: object) -> None:
        seen.append(loop.now)
        if isinstance(left, int) and left:
            loop.at(loop.now + 1.0, count, left - 1)

    loop.at(0.5, count, 10)
    loop.advance(3.0)
    assert seen == [0.5, 1.5, 2.5]
    loop.finish()
    assert len(seen) == 11


def test_what_is_withdrawn_is_not_carried_out() -> None:
    """All of one action is taken back, in order of time; the others stay."""
    loop, kept, dropped = Loop(), list[object](), list[object]()
    for time in (5.0, 1.0, 3.0):
        loop.at(time, kept.append, time)
        loop.at(time, dropped.append, -time)
    # The two lists are equal, and so are their methods by ==, as long as both are empty.
    dropped.append("not the other list")
    assert loop.withdraw(dropped.append) == [(1.0, -1.0), (3.0, -3.0), (5.0, -5.0)]
    loop.finish()
    assert kept == [1.0, 3.0, 5.0]
