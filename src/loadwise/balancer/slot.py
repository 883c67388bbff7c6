"""Slot of one member of a balancer: its counts, its limit and its state."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from itertools import count
from typing import Any, NamedTuple

from loadwise._native import mypyc_attr
from loadwise._prompt import LEAST_TOKENS, Prompt
from loadwise.balancer.limits import Room
from loadwise.balancer.recent import Bucket
from loadwise.balancer.tallied import Tallied
from loadwise.load import Cell, FirstByteMeasure, Forgetful, LoadMeasure, PeakEwma
from loadwise.load.pending_tokens import PendingTokens, Prefills
from loadwise.outcome import Outcome

__all__ = ["Cause", "Further", "MeasureFeed", "Slot"]

Observe = Callable[[Cell, float, Outcome, float], None]
Begin = Callable[[Any, int, float], None]  # a cell of the measure's own
HearFirstByte = Callable[[Cell, float, float], None]
Ageing = tuple[tuple["PeakEwma | PendingTokens | FirstBytes", Any], ...]


class Cause(NamedTuple):
    """Reason for a cooldown that the balancer began, and its end.

    Attributes:
        until: When that is over, in seconds of the balancer's clock.
        reason: Why, in words.
    """

    until: float
    reason: str


class MeasureFeed:
    """A load measure, with what requests need of it looked up once for all nodes.

    Attributes:
        cell: Gives a node's entry.
        observe: Told how each request ends; ``None`` for a measure that only counts.
        forget: Told when a node is down, where the measure wants to know.
        ageing: The measure, where it goes by requests without a first byte.
        first_byte: Told when answers begin, where the measure wants to know.
        begin: Told how each of them begins, by the node's entry, its token and its start; ``None``
            where it is told of some in another way.
        tally: Makes what a slot tells of its requests, where the measure writes them down by
            itself; told the node's entry, and the cells of further measures.
        total: Tells how many requests a node has in flight, by its entry.
        elsewhere: Tells how many of them other processes have, where the measure knows.
    """

    __slots__ = (
        "ageing",
        "begin",
        "cell",
        "elsewhere",
        "first_byte",
        "forget",
        "observe",
        "tally",
        "total",
    )

    def __init__(self, measure: LoadMeasure) -> None:
        self.cell = measure.cell
        counts_only = getattr(measure, "counts_only", False)
        self.observe: Observe | None = None if counts_only else measure.observe
        self.forget = measure.forget if isinstance(measure, Forgetful) else None
        self.ageing = measure if isinstance(measure, (PeakEwma, PendingTokens)) else None
        self.first_byte: HearFirstByte | None = None
        if isinstance(measure, FirstByteMeasure):
            self.first_byte = measure.first_byte
        self.begin: Begin | None = measure.begin if isinstance(measure, PeakEwma) else None
        self.tally: MakeTally | None = None
        self.total: Callable[[Any], int] = len
        self.elsewhere: Callable[[Any], int] | None = None
        if isinstance(measure, Tallied):
            self.tally, self.total = measure.slot_tally, measure.total_of
            self.elsewhere = measure.elsewhere_of


def _begun(waiting: dict[int, float] | Prefills | Further, token: int, now: float) -> None:
    """Let a request age no more, and tell those who measure it that its answer has begun."""
    if isinstance(waiting, (Prefills, Further)):
        waiting.first_byte(token, now)
    else:
        waiting.pop(token, None)


@mypyc_attr(allow_interpreted_subclasses=True)
class Further:
    """Counts requests with all measures but the first, and has them age where that counts.

    Ctrl-C strikes after calls, and where a loop goes round. So what is done with a cell and the
    record of it stand in one line of steps that call nothing, and `pop` may be called again.
    """

    __slots__ = ("_ageing", "_cells", "_entered")

    def __init__(self, cells: tuple[list[None], ...], ageing: Ageing) -> None:
        self._cells = cells
        self._ageing = ageing
        # In how many of the cells each request has been counted, by its token.
        self._entered: dict[int, int] = {}

    def begin(self, _first: Cell, token: int, started: float) -> None:
        """Count a request that begins."""
        for number, cell in enumerate(self._cells, 1):
            cell += [None]  # in place, and without a call
            self._entered[token] = number
        for measure, entry in self._ageing:  # a name of its own, for compiled ones have one type
            if not isinstance(measure, PendingTokens):
                measure.begin(entry, token, started)

    def first_byte(self, token: int, now: float) -> None:
        """Let a request age no more. It may be said again."""
        for measure, cell in self._ageing:
            _begun(measure.waiting(cell), token, now)

    def pop(self, token: int, _: None) -> None:
        """Uncount a request that ends. It may be called again."""
        for measure, cell in self._ageing:
            measure.waiting(cell).pop(token, None)
        number = self._entered.get(token, 0)
        while number:
            number -= 1
            self._entered[token] = number
            self._cells[number].pop()
        self._entered.pop(token, None)

    def settle(self) -> None:
        """Close what is kept for a member that has left, if no lease is open any more."""


class FirstBytes(Further):
    """Requests to one member whose answers have not begun, for a measure that is told when they do.

    Args:
        hear: What to tell.
        cell: The member's entry in the measure.
    """

    __slots__ = ("_cell", "_hear", "_tokens")

    def __init__(self, hear: HearFirstByte, cell: Cell) -> None:
        super().__init__((), ())
        self._hear = hear
        self._cell = cell
        # How many tokens of its prompt each has the member compute, by the token of its lease.
        self._tokens: dict[int, float] = {}

    def waiting(self, _cell: Cell) -> FirstBytes:
        """Return itself: what ages no more when an answer begins."""
        return self

    def begin(self, _first: Cell, token: int, started: float) -> None:  # noqa: ARG002 - all tallies' arguments
        """Wait for the answer to a request."""
        self._tokens[token] = 0.0

    def sent(self, token: int, tokens: float) -> None:
        """Note how many tokens of its prompt a request has the member compute."""
        self._tokens[token] = tokens

    def first_byte(self, token: int, now: float) -> None:
        """Tell that an answer has begun, if that was not told before."""
        try:
            tokens = self._tokens[token]
            del self._tokens[token]  # who can do this is the one to tell
        except KeyError:
            return
        self._hear(self._cell, tokens, now)

    def pop(self, token: int, _: None) -> None:
        """Wait no more: the request has ended."""
        self._tokens.pop(token, None)


MakeTally = Callable[[Any, tuple[list[None], ...], Ageing], Further]


class Slot:
    """Record that the balancer keeps of one member, for as long as it is one.

    Attributes:
        cell: Its entry in the first measure.
        in_flight: The same, as the list it is: its length is the number of requests in flight.
        others: Cells of further measures, to be counted alike.
        begin: Told how a request begins, by cell, token and start; ``None`` if it but counts in
            the first measure.
        total: Tells how many requests the cell stands for.
        elsewhere: Tells how many of them other processes have; ``None`` where that is not known.
        tokens: Requests that `begin` was told of; each is taken out at its end, by its token.
        observe: Tells the measure of the cell how a request ended; ``None`` if it only counts.
        observers: Further measures to tell, each with its cell.
        forgetters: Measures to tell when the node is dead, each with its cell.
        prompted: Measures of pending tokens, each with its cell.
        first_bytes: Those of measures that are told when answers begin.
        picks: How often the member was chosen.
        room: Permits for requests in flight; ``None`` without a limit.
        succeeded_at: When a request last ended well, by the balancer's clock.
        state_since: When its state of health last changed, or it joined, by the balancer's clock.
        cause: Why the balancer last put it on cooldown; ``None`` if it never did.
        successes: Counts requests that end well, exactly and without a lock.
        rolls_at: When the newest bucket is over, by the balancer's clock.
        buckets: Counts of the last minute, the newest last.
    """

    __slots__ = (
        "alive",
        "begin",
        "buckets",
        "cause",
        "cell",
        "draining",
        "elsewhere",
        "first_bytes",
        "forgetters",
        "id",
        "in_flight",
        "latency",
        "observe",
        "observers",
        "others",
        "picks",
        "prompted",
        "rolls_at",
        "room",
        "state_since",
        "succeeded_at",
        "successes",
        "tokens",
        "total",
    )

    def __init__(
        self,
        node_id: Hashable,
        feeds: Iterable[MeasureFeed],
        joined_at: float,
        room: Room | None = None,
    ) -> None:
        self.id = node_id
        self.state_since = joined_at
        self.cause: Cause | None = None
        # The first result begins a bucket.
        self.rolls_at = -math.inf
        self.successes = count()
        self.buckets: tuple[Bucket, ...] = ()
        self.alive = True
        self.draining = False
        self.latency: float | None = None
        self.succeeded_at: float | None = None
        self.picks = count()
        pairs = [(feed, feed.cell(node_id)) for feed in feeds]
        self.cell = pairs[0][1]
        self.in_flight: list[None] = self.cell
        self.total = pairs[0][0].total
        self.elsewhere: Callable[[], int] | None = None
        if pairs[0][0].elsewhere is not None:
            self.elsewhere = partial(pairs[0][0].elsewhere, self.cell)
        self.limit_by(room)
        self.others: tuple[list[None], ...] = tuple(cell for _, cell in pairs[1:])
        self.observe = pairs[0][0].observe
        self.observers = tuple(
            (feed.observe, cell) for feed, cell in pairs[1:] if feed.observe is not None
        )
        self.forgetters = tuple(
            (feed.forget, cell) for feed, cell in pairs if feed.forget is not None
        )
        self.prompted = tuple(
            (feed.ageing, cell) for feed, cell in pairs if isinstance(feed.ageing, PendingTokens)
        )
        self.begin: Begin | None = pairs[0][0].begin
        self.tokens: dict[int, float] | Prefills | Further | None = None
        self.first_bytes = tuple(
            FirstBytes(feed.first_byte, cell) for feed, cell in pairs if feed.first_byte is not None
        )
        ageing: Ageing = (
            *((feed.ageing, cell) for feed, cell in pairs if feed.ageing is not None),
            *((each, None) for each in self.first_bytes),
        )
        if pairs[0][0].tally is not None:
            tally = pairs[0][0].tally(self.cell, self.others, ageing)
            self.begin, self.tokens = tally.begin, tally
        elif self.others:
            further = Further(self.others, ageing)
            self.begin, self.tokens = further.begin, further
        elif pairs[0][0].ageing is not None:
            self.tokens = pairs[0][0].ageing.waiting(self.cell)
        elif self.first_bytes:
            self.begin, self.tokens = self.first_bytes[0].begin, self.first_bytes[0]

    def limit_by(self, room: Room | None) -> None:
        """Have the member's requests take these permits from now on."""
        if room is not None:
            room.elsewhere = self.elsewhere
        self.room = room

    @property
    def requests(self) -> int:
        """Requests in flight; with a host's memory those of all its processes."""
        return self.total(self.cell)

    @property
    def is_full(self) -> bool:
        """True if it has as many requests in flight as it may."""
        return self.room is not None and self.room.left <= 0

    @property
    def free_share(self) -> float:
        """Share of its limit that is free, from 0 to 1."""
        return 1.0 if self.room is None else max(0, self.room.left) / self.room.limit

    def forget(self) -> None:
        """Have the measures forget what they know of the node."""
        for forget, cell in self.forgetters:
            forget(cell)

    def first_byte(self, token: int, now: float) -> None:
        """Let a request age no more. It may be said again."""
        if self.tokens is not None:
            _begun(self.tokens, token, now)

    def prompt_sent(self, prompt: Prompt, token: int, now: float) -> None:
        """Tell that a prompt is on its way: the strategy that chose, or else the measures."""
        tokens = prompt.tell_sent(self.id, token, now)
        if tokens is None:
            tokens = prompt.tokens
            for measure, cell in self.prompted:
                measure.sent(cell, token, tokens, tokens, now)
        for each in self.first_bytes:
            each.sent(token, max(tokens, LEAST_TOKENS))

    def settle(self) -> None:
        """Close what is kept for the member, if it has left and no lease is open any more."""
        if not self.alive and isinstance(self.tokens, Further):
            self.tokens.settle()

    def fresh(self, feeds: Iterable[MeasureFeed]) -> Slot:
        """Return a slot for the same member with nothing in flight."""
        room = self.room
        if room is not None:
            room = Room(self.id, room.limit, room.freed)
        slot = Slot(self.id, feeds, self.state_since, room)
        slot.latency, slot.draining, slot.cause = self.latency, self.draining, self.cause
        slot.succeeded_at = self.succeeded_at
        return slot
