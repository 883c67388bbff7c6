"""Names of the keys on the server: all that is shared under a prefix.

A node's id is written as the caller's, so that an operator finds it by ``SCAN``.
"""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["health_key", "leader_key", "quota_key", "state_key"]


def health_key(prefix: str) -> bytes:
    """Return the name of the HASH of nodes' health."""
    return f"{prefix}:health".encode()


def leader_key(prefix: str) -> bytes:
    """Return the name of the key that the leading process holds."""
    return f"{prefix}:leader".encode()


def quota_key(prefix: str, node_id: Hashable) -> bytes:
    """Return the name of the HASH of a node's counts."""
    return f"{prefix}:quota:{node_id}".encode()


def state_key(prefix: str) -> bytes:
    """Return the name of the HASH of a store's entries."""
    return f"{prefix}:state".encode()
