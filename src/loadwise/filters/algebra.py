"""The filter, what wraps a function as one, and what combines them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar, cast

from loadwise._callables import (
    is_async,
    refuse_async,
    refuse_async_methods,
    refuse_awaitable,
)
from loadwise._numbers import shown
from loadwise.filters.watch import ALWAYS, NOTHING_KEPT, Kept, StateSource, Watch
from loadwise.health import HealthStatus, HealthTracker
from loadwise.node_set import NodeSet
from loadwise.nodes import node_id
from loadwise.quota import QuotaTracker

__all__ = [
    "AllOf",
    "AnyOf",
    "Filter",
    "FnFilter",
    "HealthFilter",
    "Not",
    "QuotaFilter",
    "accepts",
    "as_filter",
]

N = TypeVar("N")

_LOOK_IT_UP = "a pick cannot wait: find out the answers beforehand, and look them up"


class QuotaState(StateSource, Protocol):
    """Quota tracker, as far as `QuotaFilter` asks it."""

    def is_available(self, node_id: Hashable) -> bool:
        """Tell whether the node may get a request now."""
        ...


class Filter(ABC, Generic[N]):
    """A predicate over nodes; combine with ``&``, ``|`` and ``~``.

    Subclass it and define `__call__`; override `sources` if you can tell when answers change.

    Raises:
        TypeError: Where a subclass is defined whose `__call__` is to be awaited.

    Thread-safety: the kept result is swapped by one assignment.
    """

    _kept: Kept[N] = NOTHING_KEPT
    ready_key: Hashable = None
    """Key that is equal for filters that always say the same; ``None`` where that is not known.

    With one, the answers depend on the nodes alone, and these are immutable.
    """

    def __init_subclass__(cls, **named: object) -> None:
        super().__init_subclass__(**named)
        refuse_async_methods("the filter", cls, ("__call__", "sources"), _LOOK_IT_UP)

    @abstractmethod
    def __call__(self, node: N) -> bool:
        """Tell whether the node is accepted."""

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
        if self.ready_key is not None:
            return nodes.derived(self.ready_key, self._ready_view)
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
        # As `accepts` does; written out, because it is most of what a plain function costs.
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

    def _lasting(self, candidates: Sequence[N], view: NodeSet[N]) -> Kept[N] | None:
        """Return how long such a view of candidates is right; ``None`` for one not to be kept."""
        if self.ready_key is not None and isinstance(candidates, NodeSet):
            return (candidates, view, *ALWAYS)
        return self._kept if self._kept[1] is view else None

    def _ready_view(self, nodes: NodeSet[N]) -> NodeSet[N]:
        """Work out the view of a filter that has a key: O(n), once per membership in Python."""
        membership = nodes.membership
        rejected = membership.rejected.get(self.ready_key)
        if rejected is None:
            ask = self._question()
            rejected = frozenset(
                [i for i, node in enumerate(membership.nodes) if not accepts(ask, node)]
            )
            membership.rejected.keep(self.ready_key, rejected)
        return nodes.barring(rejected)

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

    def __eq__(self, other: object) -> bool:
        if self.ready_key is None or not isinstance(other, Filter):
            return self is other
        return bool(self.ready_key == cast("Filter[object]", other).ready_key)

    def __hash__(self) -> int:
        return super().__hash__() if self.ready_key is None else hash(self.ready_key)

    def __repr__(self) -> str:
        # Without an address, so that equal errors read alike.
        return f"<{type(self).__name__}>"


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
        """Tell whether the node is accepted."""
        return accepts(self._fn, node)

    def _question(self) -> Callable[[N], object]:
        # A subclass may answer in its own way.
        return self._fn if type(self) is FnFilter else self

    def __repr__(self) -> str:
        name = getattr(self._fn, "__qualname__", type(self._fn).__qualname__)
        return f"{type(self).__name__}({name})"


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
        """Tell whether the node is accepted."""
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
        """Tell whether the node is accepted."""
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
        keys = tuple([each.ready_key for each in self._filters])
        # A subclass may answer in its own way.
        if None not in keys and type(self) in {AllOf, AnyOf, Not}:
            self.ready_key = (type(self), keys)

    def sources(self) -> tuple[StateSource, ...] | None:
        """The state that any part depends on."""
        found: list[StateSource] = []
        for each in self._filters:
            sources = each.sources()
            if sources is None:
                return None
            found += sources
        return tuple(found)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self._filters))})"


class AllOf(_Combined[N]):
    """Accepts what every filter accepts; ``a & b`` for short. Without filters, everything."""

    def __call__(self, node: N) -> bool:
        """Tell whether the node is accepted."""
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
        """Tell whether the node is accepted."""
        return any(accepts(each, node) for each in self._filters)


class Not(_Combined[N]):
    """Accepts what the filter does not; ``~a`` for short."""

    def __init__(self, inner: Callable[[N], bool]) -> None:
        super().__init__(inner)

    def __call__(self, node: N) -> bool:
        """Tell whether the node is accepted."""
        return not accepts(self._filters[0], node)


def as_filter(accept: Callable[[N], bool]) -> Filter[N]:
    """Return ``accept`` itself if it is a `Filter`, else one that asks it."""
    if isinstance(accept, Filter):
        return cast("Filter[N]", accept)
    return FnFilter(accept)
