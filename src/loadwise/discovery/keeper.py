"""Rules by which the answers of a source become the members of a balancer."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from loadwise._numbers import shown
from loadwise._text import visible
from loadwise._turns import in_turns
from loadwise.balancer import Balancer
from loadwise.discovery.cache import CacheFile
from loadwise.discovery.changes import Changes
from loadwise.discovery.complaints import Complaints
from loadwise.discovery.settings import WatchSettings
from loadwise.discovery.source import MOST_NODES, Found, SourceError
from loadwise.nodes import check_id, node_id, refuse_text

__all__ = ["Keeper", "WatchStatus"]

N = TypeVar("N")

_LONGEST = 500
"""Characters of an error that are told at most."""
_REFUSED_AGAIN = 10.0
"""Seconds until nodes that the balancer refused are tried again, if no other answer comes."""


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """State of a watcher.

    Attributes:
        nodes: How many nodes it has given to the balancer.
        draining: How many of them are drained because their end is near.
        held: How many are kept for a while though the source lists them no more.
        age: Seconds since the source was last found well, be it with nothing new; ``None`` if it
            never was.
        error: Why the source cannot be asked just now, or its answer not be used; ``None`` if it
            answers with nodes.
        failures: How often in a row it could not be asked.
        from_cache: Whether the nodes are still those of the cache file.
    """

    nodes: int
    draining: int
    held: int
    age: float | None
    error: str | None
    failures: int
    from_cache: bool


class Keeper(Generic[N]):
    """Keeper of a fleet: it decides which answers to believe, and when.

    Args:
        balancer: Whose members are kept.
        settings: The watcher's.
        source: The source in words, for messages and the cache file.

    Attributes:
        balancer: Whose members are kept.
        source: The source in words.

    Not thread-safe: it belongs to one thread. `status` may be asked from any.
    """

    def __init__(self, balancer: Balancer[N], settings: WatchSettings, source: str) -> None:
        self._settings = settings
        self.balancer = balancer
        self.source = source
        self._changes = Changes(balancer)
        self._complaints = Complaints(f"{source} for balancer {balancer.name!r}")
        self._cache = None if settings.cache is None else CacheFile(settings.cache, source)
        self._cache_faults: dict[str, str] = {}  # of the last time that it was written
        self._last: Found[N] | None = None
        self._believed: Found[N] | None = None
        self._is_first = True
        self._pending: Found[N] | None = None
        self._due: float | None = None
        self._was_refused = False  # and what is due is to try that again
        # Until when nodes are kept that half of the fleet was lost with.
        self._held: dict[Hashable, float] = {}
        self._answered_at: float | None = None
        self._error: str | None = None
        self._failures = 0
        self._from_cache = False

    def __str__(self) -> str:
        return f"balancer {self.balancer.name!r} by {self.source}"

    def status(self, now: float) -> WatchStatus:
        """Return how it is. O(1)."""
        answered_at = self._answered_at
        return WatchStatus(
            nodes=len(self._changes.members),
            draining=len(self._changes.drained),
            held=len(self._held),
            age=None if answered_at is None else max(0.0, now - answered_at),
            error=self._error,
            failures=self._failures,
            from_cache=self._from_cache,
        )

    def begin(self) -> None:
        """Begin a run, with the nodes of the cache file if nothing better is known."""
        self._is_first = True
        self._last = None
        if self._cache is None or self._changes.members:
            return
        try:
            nodes = self._cache.read()
            if nodes:
                self._changes.apply({node_id(node): node for node in nodes}, frozenset())
                self._from_cache = True
        except Exception as error:  # noqa: BLE001 - a file of any content, a strategy of any kind
            self._complaints.noted({"cache": f"the cache file cannot be used: {_words(error)}"})

    def offer(self, found: Found[N], now: float) -> None:
        """Record an answer; `turn` applies it when it is due.

        The same one once more is no answer to apply, but a sign of life.
        """
        self._answered_at = now
        if found is self._last and not self._failures:
            return
        self._last = found
        self._error, self._failures = None, 0
        self._complaints.answered()
        self._pending = found
        if self._due is None or self._was_refused:
            self._due = now if self._is_first else now + self._settings.debounce
        self._was_refused = False

    def failed(self, error: BaseException) -> None:
        """Record that the source could not be asked."""
        self._failures += 1
        self._error = _words(error)
        self._complaints.failed(self._error, self._what_stays())

    def turn(self, now: float) -> float | None:
        """Apply what is due, and return in how many seconds there will be more; O(n) if it is."""
        if self._pending is not None and self._due is not None and now >= self._due:
            found, self._pending, self._due = self._pending, None, None
            self._was_refused = False
            self._take(found, now)
        elif self._believed is not None and any(until <= now for until in self._held.values()):
            self._take(self._believed, now)
        moments = list(self._held.values())
        if self._due is not None:
            moments.append(self._due)
        return max(0.0, min(moments) - now) if moments else None

    def _take(self, found: Found[N], now: float) -> None:
        self._is_first = False
        complaints = {**found.complaints, **self._cache_faults}
        try:
            self._follow(found, now, complaints)
        except Exception as error:  # noqa: BLE001 - nodes, strategies and filters are the user's
            complaints["refused"] = (
                f"the nodes that it lists cannot be used, so they stay as they are: {_words(error)}"
            )
            self._pending, self._due, self._was_refused = found, now + _REFUSED_AGAIN, True
        if self._error is None:
            self._error = complaints.get("refused", complaints.get("empty"))
        self._complaints.noted(complaints)

    def _follow(self, found: Found[N], now: float, complaints: dict[str, str]) -> None:
        nodes = _by_id(found, complaints)
        members = self._changes.members
        draining = found.draining & nodes.keys()
        if len(draining) == len(nodes) and not self._settings.allow_empty:
            what = "all nodes that it lists are about to end" if nodes else "it lists no nodes"
            complaints["empty"] = (
                f"{what}; {self._what_stays()} (allow_empty=True would let them go)"
            )
            return
        self._believed = found
        self._hold(nodes, now)
        # A node that is about to end is of no use to who does not know it yet.
        kept = {i: node for i, node in nodes.items() if i not in draining or i in members}
        kept |= {i: members[i] for i in self._held}
        changed = self._changes.apply(kept, draining)
        if (changed or self._from_cache) and self._cache is not None:
            self._write_cache(self._cache, nodes)
            complaints |= self._cache_faults
        self._from_cache = False

    def _hold(self, nodes: dict[Hashable, N], now: float) -> None:
        """Find out who is gone, and who of them is kept nevertheless."""
        mine = self._changes.members.keys() - self._changes.drained
        lost = mine - nodes.keys() - self._held.keys()
        if lost and len(mine) > 1 and len(lost) * 2 >= len(mine):
            text = f"{len(lost)} of {len(mine)} nodes are gone at once"
            seconds = self._settings.hold_back
            if seconds:
                self._held |= dict.fromkeys(lost, now + seconds)
                text += f"; they are kept for {seconds:g} s, unless they come back"
            self._complaints.happened(text)
        self._held = {i: until for i, until in self._held.items() if i not in nodes and until > now}

    def _write_cache(self, cache: CacheFile, nodes: dict[Hashable, N]) -> None:
        self._cache_faults = {}
        try:
            cache.write(nodes.values())
        except (OSError, TypeError, ValueError) as error:
            self._cache_faults["cache"] = f"the cache file cannot be written: {_words(error)}"

    def _what_stays(self) -> str:
        count = len(self.balancer.all_nodes)
        return f"what there is, {count} node{'' if count == 1 else 's'}, stays as it is"


def _by_id(found: Found[N], complaints: dict[str, str]) -> dict[Hashable, N]:
    """Return the nodes by id, each once.

    Raises:
        SourceError: There are too many.
        TypeError: They are no nodes.
    """
    refuse_text(found.nodes)
    nodes: dict[Hashable, N] = {}
    twice: list[Hashable] = []
    for count, node in enumerate(in_turns(islice(found.nodes, MOST_NODES + 1))):
        if count == MOST_NODES:
            raise SourceError(f"it lists more than {MOST_NODES:,} nodes, which is the most allowed")
        identity = node_id(node)
        check_id(identity, node)
        first = nodes.setdefault(identity, node)
        if first is not node and first != node:
            twice.append(identity)
    if twice:
        complaints["twice"] = (
            f"it lists {len(twice)} nodes again with other values, such as {shown(twice[0])}; "
            f"what came first is taken"
        )
    return nodes


def _words(error: BaseException) -> str:
    kind = type(error).__name__
    try:
        text = visible(str(error))
    except Exception:  # noqa: BLE001 - it is the user's, like the source
        return kind
    if isinstance(error, SourceError) and text:
        return _cut(text)
    return _cut(f"{kind}: {text}") if text else kind


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
