"""A fleet that is killed, frozen and reset under load, and comes back."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from threading import Lock
from typing import Any

import httpx2
import pytest

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    HealthStatus,
    HealthTracker,
    NoopCollector,
)
from loadwise.integrations.httpx2 import LoadwiseTransport

CLIENTS = 50
PROBE_INTERVAL = 0.5
DEADLINE = 60
# Beyond what fifty clients of one server wait for on a slow machine.
TIMEOUT = 3.0


class Journal(NoopCollector):
    """Remembers which state each chosen node was in, and every change of state."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.picks_by_state: Counter[tuple[object, HealthStatus]] = Counter()
        self.changes: list[tuple[object, HealthStatus]] = []
        self.health: HealthTracker | None = None

    def on_selection(self, node_id: object, strategy: str) -> None:
        assert self.health is not None
        state = self.health.status(str(node_id))
        with self.lock:
            self.picks_by_state[node_id, state] += 1

    def on_health_change(self, node_id: object, old: HealthStatus, new: HealthStatus) -> None:
        with self.lock:
            self.changes.append((node_id, new))

    def states(self, node_id: object, since: int = 0) -> list[HealthStatus]:
        """The states a node has gone through, from a mark on."""
        with self.lock:
            return [state for node, state in self.changes[since:] if node == node_id]

    def mark(self) -> int:
        """How many changes of state there have been."""
        with self.lock:
            return len(self.changes)

    def picks_while_down(self, node_id: object) -> int:
        """How often a node was chosen while UNHEALTHY: its probes."""
        with self.lock:
            return self.picks_by_state[node_id, HealthStatus.UNHEALTHY]


class Load:
    """Fifty clients that send without pause."""

    def __init__(self, transport: LoadwiseTransport, method: str) -> None:
        self.client = httpx2.Client(
            transport=transport, timeout=httpx2.Timeout(TIMEOUT, pool=30), base_url="http://service"
        )
        self.method = method
        self.ids = count()
        self.answered: set[str] = set()
        self.errors: list[BaseException] = []
        self.sent = 0
        self.lock = Lock()
        self.stop = False
        self.workers: list[Future[None]] = []

    def send(self) -> None:
        """Send one request and note what came of it."""
        identity = str(next(self.ids))
        try:
            response = self.client.request(self.method, "/work", headers={"X-Request-Id": identity})
            failure: Exception | None = None
            if response.status_code != 200:
                failure = AssertionError(response)
        except Exception as error:  # noqa: BLE001 - what came of it is what the test is about
            failure = error
        with self.lock:
            self.sent += 1
            if failure is None:
                self.answered.add(identity)
            else:
                self.errors.append(failure)

    def run(self) -> None:
        """Send until told to stop."""
        while not self.stop:
            self.send()

    def start(self, pool: ThreadPoolExecutor) -> None:
        """Send from fifty threads."""
        self.workers = [pool.submit(self.run) for _ in range(CLIENTS)]

    def end(self) -> None:
        """Stop sending; return once every request has an answer or an error."""
        self.stop = True
        for worker in self.workers:
            worker.result(DEADLINE)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Keep sending from this thread, too, until ``condition`` holds."""
        for _ in range(20_000):
            if condition():
                return
            self.send()
        pytest.fail(f"never came about: {what}")


@pytest.fixture
def load(request: pytest.FixtureRequest, upstreams: Callable[[int], list[Any]]) -> Iterator[Any]:
    """Four servers under steady load from fifty clients."""
    servers = upstreams(4)
    journal = Journal()
    policy = ConsecutiveFailurePolicy(failure_threshold=3, probe_interval=PROBE_INTERVAL)
    journal.health = HealthTracker(policy)
    balancer = Balancer(
        [server.address for server in servers], health=journal.health, metrics=journal
    )
    inner = httpx2.HTTPTransport(limits=httpx2.Limits(max_connections=None))
    load = Load(LoadwiseTransport(balancer, inner, max_attempts=4), request.param)
    with ThreadPoolExecutor(CLIENTS) as pool:
        load.start(pool)
        try:
            yield load, servers, balancer, journal
        finally:
            load.end()
            load.client.close()


def is_in(balancer: Balancer[str], server: Any, status: HealthStatus) -> Callable[[], bool]:
    """Return a condition: the server's node is in a state."""
    health = balancer.health
    assert health is not None
    return lambda: health.status(server.address) is status


