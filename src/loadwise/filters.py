"""Filters: predicates over nodes, with an algebra.

A filter decides which nodes a strategy may see. Those that read a tracker know when their answer
may have changed, so their result is kept until then; a plain function is asked every time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from loadwise._callables import (
    is_async,
    refuse_async,
    refuse_async_methods,
    refuse_awaitable,
)
from loadwise._numbers import shown
from loadwise.health import HealthStatus, HealthTracker
from loadwise.node_set import NodeSet
from loadwise.nodes import node_id
from loadwise.quota import QuotaTracker

if TYPE_CHECKING:
    from loadwise.clock import Clock

__all__ = [
    "AllOf",
    "AnyOf",
    "Filter",
    "FnFilter",
    "HealthFilter",
    "Not",
    "QuotaFilter",
    "StateSource",
    "Watch",
]

N = TypeVar("N")

_LOOK_IT_UP = "a pick cannot wait: find out the answers beforehand, and look them up"


class StateSource(Protocol):
    """State that decides who may be chosen, and that tells when it changes."""

    @property
    def version(self) -> int:
        """A number that is another one after every change."""
        ...

    @property
    def clock(self) -> Clock:
        """The clock that `next_change` is told by."""
        ...

    def next_change(self) -> float:
        """When the passing of time alone changes the state next; inf if it never does."""
        ...


class QuotaState(StateSource, Protocol):
    """What `QuotaFilter` asks of a quota tracker."""

    def is_available(self, node_id: Hashable) -> bool:
        """Whether the node may get a request now."""
        ...


class Versioned(Protocol):
    """Anything that tells by its version whether it is still what it was."""

    @property
    def version(self) -> int:
        """A number that is another one after every change."""
        ...


class Watch:
    """Remembers the versions of some sources, to tell whether they are still the same.

    Make it *before* reading the state: a change in between is then seen as one.

    Args:
        sources: Whose versions and times of change to heed.
    """

    __slots__ = ("_deadlines", "_versions")

    def __init__(self, sources: Iterable[StateSource]) -> None:
        self._versions = [(source, source.version) for source in sources]
        changes = [(source.clock, source.next_change()) for source, _ in self._versions]
        self._deadlines = [(clock, when) for clock, when in changes if when < math.inf]

    def until(self, clock: Clock, when: float) -> None:
        """End it at ``when`` by ``clock`` besides."""
        self._deadlines = [*self._deadlines, (clock, when)]

    @property
    def timed(self) -> bool:
        """Whether the passing of time alone will end it."""
        return bool(self._deadlines)

    @property
    def version(self) -> int:
        """1 while it holds, else 0."""
        return int(self.holds())

    def holds(self) -> bool:
        """Whether nothing has changed since. O(number of sources)."""
        # A loop, for this may be asked at every pick, and a generator costs more.
        for source, version in self._versions:
            if source.version != version:
                return False
        return not self._deadlines or all(clock() < when for clock, when in self._deadlines)

    def terms(self) -> tuple[Versioned, int]:
        """Return something and its version: while it has that, the watch holds.

        Mostly that is the one source itself, so that whoever asks at every pick need not call.
        """
        if len(self._versions) == 1 and not self._deadlines:
            return self._versions[0]
        return self, 1


Kept = tuple[NodeSet[N], NodeSet[N], Versioned, int]
"""Candidates, a view of them, and what has which version for as long as the view is right."""

NOTHING_KEPT: Kept[Any] = (NodeSet(()), NodeSet(()), Watch(()), 1)
"""Fits no candidates, for the set is nobody else's."""


