"""Health that processes share."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Self

from loadwise.clock import Clock
from loadwise.health import HealthPolicy, HealthStatus, HealthTracker, NodeHealth
from loadwise.integrations.redis._connection import as_client
from loadwise.integrations.redis._courier import Courier
from loadwise.integrations.redis._events import EventLog, SharedEvent
from loadwise.integrations.redis._health_book import HealthBook
from loadwise.integrations.redis._health_wire import Note
from loadwise.integrations.redis._parsing import as_seconds, check_prefix
from loadwise.nodes import id_of

if TYPE_CHECKING:
    import redis

__all__ = ["SharedHealth"]

_log = logging.getLogger("loadwise")


class SharedHealth(HealthTracker):
    """The health of nodes, by id, of which processes tell each other.

    It is a `loadwise.HealthTracker`: give it to a balancer as ``health=``. Each process judges by
    what it sees itself; when that changes a node's state, the others take the state over, usually
    within milliseconds. Of two changes the later one holds, by the server's clock.

    Args:
        client: A ``redis.Redis`` that says where the server is. Connections of its own are opened
            with the same settings, but for ``timeout`` and without retries.
        prefix: States are kept in a HASH named ``{prefix}:health``, for processes that start
            later, and told on a channel of the same name.
        policy: When a node changes its state; the same in every process.
        clock: Source of monotonic seconds.
        ttl: Seconds after which a state that nobody changed is forgotten on the server, finite
            and > 0. Who knows of it goes on from what it knows.
        poll: Seconds between looks at the HASH, in case a message was missed, finite and > 0.
        timeout: Seconds to wait for the server at most, finite and > 0; in the background.
        on_event: Called with each `SharedEvent`, in the background; it must be quick.

    While the server cannot be reached each process goes by what it sees itself; afterwards they
    tell each other what is new, and after a flush what they know.

    Only nodes whose id is a str are shared; others are judged here alone, with one warning. What
    is taken over is announced to listeners like any change. A probe is granted in every process.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range.

    Thread-safety: that of `loadwise.HealthTracker`. Two daemon threads work in the background,
    anew in the child of a fork. `close` it, or use it in a ``with`` block; it also ends by itself
    when it is dropped.

    Cost: that of `loadwise.HealthTracker`; nothing waits for the network.
    """

    def __init__(
        self,
        client: redis.Redis,
        prefix: str = "loadwise",
        policy: HealthPolicy | None = None,
        clock: Clock = time.monotonic,
        *,
        ttl: float = 300.0,
        poll: float = 0.5,
        timeout: float = 0.25,
        on_event: Callable[[SharedEvent], object] | None = None,
    ) -> None:
        check_prefix(prefix)
        ttl = as_seconds("ttl", ttl)
        poll = as_seconds("poll", poll)
        timeout = as_seconds("timeout", timeout)
        given = as_client(client)
        self._book = HealthBook()
        self._warned = False
        self._courier: Courier | None = None
        super().__init__(policy, clock)
        self._events = EventLog("health", on_event)
        self._courier = Courier(given, prefix, self, self._events, ttl, poll, timeout)

    def _after_fork(self) -> None:
        super()._after_fork()
        # What the parent found out is the parent's to tell.
        self._book.forget_untold()
        if self._courier is not None:
            self._courier.restart_in_child()

    @property
    def connected(self) -> bool:
        """Whether the server can be reached, as far as is known."""
        return self._courier is not None and self._courier.link.up

    @property
    def events(self) -> Mapping[str, int]:
        """How often each kind of `SharedEvent` has happened."""
        return MappingProxyType(self._events.counts)

    def close(self) -> None:
        """Tell the rest, and end the background threads. The tracker works on, alone."""
        if self._courier is not None:
            self._courier.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def remove(self, node_id: Hashable) -> None:
        """Forget a node in this process. An id that is not known is not an error."""
        node_id = id_of(node_id)
        super().remove(node_id)
        if isinstance(node_id, str):
            with self._lock:
                self._book.remove(node_id)

    def _store(self, new: NodeHealth) -> None:
        before = self.status(new.id)
        super()._store(new)
        if isinstance(new.id, str):
            self._book.met(new.id)
            if new.status is not before:
                self._book.changed(new.id, self.clock())
                self._wake()
        elif new.status is not before and not self._warned:
            self._warned = True
            _log.warning("the health of %r is not shared: its id is no str", new.id)

    def _wake(self) -> None:
        if self._courier is not None:
            self._courier.wake()

    def untold(self) -> dict[str, tuple[NodeHealth, float]]:
        """Return what the server is to be told, and when it happened. For the courier."""
        with self._lock:
            taken = self._book.take_untold()
        return {node_id: (self.health(node_id), when) for node_id, when in taken.items()}

    def told(self, node_id: str, at: int) -> None:
        """Take note that the server was told, and when it says it was. For the courier."""
        with self._lock:
            self._book.told(node_id, at)

    def not_told(self, node_id: str, when: float) -> None:
        """Take note that the server could not be told. For the courier."""
        with self._lock:
            self._book.not_told(node_id, when)

    def take_over(self, note: Note) -> bool:
        """Take a state over from another process; tell whether it was news. For the courier."""
        new, node_id = note.health, str(note.health.id)
        with self._lock:
            old = self.health(node_id)
            if not self._book.learn(node_id, note.at) or new.status is old.status:
                return False
            if new.status is HealthStatus.HEALTHY:
                new = NodeHealth(node_id)
            elif new.reason is not None:
                new = replace(new, reason=f"{new.reason} (found out by another process)")
            self._book.learnt(node_id, note.when)
            super()._store(new)
        self._listeners.tell(node_id, old.status, new.status)
        return True

    def tell_anew(self, within: float) -> bool:
        """Have what is not well for up to ``within`` seconds told again. For the courier."""
        with self._lock:
            unwell = [
                node_id
                for node_id, record in self._records.items()
                if isinstance(node_id, str) and record.status is not HealthStatus.HEALTHY
            ]
            return self._book.tell_anew(unwell, self.clock() - within)

    def expire(self, ttl: float, forgotten: int) -> None:
        """Forget states that others found out and nobody here has met with for ``ttl`` seconds.

        ``forgotten`` tells until when the server has forgotten all. For the courier.
        """
        with self._lock:
            gone = self._book.expire(self.clock() - ttl, forgotten, self._records)
        for node_id in gone:
            old = self.status(node_id)
            self.remove(node_id)
            if old is not HealthStatus.HEALTHY:
                self._listeners.tell(node_id, old, HealthStatus.HEALTHY)
