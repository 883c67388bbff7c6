"""Events of shared state that somebody should know of."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Literal, get_args

from loadwise._callables import refuse_async, refuse_awaitable
from loadwise._fork import ForkAware, reset_in_child
from loadwise._text import visible

__all__ = ["EventKind", "EventLog", "SharedEvent"]

EventKind = Literal["outage", "restored", "resynchronised", "rejected", "refused"]

_TOLD_NOW = "nobody would await it: make it a plain function that does not wait"

_log = logging.getLogger("loadwise")


@dataclass(frozen=True, slots=True)
class SharedEvent:
    """Something that happened to state that is shared through a server.

    Attributes:
        source: Whose state: ``"quota"``, ``"health"``, ``"leader"`` or ``"store"``.
        kind: ``"outage"``: the server cannot be reached, and work goes on from local state.
            ``"restored"``: it can be reached again. ``"resynchronised"``: it had lost what this
            process knew, and has been told again. ``"rejected"``: it holds something that
            loadwise would not have put there. ``"refused"``: it refuses the channel that news comes
            by, which is then found by polling.
        detail: More, in words.
    """

    source: str
    kind: EventKind
    detail: str


class EventLog(ForkAware):
    """Counts events, logs them sparingly and passes them on.

    Of outages each is logged, of rejections only the first. A callback that raises is logged once
    and harms nobody.

    Attributes:
        counts: How many there have been, by kind.
        deferred: Those to be told by `tell_deferred`.

    Thread-safety: a lock around the counts.
    """

    def __init__(self, source: str, on_event: Callable[[SharedEvent], object] | None) -> None:
        if on_event is not None and not callable(on_event):
            raise TypeError(f"on_event is {on_event!r}; it must be a function of a SharedEvent")
        refuse_async("on_event", on_event, _TOLD_NOW)
        self._source = source
        self._on_event = on_event
        self._complained = False
        self.deferred: deque[tuple[EventKind, str]] = deque()
        self.counts: dict[str, int] = dict.fromkeys(get_args(EventKind), 0)
        self._after_fork()
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._lock = Lock()

    def defer(self, kind: EventKind, detail: str) -> None:
        """Keep an event for `tell_deferred`. The callback does not hear of it yet."""
        self.deferred.append((kind, detail))

    def tell_deferred(self) -> None:
        """Record the events that were kept. Hold no lock that the callback may want."""
        while self.deferred:
            try:
                kind, detail = self.deferred.popleft()
            except IndexError:  # another thread was quicker
                return
            self.add(kind, detail)

    def add(self, kind: EventKind, detail: str) -> None:
        """Record an event. Hold no lock that the callback may want."""
        detail = visible(detail)
        with self._lock:
            self.counts[kind] += 1
            first = self.counts[kind] == 1
        if kind == "outage":
            _log.warning("shared %s: %s", self._source, detail)
        elif kind == "refused":
            _log.error("shared %s: %s", self._source, detail)
        elif kind == "rejected" and first:
            _log.warning(
                "shared %s: rejected what the server holds: %s (further ones are only counted)",
                self._source,
                detail,
            )
        elif kind != "rejected":
            _log.info("shared %s: %s", self._source, detail)
        if self._on_event is None:
            return
        try:
            answer = self._on_event(SharedEvent(self._source, kind, detail))
            if answer is not None:
                refuse_awaitable("on_event", answer, _TOLD_NOW)
        except Exception:  # noqa: BLE001 - a callback may raise what it likes
            if not self._complained:
                self._complained = True
                _log.exception("on_event failed; further failures are not logged")
