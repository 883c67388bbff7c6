"""One process's account of a node's quota: what it has used itself, bucket by bucket.

The process states these numbers to the server, whole and again with each call. So no statement
depends on whether an earlier one has arrived, and a server that forgot hears all from the next one.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from loadwise.integrations.redis._parsing import EXACT
from loadwise.integrations.redis._quota_protocol import (
    LONGEST_REST,
    News,
    QuotaCall,
    Reply,
    limits_of,
    micros,
)
from loadwise.quota.window import SlidingWindow, UsageBucket

__all__ = ["Account", "Granted", "SharedBucket"]

_encode = json.JSONEncoder(separators=(",", ":")).encode
_FAR = 5.0
_FAR_MICROS = micros(_FAR)
_last = attrgetter("last")


class SharedBucket(UsageBucket):
    """Use between two moments on the grid of the server's clock.

    Attributes:
        own: What this process has used; ``None`` if it has never used any.
        others: What all others have used, by the latest reply.
        counted: Whether the server has counted what this process has used.
    """

    __slots__ = ("counted", "others", "own")

    def __init__(self, last: float) -> None:
        super().__init__(last, 0)
        self.own: float | None = None
        self.others: float = 0
        self.counted = False

    def add(self, amount: float) -> None:
        """Add what this process has used; less than nothing gives it back."""
        self.own = max(0, (self.own or 0) + amount)
        self.amount = self.own + self.others


Granted = dict[str, list[tuple[SharedBucket, float]]]
"""Grants of the server, by dimension."""


class Account:
    """One process's account of a node's quota. Not thread-safe: the counts hold a lock.

    Attributes:
        waiting: The numbers of the calls that have not been answered.
        news: The latest word on the node's cooldown.
    """

    def __init__(self) -> None:
        self._buckets: dict[str, dict[int, SharedBucket]] = {}
        # Between these is by how much the server's clock is ahead, once the server has answered.
        self._ahead = (0, 0)
        self._met = False
        self._windows: Mapping[str, SlidingWindow] = {}
        self._limits: dict[str, dict[str, Any]] = {}
        self._begin()

    def _begin(self) -> None:
        self._who = os.urandom(8).hex()
        self._calls = self._shown = 0
        self._changes = self._stated = self._heard = 0
        self._lost = 0
        self.waiting: set[int] = set()
        self.news = News()

    def configure(self, windows: Mapping[str, SlidingWindow]) -> None:
        """Show buckets in these windows, and go on under their limits."""
        self._windows = windows
        self._limits = {name: limits_of(window.dimension) for name, window in windows.items()}
        for name in windows:
            self._buckets.setdefault(name, {})

    def leave_to_parent(self) -> None:
        """Begin a new account in the child of a fork: the use till now is the parent's."""
        self._begin()
        for buckets in self._buckets.values():
            for bucket in buckets.values():
                bucket.own, bucket.others, bucket.counted = None, bucket.amount, False

    def pending(self) -> bool:
        """Tell whether there is anything that the server has not heard."""
        return self._stated < self._changes or self._heard < self.news.number

    def tell(self, *, lift: bool, until: float | None) -> None:
        """Have the server told of the node's cooldown, as `News` is."""
        number, unheard = self.news.number, self._heard < self.news.number
        self.news = News(number + 1, lift or (unheard and self.news.lift), until)

    def shows(self, call: QuotaCall) -> bool:
        """Tell whether the latest reply is to this call, which told of the latest cooldown."""
        return call.seq == self._shown and call.news == self.news.number

    def give_up(self, call: QuotaCall) -> None:
        """Wait for a reply no longer; what the call may have been granted is not used."""
        self.waiting.discard(call.seq)
        self._lost = call.seq

    def charge(self, name: str, amount: float, now: float) -> SharedBucket:
        """Add what was used without asking the server; return the bucket that holds it."""
        # The estimate is late rather than early: early use would be forgotten before its time.
        width = self._limits[name]["width"]
        end = ((micros(now) + self._ahead[1]) // width + 1) * width
        bucket = self._bucket(name, end)
        self.add(name, bucket, amount)
        return bucket

    def add(self, name: str, bucket: SharedBucket, amount: float) -> None:
        """Add to what was used in a bucket; less than nothing gives it back."""
        bucket.add(amount)
        self._changes += 1
        if name in self._windows:
            self._windows[name].recount()

    def _bucket(self, name: str, end: int) -> SharedBucket:
        buckets = self._buckets[name]
        bucket = buckets.get(end)
        if bucket is None:
            bucket = buckets[end] = SharedBucket(self.local(end))
            if name in self._windows:
                window = self._windows[name]
                window.buckets = deque(sorted((*window.buckets, bucket), key=_last))
        return bucket

    def local(self, end: int) -> float:
        """Return a time of the server's by the local clock, late rather than early."""
        return (end - self._ahead[0]) / 1e6

    def call(
        self,
        op: str,
        now: float,
        amounts: Mapping[str, float],
        needs: Mapping[str, float],
        ahead: float = 0.0,
    ) -> QuotaCall:
        """Return a call that states what was used, and asks for more.

        Args:
            op: As for `QuotaCall`.
            now: The local time.
            amounts: Units asked for, of every dimension.
            needs: The room there must be for them; none where nothing is said.
            ahead: As for `QuotaCall`.
        """
        self._calls += 1
        met = self._met
        restates = False
        used: dict[str, dict[int, float]] = {}
        dims: list[dict[str, Any]] = []
        for name, limits in self._limits.items():
            stated = used[name] = {}
            unplaced: float = 0
            window, buckets = self._windows[name].dimension.window, self._buckets[name]
            for end, bucket in list(buckets.items()):
                if bucket.last + window <= now:
                    del buckets[end]
                elif bucket.own is not None and met:
                    stated[end] = min(bucket.own, EXACT)
                    restates = restates or bucket.counted
                elif bucket.own is not None:
                    unplaced += bucket.own
            # Before the first reply it is not known which bucket of the server's was used.
            room = needs.get(name, 0) + unplaced
            dims.append({**limits, "amount": amounts[name], "need": room, "used": stated})
        marks = self._lost > 0
        seq, news = self._calls, self._news(now) if met else (0, False, 0)
        payload = _encode(
            {
                "who": self._who,
                "seq": seq,
                "open": list(self.waiting),
                "news": news,
                # Then a call that was given up and arrives after this one is not run.
                "marks": marks,
                "op": op,
                "ahead": micros(ahead),
                "dims": dims,
            }
        )
        self.waiting.add(seq)
        changes = self._changes if met else 0
        return QuotaCall(
            op, seq, now, amounts, used, news[0], changes, restates, marks, payload.encode()
        )

    def _news(self, now: float) -> tuple[int, bool, int]:
        number, lift, until = self.news
        if until is None or until <= now:
            return number, lift, 0
        return number, lift, micros(min(until, now + LONGEST_REST)) + self._ahead[1]

    def take_in(self, call: QuotaCall, reply: Reply, received: float) -> Granted:
        """Record what the server has counted, and return what it granted."""
        low = reply.now - micros(received)
        # The server takes no use that is further ahead.
        self._ahead = low, min(reply.now - micros(call.sent), low + _FAR_MICROS)
        if not self._met:
            self._met = True
            self._place()
        granted: Granted = {}
        for name, amounts in reply.granted.items():
            granted[name] = []
            for end, amount in amounts.items():
                bucket = self._bucket(name, end)
                bucket.add(amount)
                bucket.counted = True
                granted[name].append((bucket, amount))
        self._stated = max(self._stated, call.changes)
        self._heard = max(self._heard, call.news)
        if call.marks and call.seq > self._lost:
            self._lost = 0
        if call.seq > self._shown:
            self._shown = call.seq
            self._show(call, reply, received)
        else:
            for window in self._windows.values():
                window.recount()
        return granted

    def _place(self) -> None:
        """Find the buckets of the server's for what was used before its clock was known."""
        for name, buckets in self._buckets.items():
            if name in self._limits:
                width, placed = self._limits[name]["width"], {}
                for end, bucket in buckets.items():
                    placed[((end + self._ahead[1]) // width + 1) * width] = bucket
                self._buckets[name] = placed

    def _show(self, call: QuotaCall, reply: Reply, now: float) -> None:
        for name, others in reply.others.items():
            window = self._windows.get(name)
            if window is None:
                continue
            buckets, stated = self._buckets[name], call.used[name]
            latest = now + window.dimension.window + _FAR
            for end in others.keys() - buckets.keys():
                buckets[end] = SharedBucket(now)
            for end, bucket in buckets.items():
                bucket.last = min(self.local(end), latest)
                bucket.others = others.get(end, 0)
                bucket.amount = (bucket.own or 0) + bucket.others
                bucket.counted = bucket.counted or end in stated
            window.buckets = deque(sorted(buckets.values(), key=_last))
            window.recount()
