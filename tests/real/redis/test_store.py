"""State stores on a real server."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import pytest
import redis
from tests.real.redis.support import Valkey

from loadwise import Endpoint, StateStore
from loadwise.integrations.redis import AsyncRedisStore, RedisStore, SharedEvent


class Awaited:
    """An asyncio store that looks like one for threads: each call has an event loop to itself."""

    def __init__(self, valkey: Valkey, prefix: str, **settings: Any) -> None:
        self._valkey = valkey
        self._prefix = prefix
        self._settings = settings

    def __getattr__(self, method: str) -> Callable[..., Any]:
        async def call(args: tuple[Any, ...]) -> Any:
            async with self._valkey.async_client() as client:
                store = AsyncRedisStore[Any](client, self._prefix, **self._settings)
                return await getattr(store, method)(*args)

        return lambda *args: asyncio.run(call(args))


def make(kind: str, valkey: Valkey, client: redis.Redis, prefix: str, **settings: Any) -> Any:
    """Return a store of either kind."""
    if kind == "threads":
        return RedisStore[Any](client, prefix, **settings)
    return Awaited(valkey, prefix, **settings)


both = pytest.mark.parametrize("kind", ["threads", "asyncio"])


@both
def test_a_store_keeps_states_by_id(
    kind: str, valkey: Valkey, client: redis.Redis, prefix: str
) -> None:
    """What was put last is there until it is removed, for every store of the same prefix."""
    store: StateStore[str, Any] = make(kind, valkey, client, prefix)
    states = {"a": {"n": 1.5, "deep": [True, None, "ü"]}, "b b:\n": 7, "": "empty id", "ü": []}
    for node_id, state in states.items():
        store.put(node_id, "old")
        store.put(node_id, state)
    assert {node_id: store.get(node_id) for node_id in states} == states
    other = RedisStore[Any](valkey.client(decode_responses=True), prefix)
    assert dict(other.list()) == dict(store.list()) == states
    store.remove("a")
    store.remove("absent")
    assert store.get("a") is None
    assert dict(store.list()) == {i: state for i, state in states.items() if i != "a"}
    assert RedisStore[Any](client, prefix + "-other").list() == []


@both
def test_refuses_what_cannot_be_shared(
    kind: str, valkey: Valkey, client: redis.Redis, prefix: str
) -> None:
    """Ids that are no str, states that are no JSON and states too long are refused by name."""
    store = make(kind, valkey, client, prefix, max_bytes=100)
    for use in (store.get, lambda i: store.put(i, 1), store.remove):
        for node_id in (5, b"a", ("a",), None):
            with pytest.raises(TypeError, match="it must be a str"):
                use(node_id)
    for state in (object(), {1, 2}, float("nan")):
        with pytest.raises(TypeError, match="cannot be written as JSON"):
            store.put("a", state)
    with pytest.raises(ValueError, match="max_bytes is 100"):
        store.put("a", "x" * 100)
    assert store.list() == []


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"garbage",
        b"\xff\xfe",
        b"null",
        b"[1]",
        b'{"v": 1}',
        b'{"v": 2, "state": "of the future"}',
        b'{"v": true, "state": 1}',
        b'{"v": 1, "state": NaN}',
        b'{"v": 1, "state": [-1e999]}',
        b'{"v": 1, "state": ' + b"9" * 5000 + b"}",
        b'{"v": 1, "state": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        b'{"v": 1, "state": "' + b"x" * 70_000 + b'"}',
    ],
    ids=lambda raw: repr(raw[:24]),
)
@both
def test_values_that_do_not_parse_are_reported_and_skipped(
    kind: str, valkey: Valkey, client: redis.Redis, prefix: str, garbage: bytes
) -> None:
    """Garbage, other schemas, deep nesting and huge values count as absent and harm no other."""
    heard: list[SharedEvent] = []
    store = make(kind, valkey, client, prefix, on_event=heard.append)
    store.put("good", 1)
    client.hset(f"{prefix}:state", "bad", garbage)
    assert store.get("bad") is None
    assert store.list() == [("good", 1)]
    assert [(event.source, event.kind) for event in heard] == [("store", "rejected")] * 2
    assert "'bad'" in heard[0].detail
    store.put("bad", "mended")
    assert store.get("bad") == "mended"


def test_rejections_are_counted_and_logged_once(
    client: redis.Redis, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each rejection is counted, the first is logged, and a callback that raises harms nobody."""

    def fail(_event: SharedEvent) -> None:
        raise RuntimeError("of the callback's own")

    store = RedisStore[Any](client, prefix, on_event=fail)
    client.hset(f"{prefix}:state", mapping={b"\xff": b"{}", b"a": b"garbage"})
    with caplog.at_level(logging.WARNING, "loadwise"):
        assert store.list() == []
        assert store.list() == []
    assert store.events["rejected"] == 4
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]


