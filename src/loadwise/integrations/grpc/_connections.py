"""Channels of nodes, and whether they are connected.

Nothing but the state of a channel proves that a call was never sent: the status UNAVAILABLE comes
from a server, too. So a call is given to a channel that is READY. One that is not is connected
first, without a call, and what fails then was never sent.

A channel that could not connect would pause before it tries again, for up to two minutes. It gives
way to a new one instead, which connects at once for whoever comes next: nobody else knows better
than the balancer when to try.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from threading import Lock, Thread
from time import monotonic, sleep
from typing import Final, Generic, TypeVar

import grpc

__all__ = ["Connection", "GrpcNode", "SyncConnection"]

_READY: Final = grpc.ChannelConnectivity.READY.value[0]
_FAILED: Final = (
    grpc.ChannelConnectivity.TRANSIENT_FAILURE.value[0],
    grpc.ChannelConnectivity.SHUTDOWN.value[0],
)
# Seconds between two looks at a channel that is being connected.
_SHORTEST_PAUSE: Final = 0.000_5
_LONGEST_PAUSE: Final = 0.01


class Connection(ABC):
    """A channel that its calls are counted on, to be closed after the last of them.

    Attributes:
        retired: Whether it gives way to another one, or its node has left.

    Thread-safety: full; appending to a list and taking from it are atomic.
    """

    retired = False

    def __init__(self) -> None:
        self._users: list[None] = []

    @abstractmethod
    def shut(self) -> None:
        """Close the channel, now or soon; it may be said more than once."""

    def join(self) -> bool:
        """Count a call in; return whether it may use the channel."""
        self._users.append(None)
        if self.retired:
            self.leave()
            return False
        return True

    def leave(self) -> None:
        """Count a call out."""
        self._users.pop()
        if self.retired and not self._users:
            self.shut()

    def retire(self) -> None:
        """Close the channel as soon as no call uses it."""
        self.retired = True
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
            connection = self._connection or self._renewed()
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
        self._shutting = [None]
        # There is no public way to ask: `subscribe` has a thread poll for as long as it holds, and
        # that thread dies with a traceback where the channel is closed meanwhile.
        inner = getattr(channel, "_channel", None)
        self._state: Callable[[bool], int]
        self._state = getattr(inner, "check_connectivity_state", lambda _: _READY)

    @property
    def is_ready(self) -> bool:
        """True if the channel is connected; where that cannot be told, calls are just sent."""
        try:
            return self._state(False) == _READY  # noqa: FBT003 - grpcio's own
        except ValueError:  # it has been closed
            return False

    def connect(self, seconds: float | None) -> bool:
        """Connect, or wait for who does so already; return whether the channel is connected.

        Args:
            seconds: For how long at most; ``None`` for as long as it takes.
        """
        until = math.inf if seconds is None else monotonic() + seconds
        pause = _SHORTEST_PAUSE
        while True:
            try:
                state = self._state(True)  # noqa: FBT003 - as above
            except ValueError:  # as above
                return False
            if state == _READY:
                return True
            if state in _FAILED:
                self._failed(self)
                return False
            left = until - monotonic()
            if left <= 0:
                return False
            sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)

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
