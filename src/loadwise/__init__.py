"""loadwise: which of these nodes should handle the next request?

The load-balancing strategy engine that every Python program can embed: strategies, health,
filters, quotas and metrics behind a synchronous hot path that does no I/O.

    >>> from loadwise import Balancer
    >>> balancer = Balancer(["10.0.0.1:8080", "10.0.0.2:8080"])
    >>> with balancer.acquire() as lease:
    ...     answer = f"asked {lease.node}"
"""

from loadwise.backoff import Backoff
from loadwise.balancer import (
    Attempt,
    Attempts,
    Balancer,
    Cooldown,
    Explanation,
    Lease,
    NodeStatus,
    Panic,
    PerNode,
    SlowStart,
)
from loadwise.clock import Clock
from loadwise.context import SelectionContext
from loadwise.errors import (
    LoadwiseError,
    MissingHashKey,
    NoNodeAvailable,
    UnknownIndex,
    UnknownNode,
)
from loadwise.filters import (
    AllOf,
    AnyOf,
    Filter,
    FnFilter,
    HealthFilter,
    Not,
    QuotaFilter,
    by_id,
    by_priority,
    by_tag,
    by_zone,
)
from loadwise.health import (
    ConsecutiveFailurePolicy,
    HealthPolicy,
    HealthStatus,
    HealthTracker,
    NodeHealth,
)
from loadwise.load import InFlight, LoadMeasure, PeakEwma
from loadwise.metrics import MetricsCollector, NoopCollector
from loadwise.node_set import NodeSet
from loadwise.nodes import Endpoint, LoadMetric, Node, RateMetric, Weighted, node_id
from loadwise.outcome import Outcome
from loadwise.outliers import (
    Ejection,
    FailureShare,
    OutlierDetection,
    SlowShare,
    SuccessRate,
)
from loadwise.quota import QuotaConfig, QuotaDimension, QuotaTracker, Reservation
from loadwise.retry_budget import RetryBudget
from loadwise.state import InMemoryStore, StateStore
from loadwise.strategies import (
    BoundedLoads,
    ConsistentHash,
    FallbackChain,
    Filtered,
    JumpHash,
    LeastLoad,
    Maglev,
    MostAvailable,
    PowerOfTwoChoices,
    Random,
    Rendezvous,
    RoundRobin,
    Split,
    Sticky,
    Strategy,
    Tiers,
    WeightedRandom,
    WeightedRoundRobin,
    WithFallback,
    Zones,
)
from loadwise.subsets import Aperture, RendezvousSubset

__version__ = "0.1.0"

__all__ = [
    "AllOf",
    "AnyOf",
    "Aperture",
    "Attempt",
    "Attempts",
    "Backoff",
    "Balancer",
    "BoundedLoads",
    "Clock",
    "ConsecutiveFailurePolicy",
    "ConsistentHash",
    "Cooldown",
    "Ejection",
    "Endpoint",
    "Explanation",
    "FailureShare",
    "FallbackChain",
    "Filter",
    "Filtered",
    "FnFilter",
    "HealthFilter",
    "HealthPolicy",
    "HealthStatus",
    "HealthTracker",
    "InFlight",
    "InMemoryStore",
    "JumpHash",
    "Lease",
    "LeastLoad",
    "LoadMeasure",
    "LoadMetric",
    "LoadwiseError",
    "Maglev",
    "MetricsCollector",
    "MissingHashKey",
    "MostAvailable",
    "NoNodeAvailable",
    "Node",
    "NodeHealth",
    "NodeSet",
    "NodeStatus",
    "NoopCollector",
    "Not",
    "Outcome",
    "OutlierDetection",
    "Panic",
    "PeakEwma",
    "PerNode",
    "PowerOfTwoChoices",
    "QuotaConfig",
    "QuotaDimension",
    "QuotaFilter",
    "QuotaTracker",
    "Random",
    "RateMetric",
    "Rendezvous",
    "RendezvousSubset",
    "Reservation",
    "RetryBudget",
    "RoundRobin",
    "SelectionContext",
    "SlowShare",
    "SlowStart",
    "Split",
    "StateStore",
    "Sticky",
    "Strategy",
    "SuccessRate",
    "Tiers",
    "UnknownIndex",
    "UnknownNode",
    "Weighted",
    "WeightedRandom",
    "WeightedRoundRobin",
    "WithFallback",
    "Zones",
    "__version__",
    "by_id",
    "by_priority",
    "by_tag",
    "by_zone",
    "node_id",
]
