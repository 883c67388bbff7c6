"""Nodes: anything with an identity, and opt-in protocols for what it can tell.

A node needs no base class. A value with an ``id`` is known by it; any other hashable value (a
``str``, an ``int``, a tuple) is its own id. Strategies ask for more only where they need it, and
check it structurally: `Weighted` for shares, `LoadMetric` for a load of its own, `RateMetric` for
what is left of a budget.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from loadwise._numbers import number, shown

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

__all__ = [
    "Endpoint",
    "LoadMetric",
    "Node",
    "RateMetric",
    "Weighted",
    "node_id",
]


@runtime_checkable
class Node(Protocol):
    """A value with an identity of its own.

    Everything the library remembers about a node (health, quota, load) hangs on the id alone, so
    changing any other attribute keeps it.
    """

    @property
    def id(self) -> Hashable:
        """The identity: hashable, and the same for as long as the node is the same node."""
        ...


@runtime_checkable
class Weighted(Protocol):
    """A node with a share of the traffic."""

    @property
    def weight(self) -> int | float:
        """Relative share, finite and not negative; 0 means "never pick" (drained)."""
        ...


@runtime_checkable
class LoadMetric(Protocol):
    """A node that can tell its own load."""

    def load_score(self) -> float:
        """Return the present load; lower is better, any unit, the same for all nodes."""
        ...


@runtime_checkable
class RateMetric(Protocol):
    """A node that can tell what is left of its budget."""

    def remaining(self) -> float:
        """Return what is left; more is better, any unit, the same for all nodes."""
        ...


def _no_tags() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A ready-made frozen node for programs that have none of their own.

    Args:
        id: Identity, hashable; an address is a good one.
        weight: Relative share, finite and >= 0; 0 means drained.
        zone: Where the node lives, for filters.
        priority: Tier, 0 first, for filters.
        tags: Free text by name, for filters.

    Raises:
        TypeError: The id is not hashable or the weight is not a number.
        ValueError: The weight is negative, NaN or infinite.

    Immutable, so thread-safe. Two endpoints are equal when all fields are; the hash is the id's.

    Example:
        >>> Endpoint("10.0.0.1:8080", weight=3, zone="eu-1").weight
        3
    """

    id: Hashable
    weight: int | float = field(default=1, hash=False)
    zone: str | None = field(default=None, hash=False)
    priority: int = field(default=0, hash=False)
    tags: Mapping[str, str] = field(default_factory=_no_tags, hash=False)

    def __post_init__(self) -> None:
        check_id(self.id, self)
        object.__setattr__(self, "weight", as_weight(self.weight, self.id))
        object.__setattr__(self, "tags", MappingProxyType(dict(self.tags)))

    def __reduce__(self) -> tuple[object, ...]:
        # A mapping proxy does not pickle; the constructor makes a new one.
        named = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        return (_make, (type(self), {**named, "tags": dict(self.tags)}))


def _make(kind: type[Endpoint], named: dict[str, Any]) -> Endpoint:
    return kind(**named)


def node_id(node: object) -> Hashable:
    """Return a node's identity: its ``id``, or the value itself where it has none.

    Wherever an id is asked for, a node will do: it is taken by its id.

    Cost: O(1).

    Example:
        >>> node_id("10.0.0.1:8080"), node_id(Endpoint("a", weight=2))
        ('10.0.0.1:8080', 'a')
    """
    identity: Hashable = getattr(node, "id", node)
    return identity


def id_of(given: Hashable) -> Hashable:
    """Return the id that is meant by an id, or by a node in its place.

    As `node_id`, but quick for the ids that most nodes have.
    """
    return given if given.__class__ is str else node_id(given)


def refuse_text(nodes: object) -> None:
    """Raise ``TypeError`` where one text is given as the nodes, and would fall apart into some."""
    if isinstance(nodes, (str, bytes, bytearray, memoryview)):
        text = shown(cast("object", nodes))
        raise TypeError(
            f"the nodes are {text}, whose every character or byte would be a node; give a list, "
            f"such as [{text}]"
        )


def check_id(identity: object, node: object) -> None:
    """Raise ``TypeError`` unless ``identity`` can be a key."""
    try:
        hash(identity)
    except TypeError:
        raise TypeError(
            f"{type(node).__name__} has the id {identity!r}, which is not hashable; give the node "
            f"a hashable `id` attribute (a str, an int, a tuple)"
        ) from None


def as_weight(weight: object, identity: object) -> int | float:
    """Return a weight as a plain int or float.

    Raises:
        TypeError: It is no number.
        ValueError: It is negative, NaN or infinite.
    """
    try:
        plain = number("weight", weight)
    except TypeError:
        raise TypeError(
            f"node {identity!r} has the weight {shown(weight)}; it must be an int or a float"
        ) from None
    except ValueError:
        plain = math.inf
    if not 0 <= plain < math.inf:
        raise ValueError(
            f"node {identity!r} has the weight {shown(weight)}; it must be finite and at least 0 "
            f"(0 means drained)"
        )
    return plain
