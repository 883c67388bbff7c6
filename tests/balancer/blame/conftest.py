"""The two ways to send a request that is tried again."""

from __future__ import annotations

import pytest
from tests.balancer.blame.support import Send, send_async, send_sync


@pytest.fixture(params=[send_sync, send_async], ids=["with", "async with"])
def send(request: pytest.FixtureRequest) -> Send:
    """Return a way to send a request that is tried again."""
    way: Send = request.param
    return way
