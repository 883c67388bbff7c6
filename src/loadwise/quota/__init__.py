"""Quotas: how much a node may be asked for in any stretch of time."""

from loadwise.quota.config import QuotaConfig, QuotaDimension
from loadwise.quota.protocol import (
    CorrectableQuota,
    Left,
    LiftableQuota,
    QuotaSource,
    ReservedQuota,
)
from loadwise.quota.tracker import QuotaTracker, Reservation

__all__ = [
    "CorrectableQuota",
    "Left",
    "LiftableQuota",
    "QuotaConfig",
    "QuotaDimension",
    "QuotaSource",
    "QuotaTracker",
    "Reservation",
    "ReservedQuota",
]