class Filter(ABC, Generic[N]):
    """A predicate over nodes; combine with ``&``, ``|`` and ``~``.

    Subclass it and define `__call__`; override `sources` if you can tell when answers change.

    Raises:
        TypeError: Where a subclass is defined whose `__call__` is to be awaited.

    Thread-safety: the kept result is swapped by one assignment.
    """

    _kept: Kept[N] = NOTHING_KEPT

    def __init_subclass__(cls, **named: object) -> None:
        super().__init_subclass__(**named)
        refuse_async_methods("the filter", cls, ("__call__", "sources"), _LOOK_IT_UP)

    @abstractmethod
    def __call__(self, node: N) -> bool:
        """Whether the node is accepted."""

    def sources(self) -> tuple[StateSource, ...] | None:
        """The state that the answer depends on; ``None`` when it may change at any time."""
        return None

    def view(self, candidates: Sequence[N]) -> NodeSet[N]:
        """Return the candidates with only the accepted ones eligible.

        O(1) on the NodeSet of the call before while nothing changed, else O(n); O(those that are
        not accepted) where a `HealthTracker` or a `QuotaTracker` knows them.
        """
        known, view, source, version = self._kept
        if known is candidates and source.version == version:
            return view
        nodes = candidates if isinstance(candidates, NodeSet) else NodeSet(candidates)
        sources = self.sources()
        watch = None if sources is None else Watch(sources)
        out = self._ids_out()
        view = self._asked(nodes) if out is None else nodes.without(_indices(out, nodes))
        if watch is not None and nodes is candidates:
            self._kept = (nodes, view, *watch.terms())
        return view

    def _asked(self, nodes: NodeSet[N]) -> NodeSet[N]:
        members = nodes.membership.nodes
        ask = self._question()
        # As `accepts` does; written out, for it is most of what a plain function costs.
        return nodes.restrict(
            [
                i
                for i in nodes.eligible
                if (answer := ask(members[i])) is True
                or (answer is not False and _as_bool(ask, members[i], answer))
            ]
        )

    def _ids_out(self) -> list[Hashable] | None:
        """Return the ids that it does not accept now; ``None`` where each has to be asked for."""
        return None

    def _question(self) -> Callable[[N], object]:
        """Return what answers as the filter does, at the least cost."""
        return self

    def __and__(self, other: Callable[[N], bool]) -> AllOf[N]:
        return AllOf(self, other)

    def __or__(self, other: Callable[[N], bool]) -> AnyOf[N]:
        return AnyOf(self, other)

    def __rand__(self, other: Callable[[N], bool]) -> AllOf[N]:
        return AllOf(other, self)

    def __ror__(self, other: Callable[[N], bool]) -> AnyOf[N]:
        return AnyOf(other, self)

    def __invert__(self) -> Not[N]:
        return Not(self)


def accepts(accept: Callable[[N], object], node: N) -> bool:
    """Return the answer of a filter, or of a function of a node, if it is one.

    Raises:
        TypeError: It is to be awaited, or is neither true nor false.
    """
    answer = accept(node)
    if answer is True or answer is False:
        return answer
    return _as_bool(accept, node, answer)


def _as_bool(accept: object, node: object, answer: object) -> bool:
    whose = f"the filter {shown(accept)}, asked of node {node_id(node)!r},"
    refuse_awaitable(whose, answer, _LOOK_IT_UP)
    try:
        return bool(answer)
    except Exception as error:
        raise TypeError(
            f"{whose} returned {shown(answer)}, which is neither true nor false; it must return a "
            f"bool"
        ) from error


def turned_away(where: Filter[N], nodes: NodeSet[N]) -> list[int]:
    """Return the indices of all members that a filter does not accept now, ascending.

    O(n), or O(those) where a tracker knows them.
    """
    out = where._ids_out()  # noqa: SLF001 - of this module
    if out is not None:
        return sorted(set(_indices(out, nodes)))
    return [i for i, node in enumerate(nodes.membership.nodes) if not accepts(where, node)]


def _indices(ids: Iterable[Hashable], nodes: NodeSet[N]) -> list[int]:
    return [i for i in map(nodes.index_of, ids) if i is not None]


class FnFilter(Filter[N]):
    """Accepts the nodes for which ``fn`` returns true.

    Args:
        fn: A quick function of a node, thread-safe, without I/O. It is asked at every pick,
            because nobody knows when it changes its mind: O(n) per pick.

    Raises:
        TypeError: ``fn`` is not callable, or is to be awaited; when it is asked, its answer is.

    Example:
        >>> near = FnFilter(lambda node: node.startswith("eu"))
        >>> near("eu-1"), (~near)("eu-1"), (near & (lambda node: False))("eu-1")
        (True, False, False)
    """

    def __init__(self, fn: Callable[[N], object]) -> None:
        if not callable(fn):
            raise TypeError(f"the filter is {fn!r}; it must be a Filter or a function of a node")
        if is_async(fn):  # what it returns would pass for true
            refuse_async("the filter", fn, _LOOK_IT_UP)
        self._fn = fn

    def __call__(self, node: N) -> bool:
        """Whether the node is accepted."""
        return accepts(self._fn, node)

    def _question(self) -> Callable[[N], object]:
        # A subclass may answer in its own way.
        return self._fn if type(self) is FnFilter else self


