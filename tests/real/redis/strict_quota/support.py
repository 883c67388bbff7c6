"""What quotas say that processes share."""

from __future__ import annotations

from collections.abc import Callable

from tests.real.redis.support import Peer

from loadwise.integrations.redis import SharedQuota

StartPeer = Callable[..., Peer]
Share = Callable[..., SharedQuota]


def rests(quota: SharedQuota) -> bool:
    """Whether the node is on cooldown, when a request asks for it."""
    return quota.try_acquire("node", {"rpm": 0}) is None


def is_awake(quota: SharedQuota) -> bool:
    """Whether the node is not on cooldown."""
    return not rests(quota)


def is_refused(quota: SharedQuota, amounts: dict[str, float]) -> bool:
    """Whether a request is refused; if not, it is as if it had not been made."""
    reservation = quota.try_acquire("node", amounts)
    if reservation is not None:
        reservation.cancel()
    return reservation is None


def is_exhausted(quota: SharedQuota) -> bool:
    """Whether nothing is left, after the server was asked."""
    return is_refused(quota, {"rpm": 0.5}) and quota.remaining("node", "rpm") == 0
