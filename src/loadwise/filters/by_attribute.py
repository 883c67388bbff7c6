"""Ready-made filters by what a node is: its zone, tags, priority or id.

The nodes are taken to be immutable: to change a node, `replace` it by another with the same id.
So each filter is asked once per membership, and equal filters share the answers, which live with
the membership: nothing of it outlives the nodes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from typing import Any

from loadwise._numbers import shown, whole
from loadwise.filters.algebra import Filter
from loadwise.node_set import NodeSet
from loadwise.nodes import check_id, node_id

__all__ = ["by_id", "by_priority", "by_tag", "by_zone"]

_MISSING: Any = object()


def by_zone(*zones: Hashable) -> Filter[Any]:
    """Return a filter that accepts the nodes of some zones.

    Args:
        zones: The zones, at least one; ``None`` for nodes whose zone is ``None``.

    Returns:
        A filter for the balancer, for one request or for `Filtered`. It reads ``zone`` of each
        node once per membership: nodes are taken to be immutable.

    Raises:
        TypeError: No zone is given, or one that is not hashable; when it is asked, a node has no
            ``zone``.

    Thread-safety: full. Cost: O(n) once per membership, then O(1), also where an equal filter is
    made for each request; O(n) at the speed of a copy after health, quotas or drains changed.

    Example:
        >>> from loadwise import Balancer, Endpoint
        >>> balancer = Balancer([Endpoint("a", zone="eu-1"), Endpoint("b", zone="us-1")])
        >>> balancer.pick(where=by_zone("eu-1")).id, balancer.pick(where=~by_zone("eu-1")).id
        ('a', 'b')
    """
    return _ByAttribute("by_zone", "zone", zones)


def by_priority(*priorities: int) -> Filter[Any]:
    """Return a filter that accepts the nodes of some priorities.

    Args:
        priorities: The priorities, at least one; 0 is first.

    Returns:
        A filter that reads ``priority`` of each node once per membership.

    Raises:
        TypeError: No priority is given, or one that is no int; when it is asked, a node has no
            ``priority``.

    Thread-safety and cost: as `by_zone`.

    Example:
        >>> from loadwise import Balancer, Endpoint
        >>> balancer = Balancer([Endpoint("main"), Endpoint("spare", priority=1)])
        >>> balancer.pick(where=by_priority(1)).id
        'spare'
    """
    wanted = tuple([whole("a priority", priority) for priority in priorities])
    return _ByAttribute("by_priority", "priority", wanted)


def by_tag(**tags: Hashable) -> Filter[Any]:
    """Return a filter that accepts the nodes that have all of some tags.

    Args:
        tags: The tags, at least one, each with its value. A node that lacks the tag is not
            accepted. For a name that is no Python name: ``by_tag(**{"app.version": "2"})``.

    Returns:
        A filter that reads ``tags`` of each node once per membership.

    Raises:
        TypeError: No tag is given, or a value that is not hashable; when it is asked, a node has
            no ``tags``.

    Thread-safety and cost: as `by_zone`.

    Example:
        >>> from loadwise import Balancer, Endpoint
        >>> balancer = Balancer([Endpoint("a", tags={"gpu": "h100"}), Endpoint("b")])
        >>> balancer.pick(where=by_tag(gpu="h100")).id
        'a'
    """
    return _ByTag(tags)


def by_id(*ids: Hashable) -> Filter[Any]:
    """Return a filter that accepts some nodes alone.

    Args:
        ids: Their ids, or the nodes themselves, at least one. Those of nobody are ignored.

    Returns:
        A filter that reads the ids that the membership knows.

    Raises:
        TypeError: No id is given, or one that is not hashable.

    Thread-safety: full. Cost: O(log n) per id, once per view of the nodes.

    Example:
        >>> from loadwise import Balancer
        >>> Balancer(["a", "b", "c"]).pick(where=by_id("b"))
        'b'
    """
    return _ById(ids)


class _Ready(Filter[Any]):
    """A filter whose answer depends on immutable nodes alone."""

    def __init__(self, name: str, values: tuple[Hashable, ...], what: str) -> None:
        if not values:
            raise TypeError(f"{name}() is given nothing; name at least one {what}")
        try:
            wanted = frozenset(values)
        except TypeError:
            raise TypeError(
                f"{name}() is given {', '.join(map(shown, values))}; each {what} must be "
                f"hashable, such as a str, and stand for itself"
            ) from None
        self._name = name
        self._wanted = wanted
        self.ready_key = (name, wanted)
        self._text = f"{name}({', '.join(map(repr, values))})"

    @abstractmethod
    def __call__(self, node: object) -> bool:
        """Tell whether the node is accepted."""

    def sources(self) -> tuple[()]:
        """Nothing: it depends on the node alone."""
        return ()

    def __repr__(self) -> str:
        return self._text

    def _read(self, node: object, attribute: str) -> object:
        value = getattr(node, attribute, _MISSING)
        if value is _MISSING:
            raise TypeError(
                f"node {node_id(node)!r} has no `{attribute}`, which {self!r} reads; give its "
                f"class ({type(node).__name__}) that attribute, or use loadwise.Endpoint"
            )
        return value

    def _unfit(self, node: object, attribute: str, value: object, must: str) -> TypeError:
        return TypeError(
            f"node {node_id(node)!r} has the {attribute} {shown(value)}, which {self!r} reads; it "
            f"must be {must}"
        )


class _ByAttribute(_Ready):
    """Accepts the nodes with one of some values in an attribute."""

    def __init__(self, name: str, attribute: str, values: tuple[Hashable, ...]) -> None:
        super().__init__(name, values, attribute)
        self._attribute = attribute

    def __call__(self, node: object) -> bool:
        """Tell whether the node is accepted."""
        value = self._read(node, self._attribute)
        try:
            return value in self._wanted
        except TypeError:
            raise self._unfit(node, self._attribute, value, "hashable") from None


class _ByTag(_Ready):
    """Accepts the nodes that have all of some tags."""

    def __init__(self, tags: dict[str, Hashable]) -> None:
        super().__init__("by_tag", tuple(tags.items()), "tag")
        self._tags = tags
        named = ", ".join(f"{name}={value!r}" for name, value in tags.items())
        plain = all(map(str.isidentifier, tags))
        self._text = f"by_tag({named})" if plain else f"by_tag(**{tags!r})"

    def __call__(self, node: object) -> bool:
        """Tell whether the node is accepted."""
        tags = self._read(node, "tags")
        get = getattr(tags, "get", None)
        if get is None:
            raise self._unfit(node, "tags", tags, "a mapping")
        # A value that is there and None is not the same as none at all.
        return all(bool(get(name, _MISSING) == value) for name, value in self._tags.items())


class _ById(_Ready):
    """Accepts the nodes with some ids."""

    def __init__(self, ids: tuple[Hashable, ...]) -> None:
        found = tuple(map(node_id, ids))
        for given, identity in zip(ids, found, strict=True):
            check_id(identity, given)
        super().__init__("by_id", found, "id")

    def __call__(self, node: object) -> bool:
        """Tell whether the node is accepted."""
        return node_id(node) in self._wanted

    def _ready_view(self, nodes: NodeSet[Any]) -> NodeSet[Any]:
        # By the index of ids that the membership has: there may be a request for each of them.
        found = map(nodes.index_of, self._wanted)
        return nodes.restrict([index for index in found if index is not None])
