"""What the tests of a host's shared memory need."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A path for a host's file."""
    if sys.platform != "linux":
        pytest.skip("only Linux has the locks that it needs")
    return tmp_path / "api"
