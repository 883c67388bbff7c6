"""Changes of a balancer's members, from those that a source listed before to those it lists now."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from contextlib import suppress
from typing import Generic, TypeVar

from loadwise.balancer import Balancer
from loadwise.errors import UnknownNode

__all__ = ["Changes"]

N = TypeVar("N")


class Changes(Generic[N]):
    """Record of what a watcher has done to its balancer.

    Args:
        balancer: The balancer.

    Attributes:
        members: The nodes that it was given, by id; empty before the first.
        drained: Ids of those that were drained here, and not by anybody else.

    Not thread-safe: it belongs to the thread that keeps the fleet.
    """

    def __init__(self, balancer: Balancer[N]) -> None:
        self._balancer = balancer
        self.members: Mapping[Hashable, N] = {}
        self.drained: frozenset[Hashable] = frozenset()

    def apply(self, nodes: Mapping[Hashable, N], draining: frozenset[Hashable]) -> bool:
        """Make these the members, and return whether anything had to be changed. O(n).

        Who is to be drained is drained before anything else. The membership changes in one step,
        or not at all.

        Raises:
            Exception: The strategy or a function of the balancer's refuses a node.
        """
        for identity in draining - self.drained:
            if identity in self.members:
                with suppress(UnknownNode):  # somebody else has removed it
                    self._balancer.drain(identity)
                    self.drained |= {identity}
        changed = self._change(nodes)
        if changed:
            self.members = dict(nodes)
        for identity in self.drained - draining:
            if identity in nodes:
                with suppress(UnknownNode):
                    self._balancer.resume(identity)
        before, self.drained = self.drained, self.drained & draining & nodes.keys()
        return changed or before != self.drained

    def _change(self, nodes: Mapping[Hashable, N]) -> bool:
        before = self.members
        if not before:
            self._balancer.replace(nodes.values())
            return True
        joined = [identity for identity in nodes if identity not in before]
        left = [identity for identity in before if identity not in nodes]
        if _is_any_other(before, nodes):
            self._balancer.replace(nodes.values())
        elif len(joined) + len(left) == 1:
            # Of all others nothing is read again, and strategies begin with what they have.
            self._change_one(nodes, joined, left)
        elif joined or left:
            self._balancer.replace(nodes.values())
        else:
            return False
        return True

    def _change_one(
        self, nodes: Mapping[Hashable, N], joined: list[Hashable], left: list[Hashable]
    ) -> None:
        if len(self._balancer.all_nodes) != len(
            self.members
        ):  # somebody else has changed the members
            self._balancer.replace(nodes.values())
        elif joined:
            self._balancer.add(nodes[joined[0]])
        else:
            self._balancer.remove(left[0])


def _is_any_other(before: Mapping[Hashable, N], after: Mapping[Hashable, N]) -> bool:
    """Tell whether a node that stayed is not what it was."""
    for identity, node in after.items():
        known = before.get(identity, node)
        if known is not node and known != node:
            return True
    return False
