"""Balancers by strategies that count in different ways."""

from __future__ import annotations

import pytest
from tests.balancer.per_node.support import STRATEGIES

from loadwise import (
    Balancer,
)


@pytest.fixture(params=[*STRATEGIES])
def balancer(request: pytest.FixtureRequest) -> Balancer[str]:
    """Two nodes, by strategies that count in different ways."""
    return Balancer(["a", "b"], STRATEGIES[request.param]())
