"""The health of nodes: four states, a policy that moves between them, one probe at a time."""

from loadwise.health.listeners import HealthListener
from loadwise.health.policy import ConsecutiveFailurePolicy, HealthPolicy, NodeHealth
from loadwise.health.probes import KNOWN_DOWN, Probe
from loadwise.health.status import HealthStatus
from loadwise.health.tracker import HealthTracker

__all__ = [
    "KNOWN_DOWN",
    "ConsecutiveFailurePolicy",
    "HealthListener",
    "HealthPolicy",
    "HealthStatus",
    "HealthTracker",
    "NodeHealth",
    "Probe",
]
