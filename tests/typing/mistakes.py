"""Mistakes that a type checker must find. Checked by mypy and pyright, never run.

Each ``type: ignore`` here stands for an error that must be reported: both checkers complain of one
that is not needed.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Sequence

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    Endpoint,
    FallbackChain,
    Filtered,
    FnFilter,
    HealthFilter,
    HealthStatus,
    HealthTracker,
    Lease,
    LeastLoad,
    LoadMetric,
    NodeSet,
    NodeStatus,
    PeakEwma,
    PerNode,
    PowerOfTwoChoices,
    QuotaDimension,
    QuotaTracker,
    Random,
    RoundRobin,
    SelectionContext,
    Strategy,
    Weighted,
    WithFallback,
    by_priority,
    by_zone,
)
from loadwise.integrations import httpx
from loadwise.integrations.llm import KeyPool, TokenMeter

EMPTY = SelectionContext()


class Returns:
    """A "strategy" that returns a node where an index is due."""

    def select(self, candidates: Sequence[str], context: SelectionContext = EMPTY) -> str | None:
        """Return the first."""
        return candidates[0] if candidates else None


class Asynchronous:
    """A "strategy" that would do I/O in a pick."""

    async def select(
        self, candidates: Sequence[str], context: SelectionContext = EMPTY
    ) -> int | None:
        """Return the first."""
        return 0


def in_eu(node: Endpoint) -> bool:
    """A filter of endpoints."""
    return node.zone == "eu"


async def judged_later(error: Exception) -> bool:
    """Tell whose fault an exception is, too late."""
    return bool(error)


def limit_of_endpoint(node: Endpoint) -> int:
    """Tell a limit of endpoints."""
    return node.priority + 1


async def limit_later(node: str) -> int:
    """Tell a limit, too late."""
    return len(node)


def with_a_lease(node: str, lease: Lease[str]) -> str:
    """Return what a request returns that wants its lease."""
    return node + repr(lease)


texts = Balancer(["a", "b"])
endpoints = Balancer([Endpoint("a")])

# What comes out is what went in.
number: int = texts.pick()  # type: ignore[assignment]
texts.acquire().node.zone  # type: ignore[attr-defined]  # noqa: B018 - the access is the mistake
texts.add(5)  # type: ignore[arg-type]
endpoints.replace(["a"])  # type: ignore[list-item]

# Arguments of the balancer.
Balancer(["a"], RoundRobin)  # type: ignore[arg-type]
Balancer(["a"], Returns())  # type: ignore[arg-type]
Balancer(["a"], Asynchronous())  # type: ignore[arg-type]
Balancer(["a"], health="yes")  # type: ignore[arg-type]
Balancer(["a"], quota=HealthTracker())  # type: ignore[arg-type]
Balancer(["a"], metrics=print)  # type: ignore[arg-type]
Balancer(["a"], metrics=[print])  # type: ignore[list-item]
Balancer(["a"], clock=5.0)  # type: ignore[arg-type]
Balancer(["a"], failures=503)  # type: ignore[arg-type]
Balancer(["a"], failures=int)  # type: ignore[arg-type]
Balancer(["a"], failures=[OSError])  # type: ignore[arg-type]
Balancer(["a"], failures=judged_later)  # type: ignore[arg-type]
Balancer(["a"], hung_after="2")  # type: ignore[arg-type]
Balancer(["a"], max_in_flight=2.5)  # type: ignore[arg-type]
Balancer(["a"], max_in_flight=limit_later)  # type: ignore[arg-type]
Balancer(["a"], max_in_flight=limit_of_endpoint)  # type: ignore[arg-type]
Balancer(["a"], max_waiting=0.5)  # type: ignore[arg-type]
Balancer(["a"], where=in_eu)  # type: ignore[arg-type]
Balancer(["a"], strategie=Random())  # type: ignore[call-arg]
Balancer(["a"], RoundRobin(), True)  # type: ignore[call-arg]
Balancer(5)  # type: ignore[arg-type]

# Requests.
texts.pick(hash_key=1.5)  # type: ignore[arg-type]
texts.pick("user-42")  # type: ignore[arg-type]
texts.pick(hashkey="k")  # type: ignore[call-arg]
texts.acquire(exclude=5)  # type: ignore[arg-type]
texts.acquire(cost={"tpm": "950"})  # type: ignore[dict-item]
texts.acquire(where=in_eu)  # type: ignore[arg-type]
texts.acquire(timeout="1")  # type: ignore[arg-type]
texts.acquire_async(timeout="1")  # type: ignore[arg-type]
texts.acquire_async().node  # type: ignore[attr-defined]  # noqa: B018 - it is to be awaited
texts.pick(timeout=1.0)  # type: ignore[call-arg]
texts.attempts("3")  # type: ignore[arg-type]
texts.attempts(3, retry_on=503)  # type: ignore[arg-type]
texts.attempts(3, retry_on=int)  # type: ignore[arg-type]
texts.attempts(3, wehre=None)  # type: ignore[call-arg]
texts.attempts(3, backoff=0.1)  # type: ignore[arg-type]
texts.attempts(3, timeout="1")  # type: ignore[arg-type]
texts.call("GET /")  # type: ignore[call-overload]
texts.call(in_eu)  # type: ignore[arg-type]
texts.call(len, 3)  # type: ignore[call-overload]
texts.call(len, attemps=3)  # type: ignore[call-overload]
texts.call(len, deadline="5")  # type: ignore[call-overload]
texts.call(len, with_lease=True)  # type: ignore[call-overload]
texts.call(with_a_lease)  # type: ignore[arg-type]
length: str = texts.call(len)  # type: ignore[assignment]
texts.acquire().failure("503", "5")  # type: ignore[arg-type]
texts.acquire().rate_limited("5")  # type: ignore[arg-type]
texts.acquire().settle({"tpm"})  # type: ignore[arg-type]
texts.name()  # type: ignore[operator]
with texts.pick():  # type: ignore[attr-defined]
    pass
with texts.acquire_async():  # type: ignore[attr-defined]
    pass


async def forgotten() -> None:
    """Picks are synchronous."""
    await texts.acquire()  # type: ignore[misc]
    await texts.pick()  # type: ignore[misc]
    await texts.call(len)  # type: ignore[misc]
    await texts.call_async(len)  # type: ignore[arg-type]


def frozen(status: NodeStatus, context: SelectionContext, endpoint: Endpoint) -> None:
    """Records do not change."""
    status.picks = 0  # type: ignore[misc]
    status.cooldown = None  # type: ignore[misc]
    context.hash_key = "k"  # type: ignore[misc]
    endpoint.weight = 2  # type: ignore[misc]


# Strategies and their loads.
def wants_text(node: str) -> float:
    """A load of texts."""
    return len(node)


by_text: Strategy[Endpoint] = LeastLoad(load=wants_text)  # type: ignore[arg-type]
LeastLoad[str](load=5)  # type: ignore[arg-type]
PowerOfTwoChoices[str](rng=7)  # type: ignore[arg-type]
Random[str](7)  # type: ignore[arg-type]
PeakEwma(tau="10")  # type: ignore[arg-type]
WithFallback(Random[str]())  # type: ignore[call-arg]
FallbackChain[str](Random())  # type: ignore[arg-type]
Filtered(Random[str](), in_eu)  # type: ignore[arg-type]
RoundRobin[str]().select(5)  # type: ignore[arg-type]
RoundRobin[str]().select(["a"], exclude={0})  # type: ignore[call-arg]

# Nodes, filters, health and quotas.
NodeSet(5)  # type: ignore[arg-type]
NodeSet(["a"]).eligible.append(1)  # type: ignore[attr-defined]
loaded: LoadMetric = Endpoint("a")  # type: ignore[assignment]
weighted: Weighted = "a"  # type: ignore[assignment]
Endpoint("a", weight="2")  # type: ignore[arg-type]
FnFilter[str](5)  # type: ignore[arg-type]
PerNode(in_eu)(texts.acquire())  # type: ignore[arg-type]
PerNode(in_eu, close=str.upper)  # type: ignore[arg-type]
by_priority("0")  # type: ignore[arg-type]
by_zone(["eu", "us"])  # type: ignore[arg-type]
HealthFilter(HealthTracker(), "HEALTHY")  # type: ignore[arg-type]
HealthTracker(policy=3)  # type: ignore[arg-type]
HealthTracker().report("a", "failure")  # type: ignore[arg-type]
is_well: bool = HealthTracker().status("a") & HealthStatus.HEALTHY  # type: ignore[assignment]
ConsecutiveFailurePolicy(failure_treshold=3)  # type: ignore[call-arg]
QuotaDimension(limit=5)  # type: ignore[call-arg]
QuotaTracker().try_acquire("a", 5)  # type: ignore[arg-type]


async def judge_later(result: object) -> bool:
    """Return a ruling that is none."""
    return bool(result)


async def key_later(request: object) -> str:
    """Return a key."""
    return repr(request)


KeyPool(["sk-1"])  # type: ignore[list-item]
KeyPool([], timout=5.0)  # type: ignore[call-arg]
TokenMeter(input=5)  # type: ignore[arg-type]


def transports() -> None:
    """A synchronous transport awaits nothing, and no transport awaits an address."""
    httpx.LoadwiseTransport(texts, hash_key=key_later)  # type: ignore[arg-type]
    httpx.AsyncLoadwiseTransport(texts, url=key_later)  # type: ignore[arg-type]
    httpx.AsyncLoadwiseTransport(texts, classify=judge_later)  # type: ignore[arg-type]
    httpx.LoadwiseTransport(texts, no_node="answer")  # type: ignore[arg-type]


texts.report("a", "failure")  # type: ignore[arg-type]
