"""State stores that processes share, for threads and for asyncio: JSON in one HASH."""

from __future__ import annotations

import builtins
import json
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Generic, TypeVar, cast

from redis.exceptions import ResponseError

from loadwise._callables import refuse_async, refuse_awaitable
from loadwise._numbers import whole
from loadwise.integrations.redis._arguments import as_seconds, check_prefix
from loadwise.integrations.redis._connection import (
    STORE_PUT,
    AsyncClient,
    AsyncCommands,
    Client,
    Commands,
    as_async_client,
    as_client,
    run,
    run_async,
)
from loadwise.integrations.redis._events import EventLog, SharedEvent
from loadwise.integrations.redis._keys import state_key
from loadwise.integrations.redis._parsing import Rejected, check_schema, decode_json

__all__ = ["AsyncRedisStore", "RedisStore"]

S = TypeVar("S")

_DAY = 86_400.0
_LONGEST = 65_536
_SCHEMA = 1
_NEEDED_NOW = "what it returns is needed at once: give a plain function"


class RedisStore(Generic[S]):
    """A `loadwise.StateStore` on Redis or Valkey: one HASH, with a JSON value per node.

    Args:
        client: A ``redis.Redis`` or ``redis.RedisCluster``; its timeouts and retries hold.
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
        ValueError: An argument is out of range, or the client is of one node of a cluster; from
            `put`, the state is too long.
        redis.RedisError: From the methods: the server cannot be reached, or refuses.

    Thread-safety: that of the client. A state of ``None`` is as good as none.

    Cost: one round trip per method; `list` is O(n).
    """

    def __init__(
        self,
        client: Client,
        prefix: str = "loadwise",
        *,
        ttl: float = _DAY,
        encode: Callable[[S], Any] | None = None,
        decode: Callable[[Any], S] | None = None,
        max_bytes: int = _LONGEST,
        on_event: Callable[[SharedEvent], object] | None = None,
    ) -> None:
        self._client = cast("Commands", as_client(client))
        self._format = _Format(prefix, ttl, encode, decode, max_bytes, on_event)

    @property
    def events(self) -> Mapping[str, int]:
        """Number of values that were rejected so far, under ``"rejected"``."""
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


class AsyncRedisStore(Generic[S]):
    """`RedisStore` for asyncio: the same arguments and data, with methods to await.

    Args:
        client: A ``redis.asyncio.Redis`` or ``redis.asyncio.RedisCluster``; its timeouts and
            retries hold.
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
        client: AsyncClient,
        prefix: str = "loadwise",
        *,
        ttl: float = _DAY,
        encode: Callable[[S], Any] | None = None,
        decode: Callable[[Any], S] | None = None,
        max_bytes: int = _LONGEST,
        on_event: Callable[[SharedEvent], object] | None = None,
    ) -> None:
        self._client = cast("AsyncCommands", as_async_client(client))
        self._format = _Format(prefix, ttl, encode, decode, max_bytes, on_event)

    @property
    def events(self) -> Mapping[str, int]:
        """Number of values that were rejected so far, under ``"rejected"``."""
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


class _Format(Generic[S]):
    """Envelope of the values: a state as JSON under a versioned schema.

    Args: as for `RedisStore`.
    """

    def __init__(
        self,
        prefix: str,
        ttl: float,
        encode: Callable[[S], Any] | None,
        decode: Callable[[Any], S] | None,
        longest: int,
        on_event: Callable[[SharedEvent], object] | None,
    ) -> None:
        check_prefix(prefix)
        ttl = as_seconds("ttl", ttl)
        for name, function in (("encode", encode), ("decode", decode)):
            if function is not None and not callable(function):
                raise TypeError(f"{name} is {function!r}; it must be a function")
            refuse_async(name, function, _NEEDED_NOW)
        longest = whole("max_bytes", longest, 1)
        self.key = state_key(prefix)
        self.expiry = math.ceil(ttl * 1000)
        self.log = EventLog("store", on_event)
        self._encode = encode
        self._decode = decode
        self._longest = longest

    def field(self, node_id: object) -> bytes:
        """Return what an id is called on the server."""
        node_id = getattr(node_id, "id", node_id)
        if not isinstance(node_id, str):
            raise TypeError(
                f"the id is {node_id!r}; in a store that processes share it must be a str"
            )
        return node_id.encode()

    def dump(self, state: S) -> bytes:
        """Return what to store."""
        plain = state if self._encode is None else self._encode(state)
        refuse_awaitable("encode", plain, _NEEDED_NOW)
        try:
            value = json.dumps({"v": _SCHEMA, "state": plain}, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(
                f"the state {state!r} cannot be written as JSON ({error}); give encode= and "
                f"decode= to the store"
            ) from error
        if len(value) > self._longest:
            raise ValueError(
                f"the state takes {len(value)} bytes; the store's max_bytes is {self._longest}"
            )
        return value

    def load(self, node_id: str, raw: object) -> S | None:
        """Return a stored state; ``None``, and a rejection reported, if it is none."""
        if raw is None:
            return None
        try:
            return self._parse(raw)
        except Rejected as error:
            self.reject(f"the state of {node_id[:100]!r}: {error}")
            return None

    def load_all(self, raw: object) -> list[tuple[str, S]]:
        """Return all pairs of id and state that can be read."""
        found: list[tuple[str, S]] = []
        for field, value in _pairs(raw):
            try:
                node_id = field.decode() if isinstance(field, bytes) else str(field)
            except UnicodeDecodeError:
                self.reject(f"the id {field!r:.100} is not UTF-8")
                continue
            state = self.load(node_id, value)
            if state is not None:
                found.append((node_id, state))
        return found

    def reject(self, what: str) -> None:
        """Report what cannot be used."""
        self.log.add("rejected", what)

    def _parse(self, raw: object) -> S:
        if not isinstance(raw, str | bytes):
            raise Rejected(f"a {type(raw).__name__} instead of a text")
        if len(raw) > self._longest:
            raise Rejected(f"{len(raw)} bytes, more than max_bytes, {self._longest}")
        envelope = decode_json(raw)
        if not isinstance(envelope, dict) or "state" not in envelope:
            raise Rejected("no state of loadwise")
        content = cast("dict[str, Any]", envelope)
        check_schema(content.get("v"), _SCHEMA)
        if self._decode is None:
            state: S = content["state"]
            return state
        try:
            found = self._decode(content["state"])
        except Exception as error:
            raise Rejected(f"decode failed ({type(error).__name__}: {error})") from error
        refuse_awaitable("decode", found, _NEEDED_NOW)
        return found


def _pairs(raw: object) -> list[tuple[object, object]]:
    if isinstance(raw, dict):
        return list(cast("dict[object, object]", raw).items())
    if isinstance(raw, list):
        flat = cast("list[object]", raw)
        return list(zip(flat[::2], flat[1::2], strict=False))
    return []
