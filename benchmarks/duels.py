"""The peers: what they are asked, how they are set up, and what loadwise does for the same job.

Setups and calls are source text, in which ``n`` is the number of nodes. So what the documentation
shows is what ran, and no peer needs to be installed for its setup to be checked and read.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DUELS", "Duel"]


@dataclass(frozen=True)
class Duel:
    """A peer's operation and loadwise's nearest.

    Attributes:
        package: The peer, as it is installed.
        job: What is done.
        setup: How the peer is made.
        call: What is timed.
        own_setup: How loadwise's counterpart is made.
        own_call: What is timed of it.
        least: How many times faster loadwise ought to be, by number of nodes; 0 for every other.
            Ahead of the peer it ought to be at any.
        in_turn: Whether the peer's cost depends on whose turn it is, so that it is timed over whole
            rounds.
        short: The job in few words, for the README; empty for one that it leaves out.
    """

    package: str
    job: str
    setup: str
    call: str
    own_setup: str
    own_call: str
    least: tuple[tuple[int, float], ...] = ()
    in_turn: bool = False
    short: str = ""


_KEYS = """
from itertools import cycle
key = cycle([f"user-{i}" for i in range(1000)]).__next__
"""
_NAMES = 'names = [f"10.0.{i // 256}.{i % 256}:8080" for i in range(n)]\n'

_ELASTIC = """
from elastic_transport import NodeConfig, NodePool, Urllib3HttpNode
configs = [NodeConfig("http", f"10.0.{i // 256}.{i % 256}", 9200) for i in range(n)]
pool = NodePool(configs, Urllib3HttpNode)
"""
_UHASHRING = _KEYS + _NAMES + "from uhashring import HashRing\nring = HashRing(names)\n"
_CASSANDRA = """
from cassandra.policies import RoundRobinPolicy, SimpleConvictionPolicy
from cassandra.pool import Host
hosts = [Host(f"10.0.{i // 256}.{i % 256}", SimpleConvictionPolicy) for i in range(n)]
policy = RoundRobinPolicy()
policy.populate(None, hosts)
"""
_LITELLM = """
import os
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it fetches a list at the import
from litellm import Router
deployments = [
    {"model_name": "chat", "litellm_params": {"model": "openai/gpt-4o", "api_key": f"key-{i}"}}
    for i in range(n)
]
router = Router(model_list=deployments, routing_strategy="STRATEGY")
messages = [{"role": "user", "content": "Hello"}]
"""
_LITELLM_CALL = 'router.get_available_deployment(model="chat", messages=messages)'
_HRW = _KEYS + _NAMES + "from hrw import choose\nmembers = [name.encode() for name in names]\n"
_REDIS = "from redis.cluster import LoadBalancer\nturns = LoadBalancer()\n"
_LIMITS = """
from itertools import cycle
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
limiter = MovingWindowRateLimiter(MemoryStorage())
limit = RateLimitItemPerMinute(1_000_000)
node = cycle([f"key-{i}" for i in range(n)]).__next__
"""

_NODE_SET = _NAMES + "import loadwise\nnodes = loadwise.NodeSet(names)\n"
_ROUND_ROBIN = _NODE_SET + "strategy = loadwise.RoundRobin()\n"
_RING = _KEYS + _NODE_SET + "ring = loadwise.ConsistentHash()\n"
_OWNER = "names[ring.owner(nodes, key())]"
_BALANCER = _NAMES + "import loadwise\nbalancer = loadwise.Balancer(names)\n"
_QUOTA = """
from itertools import cycle
import loadwise
quota = loadwise.QuotaTracker()
limit = loadwise.QuotaConfig([loadwise.QuotaDimension("rpm", limit=1_000_000, window=60.0)])
for i in range(n):
    quota.register(f"key-{i}", limit)
node = cycle([f"key-{i}" for i in range(n)]).__next__
"""

DUELS = (
    Duel(
        "elastic-transport",
        "choose a live node, report that it lives",
        _ELASTIC,
        "pool.mark_live(pool.get())",
        _NAMES
        + "import loadwise\nbalancer = loadwise.Balancer(names, loadwise.RoundRobin())\n"
        + "health = balancer.health\n",
        "health.report_success(balancer.pick())",
        ((10, 2.0), (1000, 50.0)),
    ),
    Duel(
        "elastic-transport",
        "the same, with a lease: requests counted and timed",
        _ELASTIC,
        "pool.mark_live(pool.get())",
        _BALANCER,
        "balancer.acquire().success()",
        short="choose a node and report how it went",
    ),
    Duel(
        "uhashring",
        "find the node of a key",
        _UHASHRING,
        "ring.get_node(key())",
        _RING,
        _OWNER,
        ((0, 3.0),),
        short="find the node of a key",
    ),
    Duel(
        "uhashring",
        "the same, for requests: each key in a context",
        _UHASHRING,
        "ring.get_node(key())",
        _RING,
        "names[ring.select(nodes, loadwise.SelectionContext(hash_key=key()))]",
    ),
    Duel(
        "uhashring",
        "build a ring",
        _NAMES + "from uhashring import HashRing\n",
        "HashRing(names)",
        _NAMES + "import loadwise\n",
        "loadwise.ConsistentHash().prepare(loadwise.NodeSet(names))",
        ((1000, 1 / 0.45),),
    ),
    Duel(
        "hrw",
        "find the node of a key",
        _HRW,
        "choose(key().encode(), members, k=1)",
        _RING,
        _OWNER,
    ),
    Duel(
        "cassandra-driver",
        "the first host of a query plan, round robin",
        _CASSANDRA,
        "next(iter(policy.make_query_plan()))",
        _ROUND_ROBIN,
        "names[strategy.select(nodes)]",
        in_turn=True,
        short="take turns",
    ),
    Duel(
        "redis",
        "the next index, round robin",
        _REDIS,
        'turns.get_server_index("primary", n)',
        _ROUND_ROBIN,
        "strategy.select(nodes)",
    ),
    Duel(
        "litellm",
        "choose a deployment, simple-shuffle",
        _LITELLM.replace("STRATEGY", "simple-shuffle"),
        _LITELLM_CALL,
        _NAMES + "import loadwise\nbalancer = loadwise.Balancer(names, loadwise.Random())\n",
        "balancer.pick()",
        ((0, 30.0),),
    ),
    Duel(
        "litellm",
        "choose a deployment, least-busy",
        _LITELLM.replace("STRATEGY", "least-busy"),
        _LITELLM_CALL,
        _NAMES
        + "import loadwise\nleast = loadwise.LeastLoad(load=loadwise.InFlight())\n"
        + "balancer = loadwise.Balancer(names, least)\n",
        "balancer.pick()",
        ((0, 30.0),),
        short="choose the least busy deployment",
    ),
    Duel(
        "limits",
        "reserve one request, moving window",
        _LIMITS,
        "limiter.hit(limit, node())",
        _QUOTA,
        "quota.try_acquire(node())",
        short="reserve one request of a quota",
    ),
)
