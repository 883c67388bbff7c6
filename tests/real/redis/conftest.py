"""Servers, clients and processes for the tests of shared state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any

import pytest
import redis
from tests.real.redis.observer import Observer
from tests.real.redis.support import Peer, Valkey

_numbers = count()


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """A server that all tests share, each under a prefix of its own."""
    server = Valkey()
    yield server
    server.stop()


@pytest.fixture
def fragile() -> Iterator[Valkey]:
    """A server of the test's own, to be treated badly."""
    server = Valkey()
    yield server
    server.stop()


@pytest.fixture
def prefix() -> str:
    """A prefix that no other test uses."""
    return f"test-{next(_numbers)}"


@pytest.fixture
def client(valkey: Valkey) -> Iterator[redis.Redis]:
    """A client of the shared server."""
    with valkey.client() as found:
        yield found


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes in the end whatever is entered."""
    with ExitStack() as found:
        yield found


@pytest.fixture
def observer(valkey: Valkey, prefix: str, stack: ExitStack) -> Observer:
    """An observer of what is shared under the test's prefix."""
    return Observer(valkey, prefix, stack)


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    """Start processes that share state; end them in the end."""
    started: list[Peer] = []

    def start(*args: Any, **settings: Any) -> Peer:
        started.append(Peer(*args, **settings))
        return started[-1]

    yield start
    for each in started:
        each.dismiss()
    for each in started:
        each.end()
