"""Settings of a TimedConnection are checked where its class is made, before a server is asked."""

from __future__ import annotations

import re
from typing import Any

import pytest

from loadwise.integrations.psycopg import AsyncTimedConnection, TimedConnection


@pytest.mark.parametrize("base", [TimedConnection, AsyncTimedConnection])
@pytest.mark.parametrize(
    ("given", "kind", "told"),
    [
        (0, ValueError, "Mine.answer_timeout is 0; it must be a finite number of seconds above 0"),
        (-1.0, ValueError, "Mine.answer_timeout is -1.0; it must be"),
        (float("nan"), ValueError, "Mine.answer_timeout is nan; it must be"),
        ("2", TypeError, "Mine.answer_timeout is '2'; it must be a number"),
        (True, TypeError, "Mine.answer_timeout is True; it must be a number"),
    ],
)
def test_time_that_is_none_is_refused(
    base: type, given: Any, kind: type[Exception], told: str
) -> None:
    """The class, the value and the remedy are named."""
    with pytest.raises(kind, match=re.escape(told)):
        type("Mine", (base,), {"answer_timeout": given})


@pytest.mark.parametrize("base", [TimedConnection, AsyncTimedConnection])
def test_any_time_may_be_given(base: Any) -> None:
    """None is for ever."""
    made: Any = type("Mine", (base,), {"answer_timeout": None})
    assert made.answer_timeout is None
