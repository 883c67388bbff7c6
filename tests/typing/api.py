"""The public API as a typed program uses it. Checked by mypy and pyright, never run."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_type

import aiohttp
import anthropic
import openai
from httpx import HTTPTransport

import loadwise
from loadwise import (
    AllOf,
    AnyOf,
    Attempt,
    Attempts,
    Backoff,
    Balancer,
    Clock,
    ConsecutiveFailurePolicy,
    ConsistentHash,
    Cooldown,
    Endpoint,
    Explanation,
    FallbackChain,
    Filter,
    Filtered,
    FnFilter,
    HealthFilter,
    HealthStatus,
    HealthTracker,
    InFlight,
    InMemoryStore,
    Lease,
    LeastLoad,
    LoadMetric,
    LoadwiseError,
    MissingHashKey,
    MostAvailable,
    Node,
    NodeHealth,
    NodeSet,
    NodeStatus,
    NoNodeAvailable,
    Not,
    Outcome,
    PeakEwma,
    PerNode,
    PowerOfTwoChoices,
    QuotaConfig,
    QuotaDimension,
    QuotaFilter,
    QuotaTracker,
    Random,
    RateMetric,
    Reservation,
    RetryBudget,
    RoundRobin,
    SelectionContext,
    StateStore,
    Strategy,
    Tiers,
    UnknownNode,
    Weighted,
    WeightedRandom,
    WeightedRoundRobin,
    WithFallback,
    Zones,
    by_id,
    by_priority,
    by_tag,
    by_zone,
    node_id,
)
from loadwise.health_checks import AsyncHealthChecker, HealthChecker
from loadwise.integrations import httpx, httpx2
from loadwise.integrations.aiohttp import LoadwiseMiddleware, NoNodeError
from loadwise.integrations.httpx import by_header
from loadwise.integrations.llm import KeyPool, TokenMeter, classify_llm
from loadwise.quota import Left
from loadwise.testing import (
    Call,
    FakeFleet,
    ManualClock,
    ScriptedRandom,
    StrategyContract,
    VirtualClock,
)


@dataclass(frozen=True)
class Server:
    """A node of a user's own: no base class, whatever it can tell."""

    id: str
    weight: int
    zone: str

    def load_score(self) -> float:
        """Return the present load."""
        return 0.5

    def remaining(self) -> float:
        """Return what is left."""
        return 10.0


servers = [Server("a", 1, "eu"), Server("b", 2, "us")]


def nodes_keep_their_type() -> None:
    """What goes into a balancer comes out of it."""
    of_servers = Balancer(servers)
    assert_type(of_servers, Balancer[Server])
    assert_type(of_servers.pick(), Server)
    assert_type(of_servers.acquire(), Lease[Server])
    assert_type(of_servers.acquire().node.zone, str)
    assert_type(of_servers.nodes, tuple[Server, ...])
    of_addresses = Balancer(["10.0.0.1:8080", "10.0.0.2:8080"])
    assert_type(of_addresses.pick(), str)
    assert_type(Balancer([Endpoint("a")]).acquire().node.weight, int | float)
    assert_type(Balancer([("10.0.0.1", 80)]).pick(), tuple[str, int])
    empty: Balancer[Server] = Balancer()
    empty.add(servers[0])
    empty.replace(iter(servers))
    empty.remove("a")
    empty.drain("b")
    empty.resume("b")


def every_argument() -> None:
    """All keywords of the balancer and of its requests."""
    clock: Clock = ManualClock()
    health = HealthTracker(ConsecutiveFailurePolicy(3, 2, 10.0), clock=clock)
    quota = QuotaTracker(clock)
    balancer = Balancer(
        servers,
        PowerOfTwoChoices(load=PeakEwma(tau=5.0), rng=random.Random(1)),
        health=health,
        quota=quota,
        where=lambda server: server.zone == "eu",
        metrics=loadwise.NoopCollector(),
        clock=clock,
        name="search",
        failures=(OSError, TimeoutError),
        hung_after=2.0,
    )
    assert_type(balancer.name, str)
    assert_type(balancer.health, HealthTracker | None)
    balancer.pick(
        hash_key=b"user-42",
        exclude={"a"},
        cost={"rpm": 1, "tpm": 2.5},
        tags={"model": "m"},
        where=lambda server: server.weight > 1,
    )
    balancer.pick(SelectionContext(hash_key=42, exclude=frozenset({0})))
    balancer.acquire(exclude=["a", "b"], hash_key="user-42")
    assert_type(balancer.explain(hash_key="k"), Explanation)
    assert_type(balancer.status(), list[NodeStatus])
    assert_type(balancer.status()[0].cooldown, Cooldown | None)
    assert_type(balancer.status()[0].to_dict(), dict[str, Any])
    assert_type(balancer.status_dict(), dict[str, Any])
    assert_type(balancer.explain().cooldowns, Mapping[Hashable, Cooldown])
    assert_type(balancer.lift("a"), bool)
    balancer.lift(servers[0])
    Balancer(servers, health=False)
    Balancer(servers, health=None, quota=None, where=None, metrics=None, clock=None)


