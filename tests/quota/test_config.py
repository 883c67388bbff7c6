"""What limits may be made of."""

from __future__ import annotations

import math
from typing import Any

import pytest

from loadwise import QuotaConfig, QuotaDimension


def test_defaults_of_a_dimension() -> None:
    """A minute in 6 buckets, and a request that names no amount costs 1."""
    assert QuotaDimension("rpm", 100) == QuotaDimension("rpm", 100, 60.0, 6, 1)


@pytest.mark.parametrize("field", ["limit", "window"])
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf])
def test_refuses_limits_and_windows_that_make_no_sense(field: str, value: float) -> None:
    """A limit or window that is not finite and above 0 is refused by name and value."""
    facts: dict[str, Any] = {"limit": 10, "window": 60.0, field: value}
    with pytest.raises(ValueError, match=f"tpm: {field} is {value}; it must be finite and above 0"):
        QuotaDimension("tpm", **facts)


@pytest.mark.parametrize(
    ("facts", "error", "text"),
    [
        ({"name": 7}, TypeError, "name is 7; it must be a str"),
        ({"resolution": 0}, ValueError, "rpm: resolution is 0; it must be at least 1"),
        ({"resolution": 2.5}, TypeError, "rpm: resolution is 2.5; it must be an int"),
        ({"default_cost": -1}, ValueError, "rpm: default_cost is -1; it must be between 0 and"),
        ({"default_cost": 11}, ValueError, "rpm: default_cost is 11; .*the limit, 10"),
        ({"default_cost": math.nan}, ValueError, "rpm: default_cost is nan"),
    ],
)
def test_refuses_other_facts_that_make_no_sense(
    facts: dict[str, Any], error: type[Exception], text: str
) -> None:
    """Names, resolutions and default costs are checked where they are given."""
    usual: dict[str, Any] = {"name": "rpm", "limit": 10}
    with pytest.raises(error, match=text):
        QuotaDimension(**usual | facts)


def test_a_config_keeps_the_order_of_its_dimensions() -> None:
    """Any iterable of dimensions will do, and equal limits make equal configs."""
    dimensions = (QuotaDimension("rpm", 100), QuotaDimension("tpm", 9_000, 30.0))
    config = QuotaConfig(iter(dimensions))
    assert config.dimensions == dimensions
    assert config == QuotaConfig(list(dimensions))


@pytest.mark.parametrize(
    ("dimensions", "error", "text"),
    [
        ([], ValueError, "at least one"),
        (["rpm"], TypeError, "'rpm' is not a QuotaDimension"),
        ([QuotaDimension("rpm", 1), QuotaDimension("rpm", 2)], ValueError, "named 'rpm'"),
    ],
)
def test_refuses_configs_that_make_no_sense(
    dimensions: list[Any], error: type[Exception], text: str
) -> None:
    """No dimensions, things that are none, and two of one name are refused."""
    with pytest.raises(error, match=text):
        QuotaConfig(dimensions)
