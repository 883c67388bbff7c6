"""A state store that processes share."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from redis.exceptions import ResponseError

from loadwise.integrations.redis._connection import STORE_PUT, Commands, as_client, run
from loadwise.integrations.redis._events import SharedEvent
from loadwise.integrations.redis._store_format import StoreFormat

if TYPE_CHECKING:
    import redis

__all__ = ["DAY", "LONGEST", "RedisStore"]

S = TypeVar("S")

DAY = 86_400.0
LONGEST = 65_536


class RedisStore(Generic[S]):
    """A `loadwise.StateStore` on Redis or Valkey: one HASH, with a JSON value per node.

    Args:
        client: A ``redis.Redis``; its timeouts and retries hold.
        prefix: The HASH is named ``{prefix}:state``.
        ttl: Seconds after the last `put` when the HASH expires, finite and > 0.
        encode: Turns a state into what JSON can express; needed if it is not so already.
        decode: Turns that back into a state.
        max_bytes: The longest value, in bytes of JSON.
        on_event: Called with a `SharedEvent` for each value that is rejected.

    What the server holds is not trusted: a value that is no JSON, of another schema, too long or
    refused by ``decode`` is reported (`events` counts it, the first is logged) and treated as
    absent. So is a key of another type.

    Raises:
        TypeError: An argument is of the wrong kind; from the methods, the id is no str, or the
            state cannot be written as JSON.
        ValueError: An argument is out of range; from `put`, the state is too long.
        redis.RedisError: From the methods: the server cannot be reached, or refuses.

    Thread-safety: that of the client. A state of ``None`` is as good as none.

    Cost: one round trip per method; `list` is O(n).
    """

    def __init__(
        self,
        client: redis.Redis,
        prefix: str = "loadwise",
        *,
        ttl: float = DAY,
        encode: Callable[[S], Any] | None = None,
        decode: Callable[[Any], S] | None = None,
        max_bytes: int = LONGEST,
        on_event: Callable[[SharedEvent], object] | None = None,
    ) -> None:
        self._client = cast("Commands", as_client(client))
        self._format = StoreFormat(prefix, ttl, encode, decode, max_bytes, on_event)

    @property
    def events(self) -> Mapping[str, int]:
        """How many values were rejected so far, under ``"rejected"``."""
        return MappingProxyType(self._format.log.counts)

    def get(self, id: str) -> S | None:  # noqa: A002 - the name of the thing everywhere else
        """Return the state of one node, or ``None``."""
        field = self._format.field(id)
        return self._format.load(id, self._read("HGET", field))

    def put(self, id: str, state: S) -> None:  # noqa: A002
        """Insert or replace the state of one node."""
        form = self._format
        run(self._client, STORE_PUT, form.key, form.field(id), form.dump(state), form.expiry)

    def remove(self, id: str) -> None:  # noqa: A002
        """Delete the state of one node. An absent one is not an error."""
        self._client.execute_command("HDEL", self._format.key, self._format.field(id))

    def list(self) -> builtins.list[tuple[str, S]]:
        """Return all pairs of id and state, in no particular order."""
        return self._format.load_all(self._read("HGETALL"))

    def _read(self, command: str, *args: bytes) -> object:
        try:
            return self._client.execute_command(command, self._format.key, *args, NEVER_DECODE=True)
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            self._format.reject("the key is not a hash")
            return None
