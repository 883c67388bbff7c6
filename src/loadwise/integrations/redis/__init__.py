"""State that processes share through Redis or Valkey: a store, quotas and health.

quota = SharedQuota(redis.Redis())
quota.register("key-1", QuotaConfig([QuotaDimension("rpm", limit=100)]))
balancer = Balancer(["key-1"], quota=quota, health=SharedHealth(redis.Redis()))
"""

from __future__ import annotations

from importlib import import_module

try:
    import_module("redis")
except ImportError as error:
    raise ImportError(
        "loadwise.integrations.redis needs redis-py: pip install 'loadwise[redis]'"
    ) from error

from loadwise.integrations.redis._events import SharedEvent
from loadwise.integrations.redis._health import SharedHealth
from loadwise.integrations.redis._leader import SharedLeader
from loadwise.integrations.redis._quota import AsyncSharedQuota, SharedQuota
from loadwise.integrations.redis._store import AsyncRedisStore, RedisStore

__all__ = [
    "AsyncRedisStore",
    "AsyncSharedQuota",
    "RedisStore",
    "SharedEvent",
    "SharedHealth",
    "SharedLeader",
    "SharedQuota",
]
