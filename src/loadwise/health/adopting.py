"""Taking over of a state of health that somebody else has found out, and one probe for all."""

from __future__ import annotations

from loadwise.health.policy import NodeHealth
from loadwise.health.probes import Claims
from loadwise.health.status import HealthStatus
from loadwise.health.tracker import HealthTracker

__all__ = ["adopt", "claim_probes"]


def claim_probes(tracker: HealthTracker, claims: Claims) -> None:
    """Have a tracker claim probes that it grants, where others may have claimed them."""
    with tracker._lock:  # noqa: SLF001 - of the same package
        tracker._probes.claims = claims  # noqa: SLF001 - as above


def adopt(tracker: HealthTracker, new: NodeHealth) -> bool:
    """Have a tracker take over a node's record, and tell its listeners; ``False`` if it may not.

    A node that is ejected there stays so until that may end. O(1).
    """
    with tracker._lock:  # noqa: SLF001 - of the same package
        old = tracker.health(new.id)
        held = tracker._probes.is_held(new.id, tracker.clock())  # noqa: SLF001 - as above
        if old.status is new.status or held:
            return False
        record = NodeHealth(new.id) if new.status is HealthStatus.HEALTHY else new
        tracker._records.standings.setdefault(  # noqa: SLF001 - as above
            new.id,
            tracker._records.standing(new.id, None),  # noqa: SLF001 - as above
        )
        tracker._store(record)  # noqa: SLF001 - as above
    tracker._listeners.tell(new.id, old.status, new.status)  # noqa: SLF001 - as above
    return True
