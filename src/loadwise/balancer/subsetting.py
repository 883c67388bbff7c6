"""Members of a balancer that uses a part of its nodes, chosen again whenever one comes or goes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from operator import is_
from threading import RLock
from typing import Any, Generic, TypeVar, cast

from loadwise._callables import refuse_async
from loadwise._fork import ForkAware, reset_in_child
from loadwise._membership import Content, Membership
from loadwise._numbers import shown
from loadwise.balancer.fleet import Fleet
from loadwise.errors import UnknownNode
from loadwise.node_set import NodeSet
from loadwise.nodes import node_id

__all__ = ["SubsetRule", "Subsetting"]

N = TypeVar("N")

_NOBODY: frozenset[Hashable] = frozenset()

SubsetRule = Callable[[Sequence[N]], NodeSet[N]]
"""A function of all nodes that returns those to use."""


class Subsetting(ForkAware, Generic[N]):
    """All nodes of a balancer, of which a function says which are the members.

    Args:
        name: The balancer's name, for error messages.
        rule: The function.
        fleet: The members.

    Raises:
        TypeError: ``rule`` is no function, or is to be awaited.

    Thread-safety: changes take a lock. The function is asked before that, and again where another
    thread has changed the nodes meanwhile.
    """

    def __init__(self, name: str, rule: SubsetRule[N], fleet: Fleet[N]) -> None:
        given: object = rule
        if not callable(given) or isinstance(given, type):
            raise TypeError(
                f"subset is {shown(given)}; give a function of all nodes that returns a NodeSet, "
                f"such as RendezvousSubset('client-1', size=12)"
            )
        refuse_async("subset", rule, "the members are needed at once: look beforehand")
        self._name = name
        self._rule = rule
        self._fleet = fleet
        self._all: NodeSet[N] = NodeSet(())
        self._members: NodeSet[N] = NodeSet(())
        self._drained = _NOBODY
        self._after_fork()
        reset_in_child(self)

    def _after_fork(self) -> None:
        self._lock = RLock()

    @property
    def nodes(self) -> tuple[N, ...]:
        """All nodes, members or not, in order."""
        return self._all.membership.nodes

    def add(self, node: N) -> None:
        """Add a node."""
        self._change(lambda known: NodeSet.of_membership(known.membership.joined(node)))

    def remove(self, identity: Hashable) -> None:
        """Remove a node."""

        def parted(known: NodeSet[N]) -> NodeSet[N]:
            return NodeSet.of_membership(known.membership.parted(self._index_in(known, identity)))

        self._change(parted)

    def replace(self, nodes: NodeSet[N]) -> None:
        """Replace all nodes."""
        self._change(lambda _: nodes)

    def set_draining(self, identity: Hashable, *, draining: bool) -> None:
        """Begin or end the drain of a node. It holds when a node is no member for a while, too."""
        with self._lock:
            mine = frozenset([self._all.ids[self._index_in(self._all, identity)]])
            if self._fleet.has(*mine):
                self._fleet.set_draining(*mine, draining=draining)
            self._drained = self._drained | mine if draining else self._drained - mine

    def _change(self, change: Callable[[NodeSet[N]], NodeSet[N]]) -> None:
        while True:  # until nobody else was quicker
            before = self._all
            after = change(before)
            members = self._chosen(after)
            with self._lock:
                if self._all is not before:
                    continue
                # Now, because what is told of the change may make another.
                self._all = after
                try:
                    if not _alike(self._members, members):
                        self._fleet.replace(members, drained=self._drained)
                        self._members = members
                except BaseException:
                    if self._all is after:
                        self._all = before
                    raise
                self._drained = self._drained.intersection(after.ids) if self._drained else _NOBODY
                return

    def _chosen(self, known: NodeSet[N]) -> NodeSet[N]:
        """Return the members that the function wants, checked, as a set of their own."""
        if not len(known):
            return NodeSet(())
        answer = cast("Any", self._rule(known))  # whatever a user's function returns
        if not isinstance(answer, NodeSet):
            raise TypeError(
                f"subset returned {shown(answer)}; it must return a NodeSet of some of the nodes, "
                f"such as NodeSet(nodes[:12])"
            )
        found = cast("NodeSet[N]", answer)
        strangers = [identity for identity in found.ids if known.index_of(identity) is None]
        if strangers:
            raise ValueError(
                f"subset returned the node {strangers[0]!r}, which is none of the {len(known)} "
                f"nodes of balancer {self._name!r}; return some of the nodes that it is given"
            )
        kept = [*range(len(found))]
        if len(found.eligible) + len(found.membership.idle) < len(found):
            kept = [*found.eligible]  # a view, in which the others may not be chosen
        if not kept:
            raise ValueError(
                f"subset returned no node of the {len(known)} nodes of balancer {self._name!r}; "
                f"return one at least, or use where= to rule nodes out"
            )
        content = found.membership.content
        kinds = tuple([content.kinds[i] for i in kept])
        mine = Content(
            tuple([content.ids[i] for i in kept]),
            tuple([content.weights[i] for i in kept]),
            kinds,
            kinds.index(object) if object in kinds else None,
        )
        return NodeSet.of_membership(Membership(tuple([found[i] for i in kept]), mine))

    def _index_in(self, known: NodeSet[N], identity: Hashable) -> int:
        identity = node_id(identity)
        index = known.index_of(identity)
        if index is None:
            raise UnknownNode(identity, f"balancer {self._name!r}", known.ids)
        return index


def _alike(mine: NodeSet[N], others: NodeSet[N]) -> bool:
    """Tell whether these are the very same nodes, with the same weights."""
    one, other = mine.membership, others.membership
    return one.content == other.content and all(map(is_, one.nodes, other.nodes))
