"""Quotas that share the limits of a test's node."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from tests.real.redis.support import PATIENCE

from loadwise import QuotaConfig
from loadwise.integrations.redis import SharedQuota


@pytest.fixture
def share(client: redis.Redis, prefix: str, stack: ExitStack) -> Callable[..., SharedQuota]:
    """Make quotas that share the test's prefix; close them in the end."""

    def make(config: QuotaConfig | None = None, **settings: Any) -> SharedQuota:
        settings = {"timeout": PATIENCE} | settings
        quota = stack.enter_context(SharedQuota(client, prefix, **settings))
        if config is not None:
            quota.register("node", config)
        return quota

    return make
