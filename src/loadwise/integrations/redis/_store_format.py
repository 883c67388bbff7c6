"""How a state store keeps its values: JSON under a versioned schema, in one HASH."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from loadwise._callables import refuse_async, refuse_awaitable
from loadwise._numbers import whole
from loadwise.integrations.redis._events import EventLog, SharedEvent
from loadwise.integrations.redis._parsing import (
    Rejected,
    as_seconds,
    check_prefix,
    check_schema,
    decode_json,
)

__all__ = ["StoreFormat"]

S = TypeVar("S")

_SCHEMA = 1
_NEEDED_NOW = "what it returns is needed at once: give a plain function"


class StoreFormat(Generic[S]):
    """Turns states into what the server holds, and back.

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
        self.key = f"{prefix}:state".encode()
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
