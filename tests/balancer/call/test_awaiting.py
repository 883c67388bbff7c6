"""What `call` and `call_async` take for a function, and what they await."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any

import pytest
from tests.balancer.call.support import failures, in_flight

from loadwise import (
    Balancer,
)


async def coroutine_function(node: str) -> str:
    """Answer later."""
    return node


def generator_function(node: str) -> Iterator[str]:
    """Answer bit by bit."""
    yield node


async def async_generator_function(node: str) -> AsyncIterator[str]:
    """Answer bit by bit, later."""
    yield node


class Later:
    """What is called by a coroutine method."""

    async def __call__(self, node: str) -> str:
        return node

    async def method(self, node: str) -> str:
        return node


@pytest.mark.parametrize(
    "fn",
    [
        coroutine_function,
        generator_function,
        async_generator_function,
        functools.partial(coroutine_function),
        Later(),
        Later().method,
    ],
)
def test_call_refuses_what_answers_later(balancer: Balancer[str], fn: Callable[..., Any]) -> None:
    """Nothing of it would have run when it returned: the error names the remedy."""
    with pytest.raises(TypeError, match=r"which is to be awaited; await call_async\(...\) instead"):
        balancer.call(fn)
    assert all(status.picks == 0 for status in balancer.status())


def test_call_refuses_an_answer_that_is_to_be_awaited(balancer: Balancer[str]) -> None:
    """Where the function does not show it, its answer does; it is the caller's mistake."""
    asked: list[str] = []

    def hidden(node: str) -> Awaitable[str]:
        asked.append(node)
        return coroutine_function(node)

    with pytest.raises(TypeError, match=r"fn returned <coroutine .* await call_async\(...\)"):
        balancer.call(hidden)
    assert asked == ["a"]
    assert not any(failures(balancer).values())
    assert in_flight(balancer) == 0


@pytest.mark.parametrize("fn", [lambda _: 5, lambda _: None, generator_function])
def test_call_async_refuses_an_answer_that_cannot_be_awaited(
    balancer: Balancer[str], fn: Callable[..., Any]
) -> None:
    """The error names the remedy, and nothing is retried."""
    with pytest.raises(TypeError, match="which cannot be awaited; give a coroutine function"):
        asyncio.run(balancer.call_async(fn))
    assert sum(status.picks for status in balancer.status()) == 1
    assert not any(failures(balancer).values())
    assert in_flight(balancer) == 0


def test_call_async_takes_whatever_can_be_awaited(balancer: Balancer[str]) -> None:
    """Coroutines of a plain function, tasks, futures and objects of one's own."""

    class Answer:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def main() -> None:
        for fn in (
            lambda _: coroutine_function("a"),
            lambda node: asyncio.ensure_future(coroutine_function(node)),
            Later(),
            functools.partial(coroutine_function),
        ):
            assert await balancer.call_async(fn) == "a"
        await balancer.call_async(lambda _: Answer())

    asyncio.run(main())
