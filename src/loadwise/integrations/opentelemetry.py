"""Metrics for OpenTelemetry.

Counts are kept by loadwise and read by observable instruments when a reader collects. So an event
does not cost the 5 microseconds of a synchronous instrument, and the series of a node that left
can be dropped, for which synchronous instruments have no means. Latencies alone are recorded as
they happen: there is no observable histogram, and so they carry exemplars.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import NamedTuple, Protocol
from weakref import WeakSet

from loadwise._counter import upcoming
from loadwise.integrations._collector import DEFAULT_BUCKETS, SeriesCollector, as_bounds
from loadwise.integrations._ledger import Ledger
from loadwise.integrations._series import NodeSeries, totals

try:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter
except ImportError as error:
    raise ImportError(
        "loadwise.integrations.opentelemetry needs opentelemetry-api: "
        "pip install 'loadwise[opentelemetry]'"
    ) from error

__all__ = ["DEFAULT_BUCKETS", "OpenTelemetryCollector"]

_BALANCER = "loadwise.balancer"
_NODE = "loadwise.node"

_taken: WeakSet[Meter] = WeakSet()


class _Record(Protocol):
    def __call__(self, amount: float, attributes: dict[str, str]) -> None: ...


class _Series(NodeSeries):
    """Counts that pass latencies on to a histogram."""

    __slots__ = ("_attributes", "_record")

    def __init__(self, label: str, record: _Record, attributes: dict[str, str]) -> None:
        super().__init__(label)
        self._record = record
        self._attributes = attributes

    def observe(self, latency: float) -> None:
        """Take note of how many seconds a request took, or waited."""
        self._record(latency, self._attributes)


_Book = Ledger[_Series]


def _observe(number: float, book: _Book, node: str | None = None, **labels: str) -> Observation:
    attributes = {_BALANCER: book.name}
    if node is not None:
        attributes[_NODE] = node
    for name, value in labels.items():
        attributes[f"loadwise.{name}"] = value
    return Observation(number, attributes)


def _picks(book: _Book) -> Iterator[Observation]:
    for series in book.series():
        for strategy, number in totals(series.picks).items():
            yield _observe(number, book, series.label, strategy=strategy)


def _requests(book: _Book) -> Iterator[Observation]:
    for series in book.series():
        for outcome, number in totals(series.outcomes).items():
            yield _observe(number, book, series.label, outcome=outcome)


def _transitions(book: _Book) -> Iterator[Observation]:
    for series in book.series():
        for (old, new), number in totals(series.transitions).items():
            yield _observe(number, book, series.label, old_state=old, new_state=new)


def _unavailable(book: _Book) -> Iterator[Observation]:
    return (_observe(n, book, reason=reason) for reason, n in totals(book.unavailable).items())


def _retries(book: _Book) -> Iterator[Observation]:
    return (_observe(n, book, reason=reason) for reason, n in totals(book.retries).items())


def _refused(book: _Book) -> Iterator[Observation]:
    return (_observe(n, book, reason=reason) for reason, n in totals(book.retries_refused).items())


def _active(book: _Book) -> Iterator[Observation]:
    return (_observe(state.in_flight, book, node) for node, state in book.states().items())


def _drained(book: _Book) -> Iterator[Observation]:
    return (_observe(state.drained, book, node) for node, state in book.states().items())


def _ailing(book: _Book) -> Iterator[Observation]:
    return (_observe(state.ailing, book, node) for node, state in book.states().items())


def _cooldown(book: _Book) -> Iterator[Observation]:
    return (_observe(state.cooldown_seconds, book, node) for node, state in book.states().items())


def _on_cooldown(book: _Book) -> Iterator[Observation]:
    states = book.states()
    if states:
        yield _observe(sum(each.on_cooldown for each in states.values()), book)


def _cooldowns(book: _Book) -> Iterator[Observation]:
    for series in book.series():
        number = upcoming(series.cooldowns)
        if number:
            yield _observe(number, book, series.label)


def _waits_in_vain(book: _Book) -> Iterator[Observation]:
    number = upcoming(book.waits_in_vain)
    if number:
        yield _observe(number, book)


def _panic(book: _Book) -> Iterator[Observation]:
    in_panic = book.in_panic()
    if in_panic is not None:
        yield _observe(in_panic, book)


def _panics(book: _Book) -> Iterator[Observation]:
    # Whoever looks may be the first to see it, and is then to find it counted.
    in_panic = book.in_panic()
    number = upcoming(book.panics)
    if number or in_panic is not None:
        yield _observe(number, book)


def _health(book: _Book) -> Iterator[Observation]:
    for node, state in book.states().items():
        for name, number in state.health.items():
            yield _observe(number, book, node, state=name)


def _quota(book: _Book) -> Iterator[Observation]:
    for node, state in book.states().items():
        for dimension, left in state.quota.items():
            yield _observe(left, book, node, dimension=dimension)


def _budget(book: _Book) -> Iterator[Observation]:
    balance = book.balance()
    if balance is not None:
        yield _observe(balance, book)


def _connected(book: _Book) -> Iterator[Observation]:
    for source, shared in book.shared().items():
        yield _observe(int(shared.connected), book, source=source)


def _events(book: _Book) -> Iterator[Observation]:
    for source, shared in book.shared().items():
        for kind, number in shared.events.items():
            yield _observe(number, book, source=source, kind=kind)


class _Instrument(NamedTuple):
    name: str
    unit: str
    description: str
    read: Callable[[_Book], Iterable[Observation]]


_COUNTERS = (
    _Instrument("loadwise.picks", "{pick}", "How often a node was chosen.", _picks),
    _Instrument(
        "loadwise.requests", "{request}", "Requests that ended, by how they ended.", _requests
    ),
    _Instrument(
        "loadwise.health.transitions",
        "{transition}",
        "Changes of the state of health.",
        _transitions,
    ),
    _Instrument(
        "loadwise.cooldowns",
        "{cooldown}",
        "How often the balancer began to have a node sit out.",
        _cooldowns,
    ),
    _Instrument(
        "loadwise.waits_in_vain",
        "{request}",
        "Requests that waited for a node and got none.",
        _waits_in_vain,
    ),
    _Instrument("loadwise.panics", "{panic}", "How often panic began.", _panics),
    _Instrument(
        "loadwise.unavailable",
        "{request}",
        "Requests for which there was no node, by what ruled out most of them.",
        _unavailable,
    ),
    _Instrument(
        "loadwise.retries", "{retry}", "Requests tried again on another node, by why.", _retries
    ),
    _Instrument("loadwise.refused_retries", "{retry}", "Retries given up, by why.", _refused),
    _Instrument(
        "loadwise.shared.events",
        "{event}",
        "What happened to state that processes share: outages and the like.",
        _events,
    ),
)
_UP_DOWN_COUNTERS = (
    _Instrument("loadwise.active_requests", "{request}", "Requests under way.", _active),
    _Instrument(
        "loadwise.node.health",
        "{node}",
        "1 for the state of health that the node is in, 0 for the others.",
        _health,
    ),
    _Instrument(
        "loadwise.node.drained",
        "{node}",
        "1 for a node that is given no new requests by drain() or a weight of 0.",
        _drained,
    ),
    _Instrument(
        "loadwise.node.ailing",
        "{node}",
        "1 for a node that fails often but is not dead; in panic it gets requests, too.",
        _ailing,
    ),
    _Instrument("loadwise.nodes_on_cooldown", "{node}", "Nodes that sit out.", _on_cooldown),
    _Instrument(
        "loadwise.panic",
        "{balancer}",
        "1 while too few nodes are available, so that ailing ones get requests, too; else 0.",
        _panic,
    ),
)
_GAUGES = (
    _Instrument(
        "loadwise.node.cooldown",
        "s",
        "Seconds for which a node still sits out; 0 for one that does not.",
        _cooldown,
    ),
    _Instrument("loadwise.quota.remaining", "{unit}", "Units of quota left.", _quota),
    _Instrument(
        "loadwise.retry_budget.balance", "{retry}", "Retries that the budget allows now.", _budget
    ),
    _Instrument(
        "loadwise.shared.connected",
        "1",
        "1 if the server of state that processes share can be reached, 0 if not.",
        _connected,
    ),
)


class OpenTelemetryCollector(SeriesCollector[_Series]):
    """Shows what balancers do through an OpenTelemetry meter.

    Args:
        meter: Who makes the instruments; that of the global provider, which may be set later, if
            not given.
        buckets: Upper bounds of the histograms of latencies and waits, in seconds; advice, which a
            view overrules.
        max_nodes: How many nodes of a balancer have series of their own; those beyond are added
            up as node ``"other"``, which is logged once.
        latency_by_node: Whether latencies are told apart by node. A reader of cumulative
            temporality shows the latencies of nodes that left until the process ends, for
            histograms have no means to drop them.

    Raises:
        ImportError: opentelemetry-api is not installed.
        ValueError: The meter has a collector already, or an argument is out of range.

    Give it to any number of balancers with ``metrics=``. It holds them weakly: the series of a
    balancer that is gone, or of a node that left, are not shown any more.

    Thread-safety: all methods may be called from any thread. In a forked child the counts go on.

    Cost: O(1) per event; O(nodes) per collection.

    Example:
        >>> from loadwise import Balancer
        >>> balancer = Balancer(["a"], metrics=OpenTelemetryCollector(get_meter("my.service")))
    """

    def __init__(
        self,
        meter: Meter | None = None,
        *,
        buckets: Iterable[float] = DEFAULT_BUCKETS,
        max_nodes: int = 1000,
        latency_by_node: bool = True,
    ) -> None:
        bounds = as_bounds(buckets)
        super().__init__(max_nodes)
        self._latency_by_node = latency_by_node
        if meter is None:
            meter = _default_meter()
        if meter in _taken:
            # The second of two observable instruments of one name would never be asked.
            raise ValueError(
                "the meter has these metrics already; one OpenTelemetryCollector serves any "
                "number of balancers, so use that one for all"
            )
        _taken.add(meter)
        self._record = meter.create_histogram(
            "loadwise.request.duration",
            unit="s",
            description="How long requests took, but for those that their callers gave up.",
            explicit_bucket_boundaries_advisory=bounds,
        ).record
        self._record_wait = meter.create_histogram(
            "loadwise.wait.duration",
            unit="s",
            description="How long requests waited for a node, whether they got one or not.",
            explicit_bucket_boundaries_advisory=bounds,
        ).record
        for make, instruments in (
            (meter.create_observable_counter, _COUNTERS),
            (meter.create_observable_up_down_counter, _UP_DOWN_COUNTERS),
            (meter.create_observable_gauge, _GAUGES),
        ):
            for name, unit, description, read in instruments:
                make(name, [self._callback(read)], unit, description)

    def _callback(
        self, read: Callable[[_Book], Iterable[Observation]]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            return [observation for book in self._open_ledgers() for observation in read(book)]

        return observe

    def _make_series(self, balancer: str, label: str) -> _Series:
        attributes = {_BALANCER: balancer}
        if self._latency_by_node:
            attributes[_NODE] = label
        return _Series(label, self._record, attributes)

    def _make_waits(self, balancer: str) -> _Series:
        return _Series("", self._note_wait, {_BALANCER: balancer})

    def _note_wait(self, amount: float, attributes: dict[str, str]) -> None:
        self._record_wait(amount, attributes)


@cache
def _default_meter() -> Meter:
    """Return the meter of the global provider; until that is set, each call makes a new one."""
    return get_meter("loadwise")
