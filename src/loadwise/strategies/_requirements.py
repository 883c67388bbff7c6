"""Checks that nodes offer what a strategy reads, with errors that say who lacks what."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from loadwise._callables import refuse_async
from loadwise.nodes import node_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadwise.node_set import NodeSet

N = TypeVar("N")

__all__ = ["require_method", "require_weights"]


def require_weights(nodes: NodeSet[N], strategy: object) -> None:
    """Raise ``TypeError`` unless every node has a ``weight``."""
    position = nodes.membership.unweighted
    if position is not None:
        raise TypeError(_lacks(nodes.ids[position], strategy, "weight"))


def require_method(
    nodes: Sequence[object], strategy: object, method: str, remedy: str, needed_now: str
) -> None:
    """Raise ``TypeError`` unless every node has the ``method``, and it need not be awaited."""
    kinds: set[type] = set()
    for node in nodes:
        found = getattr(node, method, None)
        if not callable(found):
            raise TypeError(_lacks(node_id(node), strategy, f"{method}()") + remedy)
        if type(node) not in kinds:
            kinds.add(type(node))
            refuse_async(f"{method} of node {node_id(node)!r}", found, needed_now)


def _lacks(identity: object, strategy: object, member: str) -> str:
    return (
        f"{type(strategy).__name__} needs `{member}` of every node, but node {identity!r} has none"
    )
