"""Plans that strategies work out for a set of nodes, and keep.

A pick must not repeat the O(n) work of its predecessor, so each strategy turns a `NodeSet` into a
*plan* (a table, a list of counters, whatever its rule reads) and keeps it. Three levels, each for
a reason:

1. the plan of the last NodeSet that had something to choose from, compared by identity: the hot
   path, one comparison;
2. plans by NodeSet, held weakly: a strategy shared by several balancers, or asked now and then
   with a per-request view, does not rebuild at every change of turns;
3. the *state*, which all views of a membership share, by membership, held weakly, and by content
   (ids and weights): a plain list is interned by it, and an equal NodeSet made later goes on where
   the last one stopped.

Where a few nodes went down or came back since the last NodeSet, a strategy may make the plan from
the one it has (see `Planned._patch`): to copy a list takes a tenth of the time of making it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from threading import RLock
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast
from weakref import WeakKeyDictionary

from loadwise._fork import ForkAware, reset_in_child
from loadwise._membership import Content, Membership, Owner
from loadwise._native import let_go, mypyc_attr
from loadwise.context import EMPTY, SelectionContext
from loadwise.errors import UnknownIndex
from loadwise.node_set import NodeSet
from loadwise.nodes import refuse_text

if TYPE_CHECKING:
    from loadwise.load import LoadMeasure

N = TypeVar("N")
S = TypeVar("S")

__all__ = ["Plan", "Planned", "Step", "check_excluded", "followed", "none_left"]

_TAKES_INDICES = (
    "it takes indices into the candidates of this very call (the keyword of a Balancer takes ids)"
)


Step = tuple[int, int | None]
"""A position among the eligible, and the index to insert there; ``None`` to delete one."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Plan(Generic[S]):
    """Plan that a strategy reads during a pick; subclasses add their tables.

    It must not refer to the NodeSet it was made for, or neither could ever be collected.

    Attributes:
        eligible: Indices that may be chosen, ascending. A list, because one without an element
            costs half as much to make as a tuple.
        count: How many those are.
        size: How many nodes there are, eligible or not.
        whole: Whether all of them are eligible, so that each position is its own index.
        state: What is shared with other views of the same nodes.
    """

    __slots__ = ("count", "eligible", "size", "state", "whole")

    def __init__(self, nodes: NodeSet[Any], state: S) -> None:  # any node type: only indices count
        self.eligible = list(nodes.eligible)
        self.count = len(self.eligible)
        self.size = len(nodes)
        self.whole = self.count == self.size
        self.state = state

    def follow(self, before: Plan[S], gone: Sequence[int], back: Sequence[int]) -> list[Step]:
        """Become the plan before, but for some indices, in place of being constructed.

        Args:
            before: A plan for the same nodes.
            gone: Indices eligible there and not here.
            back: Indices eligible here and not there.

        Returns:
            The steps that lead from the one to the other.
        """
        eligible = before.eligible.copy()
        steps: list[Step] = []
        for index in gone:
            position = bisect_left(eligible, index)
            del eligible[position]
            steps.append((position, None))
        for index in back:
            position = bisect_left(eligible, index)
            eligible.insert(position, index)
            steps.append((position, index))
        self.eligible = eligible
        self.count = len(eligible)
        self.size = before.size
        self.whole = self.count == self.size
        self.state = before.state
        return steps


P = TypeVar("P", bound=Plan[Any])


def followed(before: Plan[S], gone: Sequence[int], back: Sequence[int]) -> Plan[S]:
    """Return the plan of a rule that reads who is eligible and no more; see `Planned._patch`."""
    twin = cast("Plan[S]", Plan.__new__(Plan))
    twin.follow(before, gone, back)
    return twin


def check_excluded(exclude: AbstractSet[int], size: int) -> None:
    """Raise `UnknownIndex` unless all excluded indices are those of ``size`` candidates.

    What is no index at all is a ``TypeError``.
    """
    try:
        if not exclude or (min(exclude) >= 0 and max(exclude) < size):
            return
    except TypeError:
        given: AbstractSet[object] = exclude
        wrong = next((each for each in given if not isinstance(each, int)), given)
        raise TypeError(f"exclude has {wrong!r}; {_TAKES_INDICES}") from None
    index = min(exclude) if min(exclude) < 0 else max(exclude)
    raise UnknownIndex(
        f"exclude has the index {index}, but there are {size} candidates; {_TAKES_INDICES}"
    )


