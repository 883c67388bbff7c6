"""Filters: predicates over nodes, with an algebra.

A filter decides which nodes a strategy may see. Those that read a tracker know when their answer
may have changed, so their result is kept until then; those that read attributes of immutable nodes
are asked once per membership; a plain function is asked every time.
"""

from loadwise.filters.algebra import (
    AllOf,
    AnyOf,
    Filter,
    FnFilter,
    HealthFilter,
    Not,
    QuotaFilter,
    accepts,
    as_filter,
    turned_away,
)
from loadwise.filters.by_attribute import by_id, by_priority, by_tag, by_zone
from loadwise.filters.watch import NOTHING_KEPT, Kept, StateSource, Watch

__all__ = [
    "NOTHING_KEPT",
    "AllOf",
    "AnyOf",
    "Filter",
    "FnFilter",
    "HealthFilter",
    "Kept",
    "Not",
    "QuotaFilter",
    "StateSource",
    "Watch",
    "accepts",
    "as_filter",
    "by_id",
    "by_priority",
    "by_tag",
    "by_zone",
    "turned_away",
]
