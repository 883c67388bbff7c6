"""A state store that processes share, for asyncio."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from redis.exceptions import ResponseError

from loadwise.integrations.redis._connection import (
    STORE_PUT,
    AsyncCommands,
    as_async_client,
    run_async,
)
from loadwise.integrations.redis._events import SharedEvent
from loadwise.integrations.redis._store import DAY, LONGEST
from loadwise.integrations.redis._store_format import StoreFormat

if TYPE_CHECKING:
    import redis.asyncio

__all__ = ["AsyncRedisStore"]

S = TypeVar("S")


class AsyncRedisStore(Generic[S]):
    """`RedisStore` for asyncio: the same arguments and data, with methods to await.

    Args:
        client: A ``redis.asyncio.Redis``; its timeouts and retries hold.
        prefix: As for `RedisStore`, and so are all others.
        ttl: Seconds.
        encode: Turns a state into what JSON can express.
        decode: Turns that back into a state.
        max_bytes: The longest value.
        on_event: Called with a `SharedEvent` for each value that is rejected.

    Raises: as `RedisStore` does.

    Thread-safety: for tasks of one event loop, as the client is.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        prefix: str = "loadwise",
        *,
        ttl: float = DAY,
        encode: Callable[[S], Any] | None = None,
        decode: Callable[[Any], S] | None = None,
        max_bytes: int = LONGEST,
        on_event: Callable[[SharedEvent], object] | None = None,
    ) -> None:
        self._client = cast("AsyncCommands", as_async_client(client))
        self._format = StoreFormat(prefix, ttl, encode, decode, max_bytes, on_event)

    @property
    def events(self) -> Mapping[str, int]:
        """How many values were rejected so far, under ``"rejected"``."""
        return MappingProxyType(self._format.log.counts)

    async def get(self, id: str) -> S | None:  # noqa: A002 - the name of the thing everywhere else
        """Return the state of one node, or ``None``."""
        field = self._format.field(id)
        return self._format.load(id, await self._read("HGET", field))

    async def put(self, id: str, state: S) -> None:  # noqa: A002
        """Insert or replace the state of one node."""
        form = self._format
        await run_async(
            self._client, STORE_PUT, form.key, form.field(id), form.dump(state), form.expiry
        )

    async def remove(self, id: str) -> None:  # noqa: A002
        """Delete the state of one node. An absent one is not an error."""
        await self._client.execute_command("HDEL", self._format.key, self._format.field(id))

    async def list(self) -> builtins.list[tuple[str, S]]:
        """Return all pairs of id and state, in no particular order."""
        return self._format.load_all(await self._read("HGETALL"))

    async def _read(self, command: str, *args: bytes) -> object:
        try:
            return await self._client.execute_command(
                command, self._format.key, *args, NEVER_DECODE=True
            )
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            self._format.reject("the key is not a hash")
            return None
