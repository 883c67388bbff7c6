"""Health that processes share."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from types import MappingProxyType, TracebackType
from typing import Self

from loadwise._text import visible
from loadwise.clock import Clock
from loadwise.health import HealthPolicy, HealthStatus, HealthTracker, NodeHealth
from loadwise.integrations.redis._arguments import as_seconds, check_prefix
from loadwise.integrations.redis._connection import Client, as_client
from loadwise.integrations.redis._events import EventLog, SharedEvent
from loadwise.integrations.redis._health_protocol import Note
from loadwise.integrations.redis._health_sync import HealthSync
from loadwise.integrations.redis._known_nodes import KnownNodes
from loadwise.nodes import id_of

__all__ = ["SharedHealth"]

_log = logging.getLogger("loadwise")


class SharedHealth(HealthTracker):
    """The health of nodes, by id, that processes share.

    It is a `loadwise.HealthTracker`: give it to a balancer as ``health=``. Each process judges by
    what it sees itself; when that changes a node's state, the others take the state over, usually
    within milliseconds. Of two changes the later one holds, by the server's clock.

    Args:
        client: A ``redis.Redis``, or a ``redis.RedisCluster``, that says where the server is.
            Connections of its own are opened with the same settings, but for ``timeout`` and
            without retries.
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

    With ``host`` of `loadwise.Balancer`, each process tells the server what it finds out itself and
    the host of the same, and passes on nothing that it has heard; of what it hears, the newest by
    its time holds, whichever way it came.

    An ejection by `loadwise.OutlierDetection` is not told: it is one process's comparison of the
    nodes by its own requests, and bounded in each. What others find out of such a node is taken
    over when it is back.

    Only nodes whose id is a str are shared; others are judged here alone, with one warning. What
    is taken over is announced to listeners like any change. A probe is granted in every process.
    Of 10,000 nodes that only others have met, the ones with the oldest news are forgotten first.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range, or the client is of one node of a cluster.

    Thread-safety: that of `loadwise.HealthTracker`. Two daemon threads work in the background from
    the first use in a process on, again in the child of a fork: from a report, a question about a
    state, or a balancer's first request. `close` it, or use it in a ``with`` block; a process that
    ends by itself, and an object that is dropped, do what `close` does.

    Cost: that of `loadwise.HealthTracker`; nothing waits for the network.
    """

    def __init__(
        self,
        client: Client,
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
        self._known = KnownNodes()
        # Nodes ejected here, until they are HEALTHY again: their state is told to nobody. With the
        # last news of each from elsewhere, which waits meanwhile.
        self._ejected: dict[Hashable, Note | None] = {}
        self._warned = False
        # The node, and when, of a change that others found out and listeners are being told of.
        self._announced: tuple[str, float] | None = None
        self._sync: HealthSync | None = None
        super().__init__(policy, clock)
        self._events = EventLog("health", on_event)
        self._port = _Port(self)
        self._sync = HealthSync(
            given,
            prefix,
            self._port,
            clock,
            self._events,
            ttl=ttl,
            poll=poll,
            timeout=timeout,
        )

    def _after_fork(self) -> None:
        super()._after_fork()
        # What the parent found out is the parent's to report.
        self._known.forget_unreported()
        if self._sync is not None:
            self._sync.restart_in_child()

    @property
    def connected(self) -> bool:
        """True if the server can be reached, as far as is known."""
        return self._sync is not None and self._sync.connected

    @property
    def events(self) -> Mapping[str, int]:
        """Count of each kind of `SharedEvent`."""
        return MappingProxyType(self._events.counts)

    def close(self) -> None:
        """Report the rest, and end the background threads. The tracker works on, alone."""
        if self._sync is not None:
            self._port.attach(self)
            self._sync.close()

    def __del__(self) -> None:
        sync: HealthSync | None = self.__dict__.get("_sync")  # none if its arguments were refused
        if sync is not None:
            sync.finish(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def status(self, node_id: Hashable) -> HealthStatus:
        """Return a node's state; HEALTHY for an id never reported."""
        if self._sync is not None:
            self._sync.begin()
        return super().status(node_id)

    def health(self, node_id: Hashable) -> NodeHealth:
        """Return all that is known of one node's health."""
        if self._sync is not None:
            self._sync.begin()
        return super().health(node_id)

    def snapshot(self) -> dict[Hashable, NodeHealth]:
        """Return what is known of all nodes with something to remember, by id. O(n)."""
        if self._sync is not None:
            self._sync.begin()
        return super().snapshot()

    def catch_up(self) -> None:
        """Listen from now on; where no thread can run, see what others found out, now and then."""
        if self._sync is not None:
            self._sync.attend()

    def down(self) -> list[tuple[Hashable, bool]]:
        """Return the UNHEALTHY ids, each with whether its probe is due and nobody has it."""
        if self._sync is not None and not self._sync.is_begun:
            # Whoever asks may be only getting ready, perhaps to fork. The first who needs a node
            # is to look again, and to call `catch_up` before.
            with self._lock:
                self.version += 1
        return super().down()

    def remove(self, node_id: Hashable) -> None:
        """Forget a node in this process. An id that is not known is not an error."""
        node_id = id_of(node_id)
        super().remove(node_id)
        if isinstance(node_id, str):
            with self._lock:
                self._known.remove(node_id)
                self._ejected.pop(node_id, None)

    def eject(
        self, node_id: Hashable, reason: str, until: float, last_success: float | None = None
    ) -> bool:
        """Keep a node UNHEALTHY in this process; return ``False`` if it was ejected."""
        with self._lock:
            self._ejected.setdefault(id_of(node_id), None)
        return super().eject(node_id, reason, until, last_success)

    def readmit(self, node_id: Hashable, *, probe: bool) -> None:
        """End the ejection of a node; without a probe, what others found out of it holds."""
        note = None if probe else self._ejected.get(id_of(node_id))
        super().readmit(node_id, probe=probe)
        if note is not None:
            self._adopt(note)

    def _store(self, new: NodeHealth) -> None:
        before = self.status(new.id)
        super()._store(new)
        private = new.id in self._ejected
        if new.status is HealthStatus.HEALTHY:
            self._ejected.pop(new.id, None)
        if isinstance(new.id, str):
            self._known.met(new.id)
            if new.status is not before and not private:
                self._known.changed(new.id, self.clock())
                if self._sync is not None:
                    self._sync.wake()
        elif new.status is not before and not private and not self._warned:
            self._warned = True
            _log.warning("the health of %r is not shared: its id is no str", new.id)

    def _pending(self) -> dict[str, tuple[NodeHealth, float]]:
        with self._lock:
            pending = self._known.take_unreported()
            return {node_id: (self.health(node_id), when) for node_id, when in pending.items()}

    def _confirmed(self, node_id: str, at: int) -> None:
        with self._lock:
            known = self._known.get(node_id)
            known.reporting = None
            known.at = max(at, known.at)

    def _returned(self, node_id: str, when: float) -> None:
        with self._lock:
            self._known.get(node_id).reporting = None
            self._known.report_later(node_id, when)

    def _adopt(self, note: Note) -> bool:
        new, node_id = note.health, str(note.health.id)
        with self._lock:
            if node_id in self._ejected:
                self._ejected[node_id] = note
                return False
            old = self.health(node_id)
            known, forgotten = self._known.heard_of(node_id)
            # What was found out here is settled when it is reported: the later change holds.
            is_news = not known.is_own and note.at > known.at and note.when > known.by_host
            if is_news:
                known.at = note.at
                is_news = new.status is not old.status
            if is_news:
                known.since, known.is_hearsay = note.when, True
                if new.status is HealthStatus.HEALTHY:
                    new = NodeHealth(node_id)
                elif new.reason is not None:
                    new = replace(
                        new, reason=f"{visible(new.reason)} (found out by another process)"
                    )
                super()._store(new)
        if forgotten is not None:
            self._forget(forgotten)
        if is_news:
            self._announce(node_id, old.status, new.status, note.when)
        return is_news

    def _announce(self, node_id: str, old: HealthStatus, new: HealthStatus, when: float) -> None:
        """Tell listeners of a change that others found out."""
        self._announced = node_id, when
        try:
            self._listeners.tell(node_id, old, new)
        finally:
            self._announced = None

    def take_over(self, new: NodeHealth, when: float) -> bool:
        """Take over what another process of this host found out, and tells the server itself.

        For balancers that also have a ``host``. ``False`` if what is known is newer.

        Args:
            new: The node's state.
            when: When it was found out, by the tracker's clock.
        """
        with self._lock:
            if isinstance(new.id, str) and not self._known.told_by_host(new.id, when):
                return False
            super()._store(new)
            if new.status is HealthStatus.HEALTHY:
                self._ejected.pop(new.id, None)
        return True

    def heard_at(self, node_id: Hashable) -> float | None:
        """Return when others found out what listeners are being told of a node now.

        ``None`` if it was found out here. For balancers that also have a ``host``.
        """
        announced = self._announced
        return announced[1] if announced is not None and announced[0] == node_id else None

    def _report_all(self, within: float) -> bool:
        start = self.clock() - within
        found = False
        with self._lock:
            for node_id, known in self._known:
                if known.since is None or known.since <= start:
                    continue
                if (
                    node_id not in self._ejected
                    and self.status(node_id) is not HealthStatus.HEALTHY
                ):
                    found = True
                    self._known.report_later(node_id, known.since)
        return found

    def _expire(self, ttl: float, forgotten: int, now: int) -> None:
        with self._lock:
            old = self._known.expire(self.clock() - ttl, forgotten, now, self._records.by_id)
        for node_id in old:
            self._forget(node_id)

    def _forget(self, node_id: str) -> None:
        old = self.status(node_id)
        self.remove(node_id)
        if old is not HealthStatus.HEALTHY:
            self._announce(node_id, old, HealthStatus.HEALTHY, self.clock())


