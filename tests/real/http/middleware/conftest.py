"""Two servers, for all tests of the middleware."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.real.http.middleware.support import Server


@pytest.fixture(scope="session")
def servers() -> Iterator[list[Server]]:
    """Two servers, named a and b."""
    started = [Server(name) for name in "ab"]
    yield [server.wait() for server in started]
    for server in started:
        server.kill()


@pytest.fixture
def a(servers: list[Server]) -> Server:
    """The first server."""
    return servers[0]


@pytest.fixture
def b(servers: list[Server]) -> Server:
    """The second server."""
    return servers[1]