def none_left(eligible: Sequence[int], exclude: AbstractSet[int]) -> bool:
    """Tell whether all that may be chosen are excluded."""
    return len(exclude) >= len(eligible) and exclude >= frozenset(eligible)


class _Known(Generic[N, S]):
    __slots__ = ("interned", "size", "state")

    def __init__(self, state: S, size: int) -> None:
        self.state = state
        self.size = size
        self.interned: NodeSet[N] | None = None


@mypyc_attr(allow_interpreted_subclasses=True)
class Planned(ForkAware, ABC, Generic[N, S, P]):
    """Base of the built-in strategies that keep plans.

    Thread-safety: plans are immutable or advanced atomically. Making states and making plans is
    serialised by a lock each, and a third guards what is kept, for moments only. So a pick whose
    plan is there waits for nobody's tables, nor does a new view of known nodes for a new ring.
    In a forked child all plans are dropped and built again.
    """

    takes_any: ClassVar[bool] = False
    """True if any node will do: where most are full, one with room may be drawn for it."""
    kept: ClassVar[int] = 64
    """Number of memberships whose states are kept; the least recently resolved goes first."""
    kept_size: ClassVar[int] = 2**18
    """Up to this total `size`, except that the last one always is."""

    def __init__(self) -> None:
        self._after_fork()
        reset_in_child(self)

    def _after_fork(self) -> None:
        # Re-entrant: the collector may strike while one is held, and close a generator that asks
        # for a node.
        self._lock = RLock()
        self._building = RLock()
        self._planning = RLock()
        self._known: OrderedDict[object, _Known[N, S]] = OrderedDict()
        self._states: WeakKeyDictionary[Membership[N], S] = WeakKeyDictionary()
        self._plans: WeakKeyDictionary[NodeSet[N], P] = WeakKeyDictionary()
        nothing: NodeSet[N] = NodeSet(())
        self._hot: tuple[NodeSet[N], P] = (
            nothing,
            self._make_plan(nothing, self._make_state(nothing)),
        )

    @abstractmethod
    def _make_state(self, nodes: NodeSet[N]) -> S:
        """Work out what all views of these nodes share."""

    @abstractmethod
    def _make_plan(self, nodes: NodeSet[N], state: S) -> P:
        """Work out what a pick from this view reads."""

    def _identity(self, owner: Owner | None, content: Content) -> object:  # noqa: ARG002
        """Return what makes two memberships the same to the strategy, whoever owns them."""
        return content

    def _size(self, nodes: NodeSet[N]) -> int:
        """Return how much of `kept_size` the state of these nodes takes."""
        return len(nodes)

    @abstractmethod
    def select(self, candidates: Sequence[N], context: SelectionContext = EMPTY) -> int | None:
        """Return the index of the chosen candidate, or ``None``."""

    def prepare(self, nodes: NodeSet[N]) -> None:
        """Build the plan for ``nodes`` now instead of at the first pick. As costly as that."""
        self._resolve(nodes)

    def facts(self, nodes: NodeSet[N]) -> Mapping[str, Sequence[float]]:  # noqa: ARG002
        """Return what the choice is based on: nothing but the turn or the draw."""
        return {}

    @property
    def measures(self) -> tuple[LoadMeasure, ...]:
        """The load measures it consults: none."""
        return ()

    def _check(self, candidates: Sequence[N]) -> None:
        """Raise ``TypeError`` where a candidate lacks what the strategy reads from it."""

    def _resolve(self, candidates: Sequence[N]) -> P:
        """Return the plan for ``candidates``, made now if it is not kept."""
        if isinstance(candidates, NodeSet):
            with self._lock:
                plan = self._plans.get(candidates)
            if plan is None:
                if not self._knows(candidates):
                    self._check(candidates)
                plan = self._plan_of(candidates, self._state_of(candidates))
            # So that a pick by the hot plan need not ask whether there is anything to choose from.
            if plan.count:
                replaced = self._hot
                self._hot = (candidates, plan)
                let_go(replaced)
            return plan
        refuse_text(candidates)
        self._check(candidates)
        content = Content.of(candidates)
        with self._lock:
            known = self._known.get(self._identity(None, content))
            nodes = None if known is None else known.interned
        # It stands for every list of this content, so it must not keep one's nodes alive.
        made: NodeSet[Any] = NodeSet.of_content(content) if nodes is None else nodes
        known = self._recall(made)
        with self._lock:
            if known.interned is None:
                known.interned = made
            made = known.interned
        return self._plan_of(made, known.state)

    def _glance(self, candidates: Sequence[N]) -> P:
        """Return the plan that `_resolve` would, leaving no trace of having looked."""
        refuse_text(candidates)
        if isinstance(candidates, NodeSet):
            with self._lock:
                plan = self._plans.get(candidates)
            if plan is not None:
                return plan
        self._check(candidates)
        nodes = candidates if isinstance(candidates, NodeSet) else NodeSet(candidates)
        identity = self._identity(nodes.membership.owner, nodes.membership.content)
        with self._lock:
            state = self._states.get(nodes.membership)
            known = self._known.get(identity) if state is None else None
        if known is not None:
            state = known.state
        elif state is None:
            with self._building:
                state = self._make_state(nodes.at_full_weight)
        with self._planning:
            plan = self._patched(nodes)
            return self._make_plan(nodes, state) if plan is None else plan

    def _knows(self, nodes: NodeSet[N]) -> bool:
        with self._lock:
            return nodes.membership in self._states

    def _plan_of(self, nodes: NodeSet[N], state: S) -> P:
        with self._planning:
            with self._lock:
                plan = self._plans.get(nodes)
            if plan is None:
                plan = self._patched(nodes)
                if plan is None:
                    plan = self._make_plan(nodes, state)
                with self._lock:
                    self._plans[nodes] = plan
            return plan

    def _patched(self, nodes: NodeSet[N]) -> P | None:
        """Return a plan made from the last one, if that was for nearly the same."""
        source, plan = self._hot
        apart = nodes.since(source)
        return None if apart is None else self._patch(plan, nodes, apart[0], apart[1])

    def _patch(
        self,
        before: P,  # noqa: ARG002 - for subclasses
        nodes: NodeSet[N],  # noqa: ARG002
        gone: list[int],  # noqa: ARG002
        back: list[int],  # noqa: ARG002
    ) -> P | None:
        """Make a plan from one for the same nodes, a few of them eligible there and not here.

        Args:
            before: That plan.
            nodes: What to make one for.
            gone: Indices eligible there and not here.
            back: Indices eligible here and not there.

        Returns:
            The plan, or ``None`` to have it made from the beginning.
        """
        return None

    def _state_of(self, nodes: NodeSet[N]) -> S:
        with self._lock:
            state = self._states.get(nodes.membership)
        if state is None:
            state = self._recall(nodes).state
            with self._lock:
                state = self._states.setdefault(nodes.membership, state)
        return state

    def _kept_states(self) -> list[S]:
        """Return the states that are kept, the latest first."""
        with self._lock:
            return [known.state for known in reversed(self._known.values())]

    def _recall(self, nodes: NodeSet[N]) -> _Known[N, S]:
        """Return what is kept for the ids and weights of ``nodes``, made now if nothing is."""
        nodes = nodes.at_full_weight  # views with and without slow start share it
        content = self._identity(nodes.membership.owner, nodes.membership.content)
        known = self._find(content)
        if known is not None:
            return known
        with self._building:
            known = self._find(content)  # another thread may have built it meanwhile
            return self._keep(content, nodes) if known is None else known

    def _find(self, content: object) -> _Known[N, S] | None:
        with self._lock:
            known = self._known.get(content)
            if known is not None:
                self._known.move_to_end(content)
            return known

    def _keep(self, content: object, nodes: NodeSet[N]) -> _Known[N, S]:
        known: _Known[N, S] = _Known(self._make_state(nodes), self._size(nodes))
        with self._lock:
            self._known[content] = known
            total = sum([other.size for other in [*self._known.values()]])
            while len(self._known) > 1 and (len(self._known) > self.kept or total > self.kept_size):
                total -= self._known.popitem(last=False)[1].size
            return known
