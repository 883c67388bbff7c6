"""News of health between this process and the server, in the background."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from redis.exceptions import AskError, ClusterError, ResponseError

from loadwise.health import NodeHealth
from loadwise.integrations.redis._background import BackgroundThread
from loadwise.integrations.redis._bounded import BoundedClient, Subscription
from loadwise.integrations.redis._circuit_breaker import CircuitBreaker
from loadwise.integrations.redis._connection import (
    ATTEMPTS_AT_END,
    HEALTH_PUT,
    HEALTH_READ,
    TROUBLE,
    Client,
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
from loadwise.integrations.redis._keys import health_key
from loadwise.integrations.redis._parsing import Rejected

if TYPE_CHECKING:
    from loadwise.clock import Clock

__all__ = ["HealthPort", "HealthSync"]

_SECOND = 1_000_000
_UNREADABLE = "unreadable"
_HEARS_AT_LEAST_EVERY = 0.2
_ASKS_AGAIN = 60.0


class HealthPort(Protocol):
    """A health tracker, as far as its news concerns other processes."""

    def is_open(self) -> bool:
        """Tell whether the tracker is still there."""
        ...

    def close(self) -> None:
        """Close the tracker, which ends the work of its `HealthSync`."""
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

    One thread sends and looks at the HASH; another, the subscriber's, hears of news sooner. Both
    begin with the first use in a process.
    """

    def __init__(
        self,
        client: Client,
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
        self._key = health_key(prefix)
        self._port = port
        self._clock = clock
        self._log = log
        self._ttl = ttl
        self._poll = poll
        self._timeout = timeout
        self.breaker = CircuitBreaker(log, clock, "meanwhile each process goes by what it sees")
        self._sender = BackgroundThread(f"loadwise tells {prefix}:health", self._step, port.close)
        self._changed = self._epoch = ""
        # By how many microseconds the server's clock is ahead of the local one, once it is known.
        self._ahead: int | None = None
        self._next_look = self._next_try = clock()
        self._client = with_short_timeouts(client, timeout)
        self._subscriber = ChangeSubscriber(
            self._key, port, self.breaker, log, self._heard, self.wake
        )

    @property
    def is_begun(self) -> bool:
        """True if it works in this process."""
        return self._sender.is_begun

    @property
    def connected(self) -> bool:
        """True if news comes and goes, as far as is known."""
        return self.breaker.up and (self._sender.running or not self.is_begun)

    def restart_in_child(self) -> None:
        """Let go of the parent's connections, in the child of a fork."""
        self._client.abandon()
        self._client = with_short_timeouts(self._given, self._timeout)
        self._subscriber.let_go()

    def begin(self) -> None:
        """Work in this process from now on."""
        if not self._sender.is_begun:
            self._subscriber.begin(self._client)
            self._sender.begin()

    def attend(self) -> None:
        """Work from now on; where no thread can run, send and look here if it is time to."""
        self.begin()
        self._sender.attend()

    def wake(self) -> None:
        """Have news sent now. Does not wait."""
        self.begin()
        self._sender.wake()

    def finish(self, close: Callable[[], None]) -> None:
        """Have the background call ``close``, because the tracker has been dropped."""
        self._sender.finish(close)

    def close(self) -> None:
        """Send the rest, and end the threads."""
        begun = self.is_begun
        self._sender.close()
        self._subscriber.close()
        if begun and not self.breaker.closed and self._port.is_open():
            self._send_the_rest()
        self.breaker.close()
        self._client.close()

    def _send_the_rest(self) -> None:
        for _ in range(ATTEMPTS_AT_END):
            try:
                if self._ahead is None:
                    self._look()
                self._send()
            except TROUBLE as error:
                self.breaker.failed(error)
            else:
                return

    def _step(self) -> float:
        if not self._port.is_open():
            return self._poll
        try:
            if not self.breaker.up:
                early = self._next_try - self._clock()
                if early > 0:
                    return early
                check_writable(self._client, self._key)
                self._next_look, self._ahead = self._clock(), None
            if self._clock() >= self._next_look:
                self._next_look = self._clock() + self._poll
                self._look()
            self._send()
        except TROUBLE as error:
            self.breaker.failed(error)
            self._next_try = self._clock() + self.breaker.wait
            return self.breaker.wait
        if not self.breaker.up and self.breaker.restored():
            self._subscriber.restart()
        return max(0.0, self._next_look - self._clock())

    def _send(self) -> None:
        if self._ahead is None:
            return
        pending = self._port.pending()
        publish = "SPUBLISH" if self._client.is_cluster else "PUBLISH"
        ttl = round(self._ttl * _SECOND)
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
                    # Told by the server's clock, because the call may wait there before it is run.
                    at = round(when * _SECOND) + self._ahead
                    arguments = (publish, node_id, note, at, ttl, MOST_NODES)
                    self._sent(node_id, run(self._client, HEALTH_PUT, self._key, *arguments))
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
        if put.unpublished:
            self._subscriber.refused(put.unpublished)

    def _follow(self, epoch: str, *, lost: bool = False) -> None:
        """Record the epoch; if it is another one, what was told before is lost."""
        lost = lost or bool(self._epoch and epoch != self._epoch)
        self._epoch = epoch
        if lost and self._port.report_all(self._ttl):
            self._log.add("resynchronised", "what is known of nodes' health is reported again")
            self._sender.wake()

    def _heard(self, message: object) -> None:
        """Take in what somebody published."""
        clock = self._clock()
        now = None if self._ahead is None else round(clock * _SECOND) + self._ahead
        try:
            self._port.adopt(parse_message(message, now, clock))
        except Rejected as error:
            self._log.add("rejected", f"a message about health: {error}")
            # If it is the clocks that have moved, the HASH tells all the same.
            self._next_look = clock
            self._sender.wake()

    def _look(self) -> None:
        """Read what the server keeps, if it has changed."""
        ttl = round(self._ttl * _SECOND)
        asked = self._clock()
        raw = run(self._client, HEALTH_READ, self._key, self._changed, ttl, MOST_NODES)
        received = self._clock()
        try:
            found = parse_look(raw)
        except Rejected as error:
            self._cannot_read(str(error))
            return
        if self._ahead is None:
            # It had to connect, too, and so it says little of the clocks: ask once more.
            self._next_look = received
        if self._ahead is None or received - asked <= self._timeout:
            # Else this process was held up since, and what it knew before is better.
            self._ahead = found.now - round((asked + received) / 2 * _SECOND)
        if found.unreadable:
            self._cannot_read(f"the health of nodes: {found.unreadable}")
            return
        if found.dropped:
            self._log.add("rejected", f"{found.dropped} fields of the health of nodes")
        for entry in found.entries:
            try:
                note = parse_note(entry, found.now, received)
            except Rejected as error:
                self._log.add("rejected", f"a node's health: {error}")
                continue
            if self._port.adopt(note) and found.now - note.at > _SECOND:
                self._subscriber.restart()
        lost = self._changed == _UNREADABLE
        self._changed = found.changed
        self._port.expire(self._ttl, found.now - ttl, found.now)
        self._follow(found.epoch, lost=lost)

    def _cannot_read(self, why: str) -> None:
        if self._changed != _UNREADABLE:
            self._changed = _UNREADABLE
            self._log.add("rejected", why)


class ChangeSubscriber:
    """Subscribes to a channel and passes on what it hears.

    Args:
        channel: The channel.
        port: The tracker that wants to know.
        breaker: Whether the server can be reached.
        log: Is told if the server refuses the channel.
        hear: Called with each message.
        alarm: Called when the subscription breaks.
    """

    def __init__(
        self,
        channel: bytes,
        port: HealthPort,
        breaker: CircuitBreaker,
        log: EventLog,
        hear: Callable[[object], None],
        alarm: Callable[[], None],
    ) -> None:
        self._channel = channel
        self._port = port
        self._breaker = breaker
        self._log = log
        self._hear = hear
        self._alarm = alarm
        self._client: BoundedClient | None = None
        self._subscription: Subscription | None = None
        self._thread = BackgroundThread(f"loadwise listens to {channel.decode()}", self._step)
        self._is_stale = False
        self._has_complained = False

    def begin(self, client: BoundedClient) -> None:
        """Listen in this process from now on."""
        self._client = client
        self._thread.begin()

    def restart(self) -> None:
        """Subscribe again, because messages have been missed. Does not wait."""
        self._is_stale = True
        self._thread.wake()

    def let_go(self) -> None:
        """Leave the subscription to the parent, in the child of a fork."""
        if self._subscription is not None:
            self._subscription.abandon()
        self._subscription = None

    def refused(self, why: str) -> None:
        """Report that the server refuses the channel; only the first time."""
        if not self._has_complained:
            self._has_complained = True
            self._log.add(
                "refused",
                f"the server refuses the channel {self._channel.decode()!r} ({why}), so news is "
                "found by polling; to have it at once, let the user publish and subscribe there",
            )

    def close(self) -> None:
        """End."""
        self._thread.close()
        self._hang_up()

    def _step(self) -> float:
        if self._client is None or not self._port.is_open() or not self._breaker.up:
            self._hang_up()
            return self._breaker.wait
        if self._is_stale:
            self._is_stale = False
            self._hang_up()
        try:
            if self._subscription is None:
                self._subscription = self._client.subscribe(self._channel)
            message = self._subscription.next(_HEARS_AT_LEAST_EVERY)
        except TROUBLE as error:
            self._hang_up()
            if isinstance(error, ResponseError) and not isinstance(error, AskError | ClusterError):
                self.refused(str(error))
                return _ASKS_AGAIN
            # Whether the server is away, or the shard elsewhere, is for others to find out.
            self._alarm()
            return _HEARS_AT_LEAST_EVERY
        if message is not None:
            self._hear(message)
        return 0

    def _hang_up(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()