class _Port:
    """The side of a tracker that its `HealthSync` sees. It does not keep the tracker alive."""

    def __init__(self, tracker: SharedHealth) -> None:
        self.attach(tracker)

    def attach(self, tracker: SharedHealth) -> None:
        """Show this side of a tracker, even if it had been given up for collected."""
        self._tracker = weakref.ref(tracker)

    def is_open(self) -> bool:
        """Tell whether the tracker is still there."""
        return self._tracker() is not None

    def close(self) -> None:
        """Close the tracker."""
        if (tracker := self._tracker()) is not None:
            tracker.close()

    def pending(self) -> dict[str, tuple[NodeHealth, float]]:
        """Return what the server is to be told, by id, and when it happened."""
        tracker = self._tracker()
        return {} if tracker is None else tracker._pending()  # noqa: SLF001 - its own port

    def confirmed(self, node_id: str, at: int) -> None:
        """Record that the server was told, and when by its clock it happened."""
        if (tracker := self._tracker()) is not None:
            tracker._confirmed(node_id, at)  # noqa: SLF001 - its own port

    def returned(self, node_id: str, when: float) -> None:
        """Record that the server could not be told."""
        if (tracker := self._tracker()) is not None:
            tracker._returned(node_id, when)  # noqa: SLF001 - its own port

    def adopt(self, note: Note) -> bool:
        """Take a state over from another process; tell whether it was news."""
        tracker = self._tracker()
        return tracker is not None and tracker._adopt(note)  # noqa: SLF001 - its own port

    def report_all(self, within: float) -> bool:
        """Have what is not well for up to ``within`` seconds told again; tell whether any is."""
        tracker = self._tracker()
        return tracker is not None and tracker._report_all(within)  # noqa: SLF001 - its own port

    def expire(self, ttl: float, forgotten: int, now: int) -> None:
        """Forget what nobody here has met for ``ttl`` seconds; see `KnownNodes.expire`."""
        if (tracker := self._tracker()) is not None:
            tracker._expire(ttl, forgotten, now)  # noqa: SLF001 - its own port
