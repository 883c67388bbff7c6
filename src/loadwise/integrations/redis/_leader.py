"""Leader among processes, on any hosts, by a key with an expiry."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from threading import Lock
from types import TracebackType
from typing import Self

from loadwise._fork import ForkAware, reset_in_child
from loadwise.integrations.redis._arguments import as_seconds, check_prefix
from loadwise.integrations.redis._background import BackgroundThread
from loadwise.integrations.redis._circuit_breaker import CircuitBreaker
from loadwise.integrations.redis._connection import (
    LEADER,
    TROUBLE,
    Client,
    abandon,
    as_client,
    run,
    with_short_timeouts,
)
from loadwise.integrations.redis._events import EventLog, SharedEvent
from loadwise.integrations.redis._keys import leader_key

__all__ = ["SharedLeader"]

_IDLE = 60.0


class SharedLeader(ForkAware):
    """Makes one of a fleet's processes the one that checks nodes, whatever host it is on.

    It is a `loadwise.health_checks.Leader`: give it to a checker as ``leader=``, and
    `SharedHealth` to its balancer, by which the others hear what is found out.

    Args:
        client: A ``redis.Redis``, or a ``redis.RedisCluster``, that says where the server is.
            Connections of its own are opened with the same settings, but for ``timeout`` and
            without retries.
        prefix: The key is named ``{prefix}:leader``. Give each set of processes that check the
            same nodes a prefix of its own.
        ttl: Seconds after which another process leads where this one has ended without a word,
            finite and > 0. It is renewed three times as often.
        timeout: Seconds to wait for the server at most, finite and > 0; in the background.
        on_event: Called with each `SharedEvent`, in the background; it must be quick.

    While the server cannot be reached, every process leads: then none hears of the others.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range, or the client is of one node of a cluster.

    Thread-safety: all methods may be called from any thread, and several checkers may have the same
    leader. A daemon thread works in the background from the first question on, and another one in
    the child of a fork. `close` it, or use it in a ``with`` block; a process that ends by itself,
    and an object that is dropped, do what `close` does.

    Cost: nothing waits for the network; a round trip in a third of ``ttl``.
    """

    def __init__(
        self,
        client: Client,
        prefix: str = "loadwise",
        *,
        ttl: float = 5.0,
        timeout: float = 0.25,
        on_event: Callable[[SharedEvent], object] | None = None,
    ) -> None:
        check_prefix(prefix)
        self._ttl = as_seconds("ttl", ttl)
        self._timeout = as_seconds("timeout", timeout)
        self._given = as_client(client)
        self._key = leader_key(prefix)
        self._events = EventLog("leader", on_event)
        self._breaker = CircuitBreaker(
            self._events, time.monotonic, "meanwhile every process checks"
        )
        self._thread = BackgroundThread(f"loadwise leads {prefix}", self._step, self.close)
        self._begin()
        reset_in_child(self)

    def _begin(self) -> None:
        self._lock = Lock()
        self._token = os.urandom(16).hex()
        self._candidate = False
        self._leads_until = 0.0
        self._client = with_short_timeouts(self._given, self._timeout)

    def _after_fork(self) -> None:
        abandon(self._client)
        self._begin()

    def leads(self) -> bool:
        """Tell whether this process is to check now; from then on it is a candidate."""
        with self._lock:
            if not self._candidate:
                self._candidate = True
                self._thread.wake()
        return not self._breaker.up or time.monotonic() < self._leads_until

    def resign(self) -> None:
        """Let another process lead. Does not wait."""
        with self._lock:
            self._candidate = False
            self._leads_until = 0.0
        if self._thread.is_begun:
            self._thread.wake()

    def close(self) -> None:
        """Let another process lead, and end the background thread."""
        begun = self._thread.is_begun
        self.resign()
        self._thread.close()
        if begun and self._breaker.up:
            self._give_up()
        self._breaker.close()
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if "_client" in self.__dict__:  # else its arguments were refused
            self._thread.finish(self.close)

    def _step(self) -> float:
        if not self._candidate:
            self._give_up()
            return _IDLE
        # From before it was sent, so that it never lasts longer here than on the server.
        began = time.monotonic()
        milliseconds = max(1, int(self._ttl * 1000))
        try:
            leads = run(self._client, LEADER, self._key, self._token, milliseconds) == 1
        except TROUBLE as error:
            self._breaker.failed(error)
            return self._breaker.wait
        with self._lock:
            self._leads_until = began + self._ttl if leads and self._candidate else 0.0
        self._breaker.restored()
        return self._ttl / 3

    def _give_up(self) -> None:
        try:
            run(self._client, LEADER, self._key, self._token, 0)
        except TROUBLE as error:
            self._breaker.failed(error)