def judge(error: Exception) -> Outcome | bool:
    """Tell whose fault an exception is."""
    if isinstance(error, KeyError):
        return Outcome.RATE_LIMITED
    return isinstance(error, OSError)


def whose_fault_it_is() -> None:
    """Exception types, or a function of the exception."""
    Balancer(servers, failures=ConnectionError)
    Balancer(servers, failures=judge, hung_after=None)
    Balancer(servers, failures=lambda error: not isinstance(error, ValueError))


def a_request() -> str:
    """A lease as a context manager: it knows its node, and never swallows what is raised."""
    balancer = Balancer(servers)
    with balancer.acquire() as lease:
        assert_type(lease, Lease[Server])
        assert_type(lease.node, Server)
        assert_type(lease.success(), bool)
        assert_type(lease.failure("status 503"), bool)
        assert_type(lease.failure(ValueError()), bool)
        assert_type(lease.failure("status 503", retry_after=30), bool)
        assert_type(lease.rate_limited(5), bool)
        assert_type(lease.rate_limited(5, "429 from the server"), bool)
        assert_type(lease.rate_limited(reason=ValueError()), bool)
        assert_type(lease.cancel(), bool)
        assert_type(lease.call_off(), bool)
        assert_type(lease.outcome, Outcome | None)
        assert_type(lease.latency, float | None)
        lease.settle({"tpm": 950})
        return lease.node.id


def slots(server: Server) -> int | None:
    """Tell how many requests a node may have, or that there is no limit."""
    return server.weight if server.weight > 1 else None


def slots_of_any(node: object) -> int:
    """Tell a number for a node of any kind."""
    return len(str(node))


async def limits_and_waiting() -> None:
    """One limit, one for each node, or none; waits in threads and in tasks."""
    assert_type(Balancer(servers, max_in_flight=8, max_waiting=100), Balancer[Server])
    assert_type(Balancer(servers, max_in_flight=slots), Balancer[Server])
    assert_type(Balancer(servers, max_in_flight=slots_of_any), Balancer[Server])
    assert_type(Balancer(servers, max_in_flight=lambda server: server.weight), Balancer[Server])
    balancer = Balancer(servers, max_in_flight=None, max_waiting=None)
    assert_type(balancer.waiting, int)
    assert_type(balancer.status()[0].limit, int | None)
    assert_type(balancer.acquire(timeout=2), Lease[Server])
    assert_type(balancer.acquire(timeout=None), Lease[Server])
    assert_type(await balancer.acquire_async(timeout=0.5, where=heavy), Lease[Server])
    assert_type((await balancer.acquire_async()).node, Server)
    async with balancer.acquire_async(timeout=None, hash_key="k", cost={"tpm": 5}) as lease:
        assert_type(lease, Lease[Server])
        assert_type(lease.node.zone, str)


async def an_async_request() -> None:
    """The same in ``async with``, and in attempts of either kind."""
    balancer = Balancer(servers)
    async with balancer.acquire() as lease:
        assert_type(lease, Lease[Server])
    attempts = balancer.attempts(3, retry_on=(ConnectionError, TimeoutError), hash_key="k")
    assert_type(attempts, Attempts[Server])
    for attempt in attempts:
        assert_type(attempt, Attempt[Server])
        assert_type(attempt.number, int)
        async with attempt as lease:
            assert_type(lease.node, Server)
    for attempt in balancer.attempts(2):
        with attempt as lease:
            assert_type(lease.node.zone, str)


def after_attempts_the_code_goes_on(balancer: Balancer[str]) -> int:
    """An attempt may swallow an exception, so the code after its block is reachable."""
    for attempt in balancer.attempts(2):
        with attempt:
            raise ConnectionError
    return 1


