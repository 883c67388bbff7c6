"""Quotas: how much a node may be asked for in any stretch of time."""

from loadwise.quota.config import QuotaConfig, QuotaDimension
from loadwise.quota.protocol import LiftableQuota, QuotaSource, ReservedQuota
from loadwise.quota.tracker import QuotaTracker, Reservation

__all__ = [
    "LiftableQuota",
    "QuotaConfig",
    "QuotaDimension",
    "QuotaSource",
    "QuotaTracker",
    "Reservation",
    "ReservedQuota",
]
