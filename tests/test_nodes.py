"""What is a node, what is its id, and the ready-made Endpoint."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import pytest

from loadwise import Endpoint, LoadMetric, Node, RateMetric, Weighted, node_id


class Key:
    """A node of the user's own, with all there is to offer."""

    id = ("vendor", 7)
    weight = 2.5

    def load_score(self) -> float:
        return 0.5

    def remaining(self) -> float:
        return 10.0


@pytest.mark.parametrize(
    ("node", "identity"),
    [
        ("10.0.0.1:8080", "10.0.0.1:8080"),
        (7, 7),
        (("10.0.0.1", 8080), ("10.0.0.1", 8080)),
        (Endpoint("a", weight=2), "a"),
        (Key(), ("vendor", 7)),
        (None, None),
    ],
)
def test_anything_is_a_node(node: object, identity: object) -> None:
    """The id is the attribute of that name, or else the value itself."""
    assert node_id(node) == identity


def test_protocols_are_checked_by_structure() -> None:
    """A class that never heard of loadwise is what its members make it; a str is nothing."""
    protocols: list[Any] = [Node, Weighted, LoadMetric, RateMetric]
    assert [isinstance(Key(), protocol) for protocol in protocols] == [True] * 4
    assert [isinstance(Endpoint(1), protocol) for protocol in protocols] == [True, True] + [
        False
    ] * 2
    assert [isinstance("a", protocol) for protocol in protocols] == [False] * 4


def test_an_endpoint_is_frozen_and_minimal() -> None:
    """Only the id is required; nothing can be changed, not even through the tags given."""
    tags = {"model": "large"}
    endpoint = Endpoint("a", tags=tags)
    tags["model"] = "small"
    assert endpoint.tags == {"model": "large"}
    assert (endpoint.weight, endpoint.zone, endpoint.priority) == (1, None, 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        endpoint.weight = 2  # type: ignore[misc]  # the point of the test
    with pytest.raises(TypeError):
        endpoint.tags["model"] = "small"  # type: ignore[index]  # the point of the test


def test_equality_takes_all_fields_and_the_hash_the_id_alone() -> None:
    """Endpoints with another weight are unequal, yet found in the same bucket."""
    one = Endpoint("a", 2, zone="eu", priority=1, tags={"k": "v"})
    same = Endpoint("a", 2, zone="eu", priority=1, tags={"k": "v"})
    other = dataclasses.replace(one, weight=3)
    assert one == same
    assert one != other
    assert other.tags == one.tags
    assert hash(one) == hash(same) == hash(other)
    assert len({one, same, other}) == 2


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_endpoint_travels(protocol: int) -> None:
    """Pickled, copied and deep-copied endpoints are equal, and their tags stay read-only."""
    endpoint = Endpoint(("h", 1), 0.5, zone="eu", priority=2, tags={"k": "v"})
    for twin in (
        pickle.loads(pickle.dumps(endpoint, protocol)),  # noqa: S301 - our own bytes
        copy.copy(endpoint),
        copy.deepcopy(endpoint),
    ):
        assert twin == endpoint
        assert isinstance(twin.tags, MappingProxyType)


@dataclass(frozen=True)
class Model(Endpoint):
    """An endpoint with a field of its own."""

    price: float = field(default=0.0, kw_only=True)


def test_a_kind_of_endpoint_travels() -> None:
    """A subclass comes out as what it was, with all of its fields."""
    model = Model("a", 2, tags={"k": "v"}, price=0.5)
    for twin in (
        pickle.loads(pickle.dumps(model)),  # noqa: S301 - our own bytes
        copy.copy(model),
        copy.deepcopy(model),
    ):
        assert (type(twin), twin) == (Model, model)


@pytest.mark.parametrize("weight", [0, 0.0, 1, 2.5, 10**18, Fraction(1, 3), Decimal("0.5")])
def test_weights_that_are_fine(weight: float) -> None:
    """Every finite real number that is not negative is a weight; 0 is drained."""
    plain = Endpoint("a", weight=weight).weight
    assert plain == float(weight)
    assert type(plain) in (int, float)


@pytest.mark.parametrize("weight", [-1, -0.5, math.nan, math.inf, -math.inf])
def test_weights_that_are_no_shares(weight: float) -> None:
    """A weight that is negative, NaN or infinite is refused by name, with the way to drain."""
    with pytest.raises(ValueError, match=rf"node 'a' has the weight {weight!r}; .*0 means drained"):
        Endpoint("a", weight=weight)


@pytest.mark.parametrize("weight", ["3", None, 1j, [1], True])
def test_weights_that_are_no_numbers(weight: Any) -> None:
    """A weight of another type is refused by name."""
    with pytest.raises(TypeError, match=r"node 'a' has the weight .*; it must be an int or"):
        Endpoint("a", weight=weight)


def test_an_id_is_hashable() -> None:
    """An unhashable id is refused with a remedy."""
    with pytest.raises(TypeError, match=r"the id \['a'\], which is not hashable; give the node"):
        Endpoint(["a"])  # type: ignore[arg-type]  # the point of the test
