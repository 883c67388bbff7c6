"""Channels of nodes, and whether they are connected.

Nothing but the state of a channel proves that a call was never sent: the status UNAVAILABLE comes
from a server, too. So a call is given to a channel that is READY. One that is not is connected
first, without a call, and what fails then was never sent.

A channel that could not connect would pause before it tries again, for up to two minutes. It gives
way to a new one instead, which connects at once for whoever comes next: nobody else knows better
than the balancer when to try.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Final, Generic, TypeVar

import grpc

__all__ = ["Connection", "GrpcNode", "SyncConnection"]

_READY: Final = grpc.ChannelConnectivity.READY
_READY_NUMBER: Final = _READY.value[0]
_MOST_STALE: Final = 3
_ENDS: Final = frozenset(
    {_READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN}
)


class Connection(ABC):
    """A channel that its calls are counted on, to be closed after the last of them.

    Thread-safety: full; appending to a list and taking from it are atomic.
    """

    def __init__(self) -> None:
        self._users: list[None] = []
        self._retired = False

    @abstractmethod
    def shut(self) -> None:
        """Close the channel, now or soon; it may be said more than once."""

    def join(self) -> bool:
        """Count a call in; return whether it may use the channel."""
        self._users.append(None)
        if self._retired:
            self.leave()
            return False
        return True

    def leave(self) -> None:
        """Count a call out."""
        self._users.pop()
        if self._retired and not self._users:
            self.shut()

    def retire(self) -> None:
        """Close the channel as soon as no call uses it."""
        self._retired = True
        if not self._users:
            self.shut()


C = TypeVar("C", bound=Connection)


class GrpcNode(Generic[C]):
    """Present channel of one node.

    Args:
        make: Makes one; it is told what to call when it cannot connect.

    Thread-safety: full. Cost: O(1), without a lock while the channel stays.
    """

    __slots__ = ("_connection", "_lock", "_make")

    def __init__(self, make: Callable[[Callable[[C], None]], C]) -> None:
        self._make = make
        self._lock = Lock()
        self._connection: C | None = None

    def take(self) -> C:
        """Return the channel, with the caller counted in: it has to `leave` it."""
        while True:
            connection = self._connection
            if connection is None:
                connection = self._renewed()
            if connection.join():
                return connection

    def _renewed(self) -> C:
        with self._lock:
            if self._connection is None:
                self._connection = self._make(self.replace)
            return self._connection

    def replace(self, connection: C) -> None:
        """Have a channel give way to a new one."""
        with self._lock:
            if self._connection is connection:
                self._connection = None
        connection.retire()

    def retire(self) -> None:
        """Close the channel as soon as no call uses it."""
        connection = self._connection
        if connection is not None:
            self.replace(connection)

    @property
    def present(self) -> C | None:
        """The present channel, if there is one."""
        return self._connection


class SyncConnection(Connection):
    """A `grpc.Channel` to one node.

    Args:
        channel: The channel.
        failed: Called with this object when it could not connect.
    """

    def __init__(self, channel: grpc.Channel, failed: Callable[[SyncConnection], None]) -> None:
        super().__init__()
        self.channel = channel
        self._failed = failed
        self._lock = Lock()
        self._watch: _Watch | None = None
        self._shutting = [None]
        # There is no public way to ask: `subscribe` has a thread poll for as long as it holds.
        # Without this one, every call goes by way of that.
        inner = getattr(channel, "_channel", None)
        self._state: Callable[[bool], int] | None = getattr(inner, "check_connectivity_state", None)

    @property
    def is_ready(self) -> bool:
        """True if the channel is connected."""
        state = self._state
        return state is not None and state(False) == _READY_NUMBER  # noqa: FBT003 - grpcio's own

    def connect(self, seconds: float | None) -> bool:
        """Connect, or wait for who does so already; return whether the channel is connected.

        Args:
            seconds: For how long at most; ``None`` for as long as it takes.
        """
        for _ in range(_MOST_STALE):
            watch = self._watching()
            watch.done.wait(seconds)
            # What is told by another thread may be past when it comes.
            if not watch.ready or self._state is None or self.is_ready:
                return watch.ready
        return False

    def _watching(self) -> _Watch:
        """Return the watch over the present attempt to connect; begin one if there is none."""
        with self._lock:
            watch = self._watch
            if watch is not None:
                return watch
            watch = self._watch = _Watch(self._ended)
        if self._state is not None:
            self._state(True)  # noqa: FBT003 - as above; `subscribe` may be 0.2 s late
        self.channel.subscribe(watch, try_to_connect=True)
        return watch

    def _ended(self, watch: _Watch) -> None:
        """Take in that the attempt to connect has come to an end."""
        with self._lock:
            self._watch = None
        self.channel.unsubscribe(watch)
        if not watch.ready:
            self._failed(self)

    def shut(self) -> None:
        """Close the channel, in a thread of its own.

        Closing waits for events of calls, and whoever ends the last one may be the very thread
        that hands them out.
        """
        try:
            del self._shutting[0]
        except IndexError:
            return  # it has been said before
        Thread(target=self.channel.close, name="loadwise-grpc-close", daemon=True).start()

    def close(self) -> None:
        """Close the channel now."""
        self.channel.close()


class _Watch:
    """Watch over one attempt to connect.

    Attributes:
        done: Set when it has come to an end.
        ready: Whether it has succeeded.
    """

    def __init__(self, ended: Callable[[_Watch], None]) -> None:
        self._ended = ended
        self.done = Event()
        self.ready = False

    def __call__(self, state: grpc.ChannelConnectivity) -> None:
        """Take in a state of the channel; called by a thread of gRPC's."""
        if state not in _ENDS or self.done.is_set():
            return
        self.ready = state is _READY
        self._ended(self)
        self.done.set()
