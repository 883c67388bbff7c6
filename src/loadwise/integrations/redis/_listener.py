"""Hears what other processes tell of nodes' health, in the background."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from loadwise.integrations.redis._background import BackgroundThread
from loadwise.integrations.redis._connection import TROUBLE, CircuitBreaker
from loadwise.integrations.redis._events import EventLog
from loadwise.integrations.redis._health_wire import parse_message
from loadwise.integrations.redis._parsing import Rejected

if TYPE_CHECKING:
    import redis

    from loadwise.integrations.redis._health import SharedHealth

__all__ = ["Listener"]

_AT_MOST = 0.2


class Listener:
    """Subscribes to a channel and passes on what it hears.

    Args:
        channel: The channel.
        tracker: Whom to tell; it is not kept alive.
        link: Whether the server can be reached.
        log: Where to report what makes no sense.
        alarm: Called when the subscription breaks.

    Attributes:
        is_stale: Whether messages have been missed, so that it should subscribe anew.
    """

    def __init__(
        self,
        channel: bytes,
        tracker: weakref.ref[SharedHealth],
        link: CircuitBreaker,
        log: EventLog,
        alarm: Callable[[], None],
    ) -> None:
        self._channel = channel
        self._tracker = tracker
        self._link = link
        self._log = log
        self._alarm = alarm
        self._client: redis.Redis | None = None
        self._news: Any = None  # what redis-py calls a PubSub is not typed
        self._worker = BackgroundThread(f"loadwise listens to {channel.decode()}")
        self.is_stale = False

    def start(self, client: redis.Redis) -> None:
        """Begin."""
        self._client = client
        self._worker.start(self._step)

    def restart_in_child(self, client: redis.Redis) -> None:
        """Begin anew in the child of a fork."""
        if self._news is not None:
            # The parent's subscription goes on there. (Why: see `abandon`.)
            self._news.connection = None
        self._client, self._news = client, None
        self._worker.restart_in_child()

    def close(self) -> None:
        """End."""
        self._worker.close()
        self._hang_up()

    def _step(self) -> float:
        tracker = self._tracker()
        if tracker is None or not self._link.up:
            self._hang_up()
            return self._link.wait
        try:
            if self.is_stale:
                self.is_stale = False
                self._hang_up()
            if self._news is None:
                self._news = cast("Any", self._client).pubsub(ignore_subscribe_messages=True)
                self._news.subscribe(self._channel)
            message: Any = self._news.get_message(timeout=_AT_MOST)
        except TROUBLE:
            # Whether the server is away is for others to find out.
            self._hang_up()
            self._alarm()
            return _AT_MOST
        if message is not None:
            try:
                tracker.take_over(parse_message(message["data"], tracker.clock()))
            except Rejected as error:
                self._log.add("rejected", f"a message about health: {error}")
        return 0

    def _hang_up(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            news.close()
