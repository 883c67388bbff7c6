"""Trackers that share the health of a test's nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from tests.real.redis.health.support import ABRUPT
from tests.real.redis.support import PATIENCE

from loadwise.integrations.redis import SharedHealth


@pytest.fixture
def share(client: redis.Redis, prefix: str) -> Iterator[Callable[..., SharedHealth]]:
    """Make trackers that share the test's prefix; close them in the end."""
    made: list[SharedHealth] = []

    def make(using: redis.Redis | None = None, **settings: Any) -> SharedHealth:
        settings = dict[str, Any](policy=ABRUPT, timeout=PATIENCE) | settings
        made.append(SharedHealth(using or client, prefix, **settings))
        made[-1].catch_up()  # as with the first request
        return made[-1]

    yield make
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(SharedHealth.close, made))
