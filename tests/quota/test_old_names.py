"""Old names of what a quota is asked, which warn for one minor version."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from loadwise import Balancer, QuotaTracker
from loadwise.testing import ManualClock


def test_the_old_name_of_cooldown_until_warns() -> None:
    """`rests_until` does the same, and names its successor."""
    quota = QuotaTracker(ManualClock())
    quota.mark_exhausted("a", 30.0)
    with pytest.warns(DeprecationWarning, match="cooldown_until"):
        assert quota.rests_until("a") == quota.cooldown_until("a") == 30.0


def test_a_source_with_the_old_name_only_is_refused() -> None:
    """A balancer says at once by which name it asks for the end of a cooldown."""
    source: Any = SimpleNamespace(try_acquire=print, rests_until=print)
    with pytest.raises(TypeError, match="rename its rests_until: it is now cooldown_until"):
        Balancer(["a"], quota=source)