@both
def test_a_key_of_another_type_is_reported(
    kind: str, valkey: Valkey, client: redis.Redis, prefix: str
) -> None:
    """Where the HASH should be and something else is, nothing is read; writing says so."""
    client.set(f"{prefix}:state", "somebody else's")
    heard: list[SharedEvent] = []
    store = make(kind, valkey, client, prefix, on_event=heard.append)
    assert store.get("a") is None
    assert store.list() == []
    assert [event.detail for event in heard] == ["the key is not a hash"] * 2
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        store.put("a", 1)
    assert client.get(f"{prefix}:state") == b"somebody else's"


@dataclass(frozen=True)
class State:
    latency: float
    errors: int


@both
def test_states_of_other_types_go_through_encode_and_decode(
    kind: str, valkey: Valkey, client: redis.Redis, prefix: str
) -> None:
    """What ``encode`` makes of a state comes back by ``decode``; what that refuses is skipped."""
    heard: list[SharedEvent] = []
    store = make(
        kind,
        valkey,
        client,
        prefix,
        encode=asdict,
        decode=lambda plain: State(**plain),
        on_event=heard.append,
    )
    store.put("a", State(0.25, 3))
    assert store.get("a") == State(0.25, 3)
    RedisStore[Any](client, prefix).put("b", {"latency": 1.0})
    assert store.list() == [("a", State(0.25, 3))]
    assert "decode failed (TypeError" in heard[0].detail


@both
def test_the_key_expires(kind: str, valkey: Valkey, client: redis.Redis, prefix: str) -> None:
    """Every put gives the HASH its whole time to live again; then nothing is left behind."""
    store = make(kind, valkey, client, prefix, ttl=100.0)
    store.put("a", 1)
    client.pexpire(f"{prefix}:state", 5_000)
    store.put("b", 1)
    assert 90_000 < client.pttl(f"{prefix}:state") <= 100_000
    assert client.keys(f"{prefix}*") == [f"{prefix}:state".encode()]


def test_refuses_wrong_arguments(client: redis.Redis) -> None:
    """A client of another kind, an empty prefix or a time that is none is refused at once."""
    with pytest.raises(TypeError, match=r"it must be a redis\.Redis"):
        RedisStore[Any](redis.asyncio.Redis())  # type: ignore[arg-type]  # the error under test
    with pytest.raises(TypeError, match=r"it must be a redis\.asyncio\.Redis"):
        AsyncRedisStore[Any](client)  # type: ignore[arg-type]  # the error under test
    with pytest.raises(ValueError, match="prefix is empty"):
        RedisStore[Any](client, "")
    for ttl in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="ttl is"):
            RedisStore[Any](client, ttl=ttl)
    with pytest.raises(ValueError, match="max_bytes is 0"):
        RedisStore[Any](client, max_bytes=0)
    for name in ("max_bytes", "encode", "decode"):
        with pytest.raises(TypeError, match=f"{name} is 'x'; it must be a"):
            RedisStore[Any](client, **{name: "x"})  # type: ignore[arg-type]  # the error under test


async def later(_: object) -> Any:
    """Return nothing, for who awaits it."""


@both
def test_functions_to_be_awaited_are_refused(
    kind: str, valkey: Valkey, client: redis.Redis, prefix: str
) -> None:
    """What they return is needed at once, by the store for asyncio, too."""
    wrong: Any
    for name in ("encode", "decode", "on_event"):
        with pytest.raises(TypeError, match=rf"{name} is <.*which is to be awaited; "):
            make(kind, valkey, client, prefix, **{name: later}).get("a")
    wrong = make(kind, valkey, client, prefix, encode=lambda state: later(state))  # noqa: PLW0108
    with pytest.raises(TypeError, match="encode returned <coroutine"):
        wrong.put("a", 1)
    make(kind, valkey, client, prefix).put("a", 1)
    wrong = make(kind, valkey, client, prefix, decode=lambda state: later(state))  # noqa: PLW0108
    with pytest.raises(TypeError, match="decode returned <coroutine"):
        wrong.get("a")
    gc.collect()  # a coroutine that was not closed warns now


def test_a_node_is_taken_by_its_id(client: redis.Redis, prefix: str) -> None:
    """A node in the place of its id is as good."""
    store, node = RedisStore[Any](client, prefix), Endpoint("a")
    store.put(node, 5)  # type: ignore[arg-type]
    assert store.get("a") == store.get(node) == 5  # type: ignore[arg-type]
    store.remove(node)  # type: ignore[arg-type]
    assert store.list() == []