def every_strategy() -> list[Strategy[Server]]:
    """All strategies, for nodes of one's own."""
    eu: Filtered[Server] = Filtered(RoundRobin(), lambda server: server.zone == "eu")
    strategies: list[Strategy[Server]] = [
        RoundRobin(),
        RoundRobin(start=None),
        WeightedRoundRobin(),
        Random(rng=ScriptedRandom([0.5])),
        WeightedRandom(rng=random.Random(2)),
        LeastLoad(),
        LeastLoad(load=lambda server: server.weight),
        LeastLoad(load=InFlight()),
        PowerOfTwoChoices(load=PeakEwma(tau=10.0, failure_factor=2.0)),
        ConsistentHash(virtual_nodes=160),
        MostAvailable(epsilon=0.5),
        WithFallback(eu, Random()),
        FallbackChain([eu, LeastLoad(load=Server.load_score)]),
        Tiers(lambda: Zones(lambda: PowerOfTwoChoices(InFlight()), local="eu"), 1.4),
    ]
    return strategies


def selecting() -> None:
    """A strategy by itself, over a list and over a node set."""
    strategy: WeightedRoundRobin[Server] = WeightedRoundRobin()
    assert_type(strategy.select(servers), int | None)
    nodes = NodeSet(servers)
    assert_type(nodes, NodeSet[Server])
    assert_type(nodes[0], Server)
    assert_type(nodes[0:1], tuple[Server, ...])
    assert_type(nodes.restrict([0]), NodeSet[Server])
    assert_type(nodes.eligible, tuple[int, ...])
    assert_type(nodes.index_of("a"), int | None)
    assert_type(list(nodes), list[Server])
    index = strategy.select(nodes, SelectionContext(exclude={1}))
    assert_type(index, int | None)
    ring: ConsistentHash[Server] = ConsistentHash()
    assert_type(ring.owner(nodes, "user-42"), int | None)
    as_sequence: Sequence[Node] = nodes
    assert_type(len(as_sequence), int)
    assert_type(node_id(servers[0]), Hashable)
    unpicky: Strategy[object] = RoundRobin()
    for_servers: Strategy[Server] = unpicky
    for_servers.select(servers)


def nodes_by_what_they_tell(server: Server) -> tuple[Node, Weighted, LoadMetric, RateMetric]:
    """A class fits the opt-in protocols by its members alone."""
    endpoint: Weighted = Endpoint("a", weight=1.5, zone="eu", priority=1, tags={"k": "v"})
    assert_type(endpoint.weight, int | float)
    return server, server, server, server


def health_checks(checker: HealthChecker[Server]) -> None:
    """Verdicts are by id."""
    assert_type(checker.check_now(), dict[Hashable, str | None])
    assert_type(checker.check_now(2.5), dict[Hashable, str | None])
    assert_type(checker.check_now(timeout=None), dict[Hashable, str | None])


async def async_health_checks(checker: AsyncHealthChecker[Server]) -> None:
    """As in threads, but awaited."""
    assert_type(await checker.check_now(), dict[Hashable, str | None])


def health_and_quota() -> None:
    """Trackers, reservations and what they return."""
    health = HealthTracker()
    assert_type(health.status("a"), HealthStatus)
    assert_type(health.status("a") & (HealthStatus.HEALTHY | HealthStatus.DEGRADED), HealthStatus)
    health.report("a", Outcome.FAILURE, "status 503")
    assert_type(health.should_probe("a"), bool)
    assert_type(health.snapshot(), dict[Hashable, NodeHealth])
    quota = QuotaTracker()
    quota.register("a", QuotaConfig([QuotaDimension("rpm", limit=100, window=60.0, resolution=6)]))
    assert_type(quota.record_usage("a", {"rpm": 1}), bool)
    assert_type(quota.remaining("a", "rpm"), float)
    reservation = quota.try_acquire("a", {"rpm": 1})
    assert_type(reservation, Reservation | None)
    if reservation is not None:
        reservation.settle({"rpm": 1})
        reservation.cancel()


def heavy(server: Server) -> bool:
    """A filter by being a function."""
    return server.weight > 1


