"""Active health checks: nodes are asked how they are, and need not fail a request to show it."""

from loadwise.health_checks.async_checker import AsyncHealthChecker
from loadwise.health_checks.host_leader import HostLeader
from loadwise.health_checks.http_probe import HttpProbe
from loadwise.health_checks.leader import Leader
from loadwise.health_checks.probe import AsyncNodeProbe, NodeProbe, TimedProbe
from loadwise.health_checks.settings import CheckOptions
from loadwise.health_checks.tcp_probe import TcpProbe
from loadwise.health_checks.thread_checker import HealthChecker

__all__ = [
    "AsyncHealthChecker",
    "AsyncNodeProbe",
    "CheckOptions",
    "HealthChecker",
    "HostLeader",
    "HttpProbe",
    "Leader",
    "NodeProbe",
    "TcpProbe",
    "TimedProbe",
]