def all_dead(balancer: Balancer[str], servers: list[Any]) -> bool:
    """Tell whether the nodes of all servers are UNHEALTHY, and none is ailing."""
    health = balancer.health
    assert health is not None
    ids = [server.address for server in servers]
    down = all(health.status(node_id) is HealthStatus.UNHEALTHY for node_id in ids)
    return down and not any(health.is_ailing(node_id, health.panic_window) for node_id in ids)


def break_three(load: Load, servers: list[Any], balancer: Balancer[str]) -> None:
    """Kill one server, freeze one, make one reset everything; wait until all are found out."""
    killed, frozen, resetting, _ = servers
    load.until(lambda: load.sent > 500, "500 requests")
    killed.kill()
    frozen.signal(signal.SIGSTOP)
    resetting.behave("reset")
    for server in (killed, frozen, resetting):
        load.until(
            is_in(balancer, server, HealthStatus.UNHEALTHY), f"{server.address} is found out"
        )


@pytest.mark.parametrize("load", ["GET"], indirect=True)
def test_idempotent_requests_survive_and_nodes_come_back_by_one_probe(load: Any) -> None:
    """With one of four nodes left no GET is lost; each restored node returns by one probe."""
    load, servers, balancer, journal = load
    killed, frozen, resetting, _ = servers
    break_three(load, servers, balancer)
    at_rest = load.sent
    load.until(lambda: load.sent > at_rest + 500, "500 requests to the one that is left")
    # While answers from before its end come in between failures, a node counts as ailing, and they
    # let it back for a moment.
    load.until(lambda: all_dead(balancer, servers[:3]), "three are known to be dead")

    mark = journal.mark()
    killed.start()
    frozen.signal(signal.SIGCONT)
    resetting.behave("")
    for server in (killed, frozen, resetting):
        load.until(is_in(balancer, server, HealthStatus.HEALTHY), f"{server.address} is back")
    assert load.errors == []
    for server in (killed, frozen, resetting):
        # Another thread may have made it healthy, and not yet told so.
        load.until(
            lambda server=server: HealthStatus.HEALTHY in journal.states(server.address, mark),
            "news",
        )
        back = [HealthStatus.RECOVERING, HealthStatus.HEALTHY]
        assert journal.states(server.address, mark) == back, "it was let back before it was well"
    served = {server.address: len(server.acted_on()) for server in servers}
    load.until(
        lambda: all(len(server.acted_on()) > served[server.address] + 50 for server in servers),
        "all four serve again",
    )
    assert load.errors == []


@pytest.mark.parametrize("load", ["POST"], indirect=True)
def test_posts_are_executed_at_most_once(load: Any) -> None:
    """No POST is acted on twice, and every caller gets an answer or an error."""
    load, servers, balancer, _ = load
    break_three(load, servers, balancer)
    servers[0].start()
    servers[1].signal(signal.SIGCONT)
    servers[2].behave("")
    at_rest = load.sent
    load.until(lambda: load.sent > at_rest + 500, "500 requests more")
    load.end()
    acted_on = Counter(identity for server in servers for identity in server.acted_on())
    assert max(acted_on.values()) == 1
    assert len(load.answered) > 500
    assert load.answered <= acted_on.keys()


@pytest.mark.parametrize("load", ["GET"], indirect=True)
def test_probes_of_a_dead_node_are_one_at_a_time(load: Any) -> None:
    """While a node is down, fifty clients together send it one probe per interval."""
    load, servers, balancer, journal = load
    killed = servers[0]
    load.until(lambda: load.sent > 200, "200 requests")
    killed.kill()
    load.until(is_in(balancer, killed, HealthStatus.UNHEALTHY), "it is found out")
    assert balancer.health is not None
    clock = balancer.health.clock
    # By the first probe all have noticed who chose it before it was found out.
    load.until(lambda: journal.picks_while_down(killed.address) >= 1, "a probe")
    began, before = clock(), journal.picks_while_down(killed.address)
    load.until(lambda: journal.picks_while_down(killed.address) >= before + 3, "three more")
    probes = journal.picks_while_down(killed.address) - before
    assert probes <= 1 + (clock() - began) / PROBE_INTERVAL
    assert load.errors == []