class HealthFilter(Filter[Any]):
    """Accepts the nodes whose health is one of the given states.

    Args:
        tracker: Who knows the health.
        statuses: The states to accept, joined by ``|``.

    Raises:
        TypeError: An argument is of the wrong kind.

    Example:
        >>> health = HealthTracker()
        >>> health.report_failure("b"); health.report_failure("b")
        >>> HealthFilter.available(health)("b"), HealthFilter.healthy_only(health)("b")
        (True, False)
    """

    def __init__(self, tracker: HealthTracker, statuses: HealthStatus) -> None:
        if not isinstance(tracker, HealthTracker):
            raise TypeError(f"tracker is {tracker!r}; it must be a HealthTracker")
        if not isinstance(statuses, HealthStatus):
            raise TypeError(f"statuses is {statuses!r}; join HealthStatus members by |")
        self._tracker = tracker
        self._statuses = statuses

    @classmethod
    def available(cls, tracker: HealthTracker) -> HealthFilter:
        """Accept everything but UNHEALTHY."""
        return cls(tracker, ~HealthStatus.UNHEALTHY)

    @classmethod
    def healthy_only(cls, tracker: HealthTracker) -> HealthFilter:
        """Accept HEALTHY alone."""
        return cls(tracker, HealthStatus.HEALTHY)

    def __call__(self, node: object) -> bool:
        """Whether the node is accepted."""
        return bool(self._tracker.status(node_id(node)) & self._statuses)

    def sources(self) -> tuple[StateSource, ...]:
        """The tracker."""
        return (self._tracker,)

    def _ids_out(self) -> list[Hashable] | None:
        # A subclass, of either, may answer in its own way.
        if type(self) is not HealthFilter or type(self._tracker) is not HealthTracker:
            return None
        if self._statuses == ~HealthStatus.UNHEALTHY:
            return [identity for identity, _ in self._tracker.down()]
        if HealthStatus.HEALTHY not in self._statuses:
            return None
        known = self._tracker.snapshot()
        return [i for i, health in known.items() if not health.status & self._statuses]


class QuotaFilter(Filter[Any]):
    """Accepts the nodes that have quota left.

    Args:
        tracker: Who knows the quotas.

    Raises:
        TypeError: ``tracker`` is of the wrong kind.

    Example:
        >>> from loadwise import QuotaConfig, QuotaDimension, QuotaTracker
        >>> quota = QuotaTracker()
        >>> quota.register("a", QuotaConfig([QuotaDimension("rpm", limit=1, window=60.0)]))
        >>> quota.record_usage("a", {"rpm": 1})
        True
        >>> QuotaFilter(quota)("a"), QuotaFilter(quota)("b")
        (False, True)
    """

    def __init__(self, tracker: QuotaState) -> None:
        if isinstance(tracker, type) or not callable(getattr(tracker, "is_available", None)):
            raise TypeError(f"tracker is {tracker!r}; it must be a QuotaTracker")
        refuse_async_methods(
            "tracker", tracker, ("is_available", "next_change", "clock"), _LOOK_IT_UP
        )
        self._tracker = tracker

    def __call__(self, node: object) -> bool:
        """Whether the node is accepted."""
        return accepts(self._tracker.is_available, node_id(node))

    def sources(self) -> tuple[StateSource, ...]:
        """The tracker."""
        return (self._tracker,)

    def _ids_out(self) -> list[Hashable] | None:
        if type(self) is not QuotaFilter or type(self._tracker) is not QuotaTracker:
            return None
        return self._tracker.unavailable()


class _Combined(Filter[N]):
    def __init__(self, *filters: Callable[[N], bool]) -> None:
        self._filters: tuple[Filter[N], ...] = tuple(map(as_filter, filters))

    def sources(self) -> tuple[StateSource, ...] | None:
        """The state that any part depends on."""
        found: list[StateSource] = []
        for each in self._filters:
            sources = each.sources()
            if sources is None:
                return None
            found += sources
        return tuple(found)


class AllOf(_Combined[N]):
    """Accepts what every filter accepts; ``a & b`` for short. Without filters, everything."""

    def __call__(self, node: N) -> bool:
        """Whether the node is accepted."""
        return all(accepts(each, node) for each in self._filters)

    def _ids_out(self) -> list[Hashable] | None:
        if type(self) is not AllOf:
            return None
        found: list[Hashable] = []
        for each in self._filters:
            out = each._ids_out()  # noqa: SLF001 - of one kind
            if out is None:
                return None
            found += out
        return found


class AnyOf(_Combined[N]):
    """Accepts what at least one filter accepts; ``a | b`` for short. Without filters, nothing."""

    def __call__(self, node: N) -> bool:
        """Whether the node is accepted."""
        return any(accepts(each, node) for each in self._filters)


class Not(_Combined[N]):
    """Accepts what the filter does not; ``~a`` for short."""

    def __init__(self, inner: Callable[[N], bool]) -> None:
        super().__init__(inner)

    def __call__(self, node: N) -> bool:
        """Whether the node is accepted."""
        return not accepts(self._filters[0], node)


def as_filter(accept: Callable[[N], bool]) -> Filter[N]:
    """Return ``accept`` itself if it is a `Filter`, else one that asks it."""
    if isinstance(accept, Filter):
        return cast("Filter[N]", accept)
    return FnFilter(accept)
