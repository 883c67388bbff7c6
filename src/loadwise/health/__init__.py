"""The health of nodes: four states, a policy that moves between them, one probe at a time."""

from loadwise.health.policy import ConsecutiveFailurePolicy, HealthPolicy, NodeHealth
from loadwise.health.status import HealthStatus
from loadwise.health.tracker import HealthListener, HealthTracker, Probe

__all__ = [
    "ConsecutiveFailurePolicy",
    "HealthListener",
    "HealthPolicy",
    "HealthStatus",
    "HealthTracker",
    "NodeHealth",
    "Probe",
]
