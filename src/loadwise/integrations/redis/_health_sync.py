"""News of health between this process and the server, in the background."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

from loadwise.health import NodeHealth
from loadwise.integrations.redis._background import BackgroundThread
from loadwise.integrations.redis._connection import (
    HEALTH_PUT,
    HEALTH_READ,
    TROUBLE,
    CircuitBreaker,
    Commands,
    abandon,
    check_writable,
    run,
    with_short_timeouts,
)
from loadwise.integrations.redis._events import EventLog
from loadwise.integrations.redis._health_protocol import (
    MOST_NODES,
    Note,
    Put,
    encode_note,
    parse_look,
    parse_message,
    parse_note,
    parse_put,
)
from loadwise.integrations.redis._parsing import Rejected

if TYPE_CHECKING:
    import redis

    from loadwise.clock import Clock

__all__ = ["HealthPort", "HealthSync"]

_SECOND = 1_000_000
_UNREADABLE = "unreadable"
_HEARS_AT_LEAST_EVERY = 0.2


class HealthPort(Protocol):
    """A health tracker, as far as its news concerns other processes."""

    def is_open(self) -> bool:
        """Tell whether the tracker is still there."""
        ...

    def pending(self) -> dict[str, tuple[NodeHealth, float]]:
        """Return what the server is to be told, by id, and when it happened."""
        ...

    def confirmed(self, node_id: str, at: int) -> None:
        """Record that the server was told, and when by its clock it happened."""
        ...

    def returned(self, node_id: str, when: float) -> None:
        """Record that the server could not be told of what happened at ``when``."""
        ...

    def adopt(self, note: Note) -> bool:
        """Take a state over from another process; tell whether it was news."""
        ...

    def report_all(self, within: float) -> bool:
        """Have what is not well for up to ``within`` seconds told again; tell whether any is."""
        ...

    def expire(self, ttl: float, forgotten: int, now: int) -> None:
        """Forget what nobody here has met for ``ttl`` seconds.

        Up to ``forgotten`` the server has forgotten everything; it is ``now``, by its clock.
        """
        ...


class HealthSync:
    """Tells the server what a tracker finds out, and the tracker what others did.

    Args: as for `SharedHealth`, and

        port: The tracker.

    One thread sends and looks at the HASH; another, the subscriber's, hears of news sooner.
    """

    def __init__(
        self,
        client: redis.Redis,
        prefix: str,
        port: HealthPort,
        clock: Clock,
        log: EventLog,
        *,
        ttl: float,
        poll: float,
        timeout: float,
    ) -> None:
        self._given = client
        self._prefix = prefix
        self._key = f"{prefix}:health".encode()
        self._port = port
        self._clock = clock
        self._log = log
        self._ttl = ttl
        self._poll = poll
        self._timeout = timeout
        self.breaker = CircuitBreaker(log, clock, "meanwhile each process goes by what it sees")
        self._sender = BackgroundThread(f"loadwise tells {prefix}:health")
        self._changed = ""
        self._epoch = ""
        # By how many microseconds the server's clock is ahead of the local one, once it is known.
        self._ahead: int | None = None
        self._next_look = self._next_try = clock()
        self._subscriber = ChangeSubscriber(self._key, port, self.breaker, clock, log, self.wake)
        self._connect()
        self._sender.start(self._step)
        self._subscriber.start(self._client)

    def restart_in_child(self) -> None:
        """Begin anew in the child of a fork."""
        abandon(self._client)
        self._connect()
        self._sender.restart_in_child()
        self._subscriber.restart_in_child(self._client)

    def wake(self) -> None:
        """Have news sent now. Does not wait."""
        self._sender.wake()

    def close(self) -> None:
        """Send the rest, and end the threads."""
        self._sender.close()
        self._subscriber.close()
        if self.breaker.up and self._port.is_open():
            try:
                if self._ahead is None:
                    self._look()
                self._send()
            except TROUBLE as error:
                self.breaker.failed(error)
        self.breaker.close()
        if self._client is not self._given:
            self._commands.close()

    def _connect(self) -> None:
        self._client = with_short_timeouts(self._given, self._timeout)
        self._commands = cast("Commands", self._client)

    def _step(self) -> float:
        if not self._port.is_open():
            return self._poll
        try:
            if not self.breaker.up:
                early = self._next_try - self._clock()
                if early > 0:
                    return early
                check_writable(self._commands, self._prefix)
                self._next_look, self._ahead = self._clock(), None
                self._subscriber.is_stale = True
                self.breaker.restored()
            if self._clock() >= self._next_look:
                self._next_look = self._clock() + self._poll
                self._look()
            self._send()
        except TROUBLE as error:
            self.breaker.failed(error)
            self._next_try = self._clock() + self.breaker.wait
            return self.breaker.wait
        return max(0.0, self._next_look - self._clock())

    def _send(self) -> None:
        if self._ahead is None:
            return
        pending = self._port.pending()
        try:
            while pending:
                node_id = next(iter(pending))
                health, when = pending[node_id]
                try:
                    note = encode_note(health, when)
                except ValueError as error:
                    self._log.add("rejected", str(error))
                    self._port.confirmed(node_id, 0)
                else:
                    # Told by the server's clock, for the call may wait there before it is run.
                    at = round(when * _SECOND) + self._ahead
                    ttl = round(self._ttl * _SECOND)
                    raw = run(
                        self._commands, HEALTH_PUT, self._key, self._key, node_id, note, at, ttl
                    )
                    self._sent(node_id, raw)
                del pending[node_id]
        finally:
            for node_id, (_, when) in pending.items():
                self._port.returned(node_id, when)

    def _sent(self, node_id: str, raw: object) -> None:
        put = Put(0)
        try:
            put = parse_put(raw, self._clock())
        except Rejected as error:
            if self._changed != _UNREADABLE:
                self._log.add("rejected", str(error))
        self._port.confirmed(node_id, put.at)
        if put.later is not None:
            self._port.adopt(put.later)
        if put.epoch:
            self._follow(put.epoch)

    def _follow(self, epoch: str, *, lost: bool = False) -> None:
        """Record the epoch; if it is another one, what was told before is lost."""
        lost = lost or bool(self._epoch and epoch != self._epoch)
        self._epoch = epoch
        if lost and self._port.report_all(self._ttl):
            self._log.add("resynchronised", "what is known of nodes' health is told anew")
            self._sender.wake()

    def _look(self) -> None:
        """Read what the server keeps, if it has changed."""
        ttl = round(self._ttl * _SECOND)
        asked = self._clock()
        raw = run(self._commands, HEALTH_READ, self._key, self._changed, ttl, MOST_NODES)
        received = self._clock()
        try:
            found = parse_look(raw)
        except Rejected as error:
            if self._changed != _UNREADABLE:
                self._changed = _UNREADABLE
                self._log.add("rejected", str(error))
            return
        if self._ahead is None or received - asked <= self._timeout:
            # Else this process was held up since, and what it knew before is better.
            self._ahead = found.now - round((asked + received) / 2 * _SECOND)
        if found.dropped:
            self._log.add("rejected", f"{found.dropped} fields of the health of nodes")
        for entry in found.entries:
            try:
                note = parse_note(entry, found.now, received)
            except Rejected as error:
                self._log.add("rejected", f"a node's health: {error}")
                continue
            if self._port.adopt(note) and found.now - note.at > _SECOND:
                self._subscriber.is_stale = True
        lost = self._changed == _UNREADABLE
        self._changed = found.changed
        self._port.expire(self._ttl, found.now - ttl, found.now)
        self._follow(found.epoch, lost=lost)


class ChangeSubscriber:
    """Subscribes to a channel and passes on what it hears.

    Args:
        channel: The channel.
        port: Whom to tell.
        breaker: Whether the server can be reached.
        clock: Source of monotonic seconds.
        log: Where to report what makes no sense.
        alarm: Called when the subscription breaks.

    Attributes:
        is_stale: Whether messages have been missed, so that it should subscribe again.
    """

    def __init__(
        self,
        channel: bytes,
        port: HealthPort,
        breaker: CircuitBreaker,
        clock: Clock,
        log: EventLog,
        alarm: Callable[[], None],
    ) -> None:
        self._channel = channel
        self._port = port
        self._breaker = breaker
        self._clock = clock
        self._log = log
        self._alarm = alarm
        self._client: redis.Redis | None = None
        self._news: Any = None  # what redis-py calls a PubSub is not typed
        self._thread = BackgroundThread(f"loadwise listens to {channel.decode()}")
        self.is_stale = False

    def start(self, client: redis.Redis) -> None:
        """Begin."""
        self._client = client
        self._thread.start(self._step)

    def restart_in_child(self, client: redis.Redis) -> None:
        """Begin again in the child of a fork."""
        if self._news is not None:
            # The parent's subscription goes on there. (Why: see `abandon`.)
            self._news.connection = None
        self._client, self._news = client, None
        self._thread.restart_in_child()

    def close(self) -> None:
        """End."""
        self._thread.close()
        self._hang_up()

    def _step(self) -> float:
        if not self._port.is_open() or not self._breaker.up:
            self._hang_up()
            return self._breaker.wait
        try:
            if self.is_stale:
                self.is_stale = False
                self._hang_up()
            if self._news is None:
                self._news = cast("Any", self._client).pubsub(ignore_subscribe_messages=True)
                self._news.subscribe(self._channel)
            message: Any = self._news.get_message(timeout=_HEARS_AT_LEAST_EVERY)
        except TROUBLE:
            # Whether the server is away is for others to find out.
            self._hang_up()
            self._alarm()
            return _HEARS_AT_LEAST_EVERY
        if message is not None:
            try:
                self._port.adopt(parse_message(message["data"], self._clock()))
            except Rejected as error:
                self._log.add("rejected", f"a message about health: {error}")
        return 0

    def _hang_up(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            news.close()