def filters() -> None:
    """The algebra of filters, over functions of a node, too."""
    eu: FnFilter[Server] = FnFilter(lambda server: server.zone == "eu")
    health, quota = HealthTracker(), QuotaTracker()
    both = eu & HealthFilter.available(health)
    assert_type(both, AllOf[Server])
    assert_type(eu | QuotaFilter(quota), AnyOf[Server])
    assert_type(~eu, Not[Server])
    assert_type(both(servers[0]), bool)
    named = HealthFilter(health, HealthStatus.HEALTHY | HealthStatus.RECOVERING)
    balancer = Balancer(servers, where=both | named)
    balancer.pick(where=eu & heavy)
    everything: Filter[Server] = AllOf()
    balancer.pick(where=~everything)
    near: Filter[Server] = by_zone("eu", None) & ~by_tag(gpu="h100") | by_priority(0, 1)
    balancer.pick(where=near & eu)
    Balancer(["a"], where=by_id("a", servers[0]))


class Pool:
    """A client of a user's own."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def close(self) -> None:
        """Close it."""

    async def aclose(self) -> None:
        """Close it, in time."""


async def connect(server: Server) -> Pool:
    """Make a client, in time."""
    return Pool(server)


async def clients(balancer: Balancer[Server]) -> None:
    """An object for each node, made at once or to be awaited."""
    plain = PerNode(Pool, close=Pool.close)
    awaited = PerNode(connect, close=Pool.aclose)
    with plain, balancer.acquire() as lease:
        assert_type(plain(lease), Pool)
    async with awaited, balancer.acquire() as lease:
        assert_type(await awaited(lease), Pool)
    of_anything: PerNode[object, str] = PerNode(repr)
    assert_type(of_anything(balancer.acquire()), str)


def fakes() -> None:
    """A fleet without servers knows the type of its nodes."""
    fleet = FakeFleet(servers, latency=0.1, rng=random.Random(1)).slow("a", random.Random.random)
    assert_type(fleet, FakeFleet[Server])
    assert_type(fleet.balancer(hung_after=1.0), Balancer[Server])
    assert_type(fleet.calls, tuple[Call, ...])
    assert_type(fleet.clock, VirtualClock)
    assert_type(fleet.run(connect(servers[0])), Pool)
    FakeFleet({"a": [ConnectionError, "hello"], "b": 5}).fail("a", OSError("gone"), times=2)


def errors(balancer: Balancer[Server]) -> float | None:
    """What an error can tell."""
    try:
        balancer.pick()
    except NoNodeAvailable as error:
        assert_type(error.filters, tuple[str, ...])
        as_mapping: Mapping[str, int] = error.reasons
        assert_type(as_mapping["unhealthy"], int)
        assert_type(error.reason, str)
        return error.retry_after
    except MissingHashKey as error:
        as_value_error: ValueError = error
        raise as_value_error from error
    except UnknownNode as error:
        assert_type(error.node_id, Hashable)
        as_key_error: KeyError = error
        raise as_key_error from error
    except LoadwiseError:
        return None
    return 0.0


def stores() -> None:
    """A store keeps values of any type by ids of any type."""
    store: InMemoryStore[str, float] = InMemoryStore()
    as_protocol: StateStore[str, float] = store
    as_protocol.put("a", 0.2)
    assert_type(as_protocol.get("a"), float | None)
    assert_type(as_protocol.list(), list[tuple[str, float]])


class TestMine(StrategyContract):
    """The contract for a strategy of a user's own."""

    def make(self) -> Strategy[Server]:
        """Return the strategy."""
        return RoundRobin()

    def make_nodes(self, count: int) -> list[Server]:
        """Return nodes that it can work with."""
        return [Server(str(number), 1, "eu") for number in range(count)]


def stream(balancer: Balancer[str]) -> Iterator[str]:
    """A generator may hold a lease."""
    with balancer.acquire() as lease:
        yield lease.node


def own_words(balancer: Balancer[Endpoint]) -> None:
    """Nodes may stand for their ids, and requests without a lease are reported."""
    node = balancer.pick(exclude=[Endpoint("a"), "b"])
    balancer.report(node, Outcome.FAILURE, reason="refused", latency=0.5)
    balancer.report(node.id, Outcome.SUCCESS)
    balancer.drain(node)
    lease = balancer.acquire()
    assert_type(lease.node_id, Hashable)


async def key_later(request: object) -> str:
    """Return a key."""
    return repr(request)


async def prepare_later(request: object, node: object) -> None:
    """Do nothing."""


async def judge_later(result: object) -> Outcome | None:
    """Return no ruling."""


def judge_now(result: object) -> Outcome | None:
    """Return no ruling."""


def transport_of(node: str) -> HTTPTransport:
    """Return the transport of one node."""
    return HTTPTransport(uds=node)


