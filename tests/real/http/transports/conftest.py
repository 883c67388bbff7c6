"""Both packages, and the integration of each."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

# The packages have no common base, so what is theirs is Any here as in the sources.


@pytest.fixture(params=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> Any:
    """The package under test."""
    return import_module(request.param)


@pytest.fixture
def ours(library: Any) -> Any:
    """The integration for the package under test."""
    return import_module(f"loadwise.integrations.{library.__name__}")
