"""The two ways to call a function, and a balancer to call it by."""

from __future__ import annotations

import pytest
from tests.balancer.call.support import Call, InOrder, call_async, call_sync

from loadwise import (
    Balancer,
)


@pytest.fixture(params=[call_sync, call_async], ids=["call", "call_async"])
def call(request: pytest.FixtureRequest) -> Call:
    """Return a way to call a function."""
    way: Call = request.param
    return way


@pytest.fixture
def balancer() -> Balancer[str]:
    """Return a balancer of three nodes, in order."""
    return Balancer(["a", "b", "c"], InOrder())