def transports(balancer: Balancer[str]) -> None:
    """What an asynchronous transport may await, a synchronous one is given as plain functions."""
    httpx.AsyncLoadwiseTransport(
        balancer, prepare=prepare_later, hash_key=key_later, classify=judge_later
    )
    httpx2.AsyncLoadwiseTransport(balancer, hash_key=by_header("X-User"), classify=judge_now)
    LoadwiseMiddleware(balancer, classify=judge_later, hash_key=key_later, prepare=prepare_later)
    httpx.LoadwiseTransport(balancer, classify=judge_now, hash_key=by_header("X-User"))
    httpx.LoadwiseTransport(balancer, transport_of, url=str)
    httpx2.AsyncLoadwiseTransport(balancer, limits=None, http2=True)
    httpx.LoadwiseTransport(
        balancer, no_node="response", max_cooldown=30.0, map_responses=False, node_cookies=True
    )
    httpx2.LoadwiseTransport(balancer, classify=classify_llm, timeout=None)
    LoadwiseMiddleware(balancer, classify=classify_llm, timeout=30.0)


def no_node(error: httpx.NoNodeError, error2: httpx2.NoNodeError, error3: NoNodeError) -> None:
    """An error of the client's own family that tells what a balancer tells."""
    assert_type(error.request.method, str)
    assert_type(error2.request.method, str)
    assert_type(error3.request, aiohttp.RequestInfo | None)
    assert_type(error.reason, str)
    assert_type(error3.retry_after, float | None)


async def fetch_async(node: Server) -> bytes:
    """A request as a coroutine function."""
    return node.id.encode()


def fetch_with_lease(node: Server, lease: Lease[Server]) -> int:
    """A request that says on its lease what came of it."""
    lease.first_byte()
    return node.weight


def by_call(balancer: Balancer[Server]) -> str:
    """What the function returns, comes out; nothing is left unbound."""
    assert_type(balancer.call(lambda node: node.weight), int)
    assert_type(balancer.call(fetch_with_lease, with_lease=True), int)
    assert_type(
        balancer.call(lambda node, lease: (node, lease.node), with_lease=True),
        tuple[Server, Server],
    )
    assert_type(
        balancer.call(
            heavy,
            attempts=5,
            retry_on=(OSError, ValueError),
            deadline=10,
            backoff=Backoff(base=0.1, cap=1, jitter=False),
            budget=RetryBudget(),
            timeout=None,
            with_lease=False,
            hash_key="k",
            exclude={"a"},
            cost={"tpm": 5},
            tags={"model": "m"},
            where=heavy,
        ),
        bool,
    )
    return balancer.call(lambda node: node.id)


async def by_call_async(balancer: Balancer[Server]) -> bytes:
    """The same, awaited; also with a plain function that returns what is to be awaited."""

    async def with_lease(node: Server, lease: Lease[Server]) -> float | None:
        return lease.latency

    assert_type(await balancer.call_async(with_lease, with_lease=True, deadline=2.5), float | None)
    assert_type(await balancer.call_async(lambda _: fetch_async(servers[0]), attempts=2), bytes)
    return await balancer.call_async(fetch_async, backoff=Backoff(), timeout=1.0)


def a_loop_that_binds(balancer: Balancer[Server]) -> int:
    """A loop of attempts whose answer is bound, whatever happens."""
    answer = 0
    for attempt in balancer.attempts(
        3, deadline=5.0, backoff=Backoff(), budget=RetryBudget(), timeout=0.5
    ):
        with attempt as lease:
            answer = lease.node.weight
    return answer


async def a_pool_of_keys(lease: Lease[str]) -> None:
    """Clients are the SDKs' own."""
    pool = KeyPool(
        [{"key": "sk-1", "base_url": "https://api.openai.com/v1", "rpm": 5, "models": ["m"]}],
        RoundRobin(),
        name="keys",
        timeout=5.0,
        max_attempts=2,
    )
    assert_type(pool.openai(max_retries=1), openai.OpenAI)
    assert_type(pool.async_openai(), openai.AsyncOpenAI)
    assert_type(pool.anthropic(), anthropic.Anthropic)
    assert_type(pool.async_anthropic(), anthropic.AsyncAnthropic)
    assert_type(pool.quota.remaining(pool.balancer.nodes[0].id, "rpm"), float)
    meter = TokenMeter(input="itpm", output="otpm")
    httpx2.LoadwiseTransport(Balancer(["http://a"]), meter=meter)
    lease.correct({"tpm": Left(5), "rpm": Left(1, limit=5, reset=2.5)})
