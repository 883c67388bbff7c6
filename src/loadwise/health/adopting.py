"""Taking over of a state of health that somebody else has found out, and one probe for all."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol, runtime_checkable

from loadwise.health.policy import NodeHealth
from loadwise.health.probes import Claims
from loadwise.health.status import HealthStatus
from loadwise.health.tracker import HealthTracker

__all__ = ["adopt", "claim_probes", "heard_at"]


@runtime_checkable
class _Hearer(Protocol):
    """A tracker that also hears in another way what others found out."""

    def take_over(self, new: NodeHealth, when: float) -> bool:
        """Take over what was found out at a time; ``False`` if what is known is newer."""
        ...

    def heard_at(self, node_id: Hashable) -> float | None:
        """Return when others found out what is being told of a node now; ``None`` if nobody did."""
        ...


def heard_at(tracker: HealthTracker, node_id: Hashable) -> float | None:
    """Return when others found out the change that a tracker tells its listeners of now.

    ``None`` for one that was found out here. The time is by the tracker's clock.
    """
    return tracker.heard_at(node_id) if isinstance(tracker, _Hearer) else None


def claim_probes(tracker: HealthTracker, claims: Claims) -> None:
    """Have a tracker claim probes that it grants, where others may have claimed them."""
    with tracker._lock:  # noqa: SLF001 - of the same package
        tracker._probes.claims = claims  # noqa: SLF001 - as above


def adopt(tracker: HealthTracker, new: NodeHealth, when: float) -> bool:
    """Have a tracker take over a node's record, and tell its listeners; ``False`` if it may not.

    A node that is ejected there stays so until that may end. So does one of which the tracker has
    heard in another way what is newer.

    Args:
        tracker: The tracker.
        new: The record.
        when: When it was found out, by the tracker's clock.

    O(1).
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
        if not isinstance(tracker, _Hearer):
            tracker._store(record)  # noqa: SLF001 - as above
        elif not tracker.take_over(record, when):
            return False
    tracker._listeners.tell(new.id, old.status, new.status)  # noqa: SLF001 - as above
    return True
