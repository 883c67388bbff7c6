"""The balancer: the parts of the library wired together for the common case."""

from loadwise.balancer.attempts import Attempt, Attempts
from loadwise.balancer.balancer import Balancer
from loadwise.balancer.cooldowns import Cooldown
from loadwise.balancer.lease import Lease
from loadwise.balancer.panic import Panic
from loadwise.balancer.per_node import PerNode
from loadwise.balancer.slow_start import SlowStart
from loadwise.balancer.status import Explanation, NodeStatus

__all__ = [
    "Attempt",
    "Attempts",
    "Balancer",
    "Cooldown",
    "Explanation",
    "Lease",
    "NodeStatus",
    "Panic",
    "PerNode",
    "SlowStart",
]
