"""Connections that end between two requests, which says nothing about a node.

A server may close a connection that it has kept open at any time, also while the next request is on
its way. Such a request has got no answer, and the node is as well as ever.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = [
    "PathFault",
    "StaleConnection",
    "Trail",
    "frame_of",
    "is_graceful",
    "is_refused",
    "stale_of",
    "was_unsent",
]

_NO_ERROR = 0
_REFUSED_STREAM = 7
_DEEPEST = 8

# What is told about connections is Any: it comes from either of two packages.


class StaleConnection(Exception):  # noqa: N818 - it is the cause of an error, never one by itself
    """The server has ended a connection that was kept from earlier requests.

    Attributes:
        unsent: Whether nothing of the request was sent, or the server says that it was not read.
    """

    def __init__(self, *, unsent: bool) -> None:
        super().__init__("the server has ended a connection that was kept from earlier requests")
        self.unsent = unsent


def stale_of(error: BaseException) -> StaleConnection | None:
    """Return the stale connection that an error comes from, if it does."""
    cause = error.__cause__
    return cause if isinstance(cause, StaleConnection) else None


def was_unsent(error: BaseException) -> bool:
    """Tell whether an error says that a kept connection had ended before anything was sent."""
    stale = stale_of(error)
    return stale is not None and stale.unsent and frame_of(error) is None


def frame_of(error: BaseException | None) -> Any:
    """Return the HTTP/2 frame that ended a stream or a connection; ``None`` if none did."""
    events = sys.modules.get("h2.events")
    if events is None:  # nobody speaks HTTP/2
        return None
    for _ in range(_DEEPEST):
        if error is None:
            return None
        for told in error.args:
            if isinstance(told, events.StreamReset | events.ConnectionTerminated):
                return told
        error = error.__cause__ or error.__context__
    return None


def is_graceful(frame: Any) -> bool:
    """Tell whether a frame is a GOAWAY without an error: another connection will do."""
    return hasattr(frame, "last_stream_id") and frame.error_code == _NO_ERROR


def is_refused(frame: Any) -> bool:
    """Tell whether a frame says that a stream was not looked at. Source: RFC 9113, section 8.7."""
    return hasattr(frame, "remote_reset") and frame.error_code == _REFUSED_STREAM


class Trail:
    """Trail of one request through httpcore.

    Attributes:
        connected: Host and port of the connection that was made for it, if one was.
        begun: Whether it has been given to a connection.
        sent: Whether its head has been sent.
        stream: The number of its HTTP/2 stream; 0 with HTTP/1.1.
    """

    __slots__ = ("_told", "begun", "connected", "sent", "stream")

    def __init__(self, told: Any) -> None:
        self._told = told
        self.connected: tuple[Any, Any] | None = None
        self.begun = False
        self.sent = False
        self.stream = 0

    def _note(self, event: str, info: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.started":
            self.connected = info["host"], info["port"]
        elif event == "connection.connect_unix_socket.started":
            self.connected = info["path"], None
        elif event.endswith(".send_request_headers.started"):
            self.begun = True
            self.stream = info.get("stream_id", 0)
        elif event.endswith(".send_request_headers.complete"):
            self.sent = True

    def was_unread(self, goaway: Any) -> bool:
        """Tell whether a server that has said GOAWAY has not looked at the request.

        Source: RFC 9113, section 6.8.
        """
        read: bool = self.sent and self.stream <= goaway.last_stream_id
        return not read

    def see(self, event: str, info: dict[str, Any]) -> None:
        """Record an event; for synchronous transports."""
        self._note(event, info)
        if self._told is not None:
            self._told(event, info)

    async def see_async(self, event: str, info: dict[str, Any]) -> None:
        """Record an event; for asynchronous transports."""
        self._note(event, info)
        if self._told is not None:
            await self._told(event, info)


class PathFault(Exception):  # noqa: N818 - as StaleConnection
    """Fault of the path to a node, such as a proxy: not the node's."""
