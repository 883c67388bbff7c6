"""Carries news of health between this process and the server, in the background."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, cast

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
from loadwise.integrations.redis._health_book import MOST_NODES
from loadwise.integrations.redis._health_wire import (
    Put,
    encode_note,
    parse_look,
    parse_note,
    parse_put,
)
from loadwise.integrations.redis._listener import Listener
from loadwise.integrations.redis._parsing import Rejected

if TYPE_CHECKING:
    import redis

    from loadwise.integrations.redis._health import SharedHealth

__all__ = ["Courier"]

_SECOND = 1_000_000
_UNREADABLE = "unreadable"


class Courier:
    """Tells the server what a tracker finds out, and the tracker what others did.

    Args: as for `SharedHealth`, and

        tracker: Who it works for; it does not keep it alive.

    One thread sends and looks at the HASH; another, the listener's, hears of news sooner.
    """

    def __init__(
        self,
        client: redis.Redis,
        prefix: str,
        tracker: SharedHealth,
        log: EventLog,
        ttl: float,
        poll: float,
        timeout: float,
    ) -> None:
        self._given = client
        self._prefix = prefix
        self._key = f"{prefix}:health".encode()
        self._tracker = weakref.ref(tracker)
        self._clock = tracker.clock
        self._log = log
        self._ttl = ttl
        self._poll = poll
        self._timeout = timeout
        self.link = CircuitBreaker(
            log, tracker.clock, "meanwhile each process goes by what it sees"
        )
        self._sender = BackgroundThread(f"loadwise tells {prefix}:health")
        self._changed = ""
        self._epoch = ""
        # By how many microseconds the server's clock is ahead of the local one, once it is known.
        self._ahead: int | None = None
        self._next_look = self._next_try = tracker.clock()
        self._listener = Listener(self._key, self._tracker, self.link, log, self._sender.wake)
        self._connect()
        self._sender.start(self._step)
        self._listener.start(self._client)

    def restart_in_child(self) -> None:
        """Begin anew in the child of a fork."""
        abandon(self._client)
        self._connect()
        self._sender.restart_in_child()
        self._listener.restart_in_child(self._client)

    def wake(self) -> None:
        """Have news sent now. Does not wait."""
        self._sender.wake()

    def close(self) -> None:
        """Send the rest, and end the threads."""
        self._sender.close()
        self._listener.close()
        tracker = self._tracker()
        if self.link.up and tracker is not None:
            try:
                if self._ahead is None:
                    self._look(tracker)
                self._send(tracker)
            except TROUBLE as error:
                self.link.failed(error)
        self.link.close()
        if self._client is not self._given:
            self._commands.close()

    def _connect(self) -> None:
        self._client = with_short_timeouts(self._given, self._timeout)
        self._commands = cast("Commands", self._client)

    def _step(self) -> float:
        tracker = self._tracker()
        if tracker is None:
            return self._poll
        try:
            if not self.link.up:
                early = self._next_try - self._clock()
                if early > 0:
                    return early
                check_writable(self._commands, self._prefix)
                self._next_look, self._ahead = self._clock(), None
                self._listener.is_stale = True
                self.link.restored()
            if self._clock() >= self._next_look:
                self._next_look = self._clock() + self._poll
                self._look(tracker)
            self._send(tracker)
        except TROUBLE as error:
            self.link.failed(error)
            self._next_try = self._clock() + self.link.wait
            return self.link.wait
        return max(0.0, self._next_look - self._clock())

    def _send(self, tracker: SharedHealth) -> None:
        if self._ahead is None:
            return
        untold = tracker.untold()
        try:
            while untold:
                node_id = next(iter(untold))
                health, when = untold[node_id]
                try:
                    note = encode_note(health, when)
                except ValueError as error:
                    self._log.add("rejected", str(error))
                    tracker.told(node_id, 0)
                else:
                    # Told by the server's clock, for the call may wait there before it is run.
                    at = round(when * _SECOND) + self._ahead
                    ttl = round(self._ttl * _SECOND)
                    raw = run(
                        self._commands, HEALTH_PUT, self._key, self._key, node_id, note, at, ttl
                    )
                    self._sent(tracker, node_id, raw)
                del untold[node_id]
        finally:
            for node_id, (_, when) in untold.items():
                tracker.not_told(node_id, when)

    def _sent(self, tracker: SharedHealth, node_id: str, raw: object) -> None:
        put = Put(0)
        try:
            put = parse_put(raw, self._clock())
        except Rejected as error:
            if self._changed != _UNREADABLE:
                self._log.add("rejected", str(error))
        tracker.told(node_id, put.at)
        if put.later is not None:
            tracker.take_over(put.later)
        if put.epoch:
            self._follow(tracker, put.epoch)

    def _follow(self, tracker: SharedHealth, epoch: str, *, lost: bool = False) -> None:
        """Take note of the epoch; if it is another one, what was told before is lost."""
        lost = lost or bool(self._epoch and epoch != self._epoch)
        self._epoch = epoch
        if lost and tracker.tell_anew(self._ttl):
            self._log.add("resynchronised", "what is known of nodes' health is told anew")
            self._sender.wake()

    def _look(self, tracker: SharedHealth) -> None:
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
            if tracker.take_over(note) and found.now - note.at > _SECOND:
                self._listener.is_stale = True
        lost = self._changed == _UNREADABLE
        self._changed = found.changed
        tracker.expire(self._ttl, found.now - ttl)
        self._follow(tracker, found.epoch, lost=lost)
