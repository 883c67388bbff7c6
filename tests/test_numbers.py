"""What should be a number and is none is told by name, wherever it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.compiled import COMPILED, wrong_type

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    Endpoint,
    MostAvailable,
    PeakEwma,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    RetryBudget,
)


def quota() -> QuotaTracker:
    """Return a tracker that knows of one node and one dimension."""
    tracker = QuotaTracker()
    tracker.register("a", QuotaConfig([QuotaDimension("rpm", limit=10)]))
    return tracker


PLACES: list[tuple[Callable[[Any], object], str]] = [
    (lambda value: Balancer(["a"]).acquire().rate_limited(value), "retry_after"),
    (lambda value: Balancer(["a"], quota=quota()).acquire(cost={"rpm": value}), "rpm: the amount"),
    (lambda value: quota().mark_exhausted("a", value), "seconds"),
    (lambda value: quota().record_usage("a", {"rpm": value}), "rpm: the amount"),
    (lambda value: quota().try_acquire("a", {"rpm": value}), "rpm: the amount"),
    (lambda value: QuotaDimension("rpm", limit=value), "rpm: limit"),
    (lambda value: QuotaDimension("rpm", limit=5, window=value), "rpm: window"),
    (lambda value: QuotaDimension("rpm", limit=5, default_cost=value), "rpm: default_cost"),
    (lambda value: ConsecutiveFailurePolicy(probe_interval=value), "probe_interval"),
    (lambda value: PeakEwma(tau=value), "tau"),
    (lambda value: PeakEwma(failure_factor=value), "failure_factor"),
    (lambda value: MostAvailable(epsilon=value), "epsilon"),
    (lambda value: RetryBudget(ratio=value), "ratio"),
    (lambda value: RetryBudget(window=value), "window"),
]


@pytest.mark.filterwarnings("ignore:a lease on node:ResourceWarning")
@pytest.mark.parametrize(("use", "named"), PLACES)
@pytest.mark.parametrize(
    ("value", "error", "remedy"),
    [
        ("5", TypeError, "is '5'; it must be a number"),
        ([5], TypeError, r"is \[5\]; it must be a number"),
        (10**400, ValueError, "is 1000.*it must be"),
    ],
    ids=["str", "list", "beyond-floats"],
)
def test_what_is_no_number_is_named(
    use: Callable[[Any], object], named: str, value: object, error: type[Exception], remedy: str
) -> None:
    """A text, such as that of a header, or an int beyond all floats, is refused by name."""
    # Compiled functions refuse an int beyond floats as they do a text: it is no float to them.
    errors = (error, TypeError) if COMPILED else error
    with pytest.raises(errors, match=wrong_type(f"{named} {remedy}")):
        use(value)


def test_a_weight_beyond_floats_is_named() -> None:
    """Shares are worked out in floats, so an endpoint's weight must be one."""
    with pytest.raises(ValueError, match=r"node 'a' has the weight 1000.*it must be finite"):
        Endpoint("a", weight=10**400)
