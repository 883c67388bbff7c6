"""Simulation of one run: the real balancers, in virtual time."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random

from loadwise._log import hushed
from loadwise._numbers import whole
from loadwise._tables.contenders import Contender, Recipe, contender
from loadwise._tables.parts import given, health_tracker
from loadwise.balancer import Balancer
from loadwise.health import HealthStatus
from loadwise.metrics import NoopCollector
from loadwise.quota import QuotaConfig, QuotaDimension, QuotaTracker
from loadwise.shared_memory.virtual_host import VirtualProcess
from loadwise.simulation.runs.members import (
    engine_of,
    hosts_of,
    outlier_detection,
    seat_of,
    slow_start,
    subset,
    zone_of,
)
from loadwise.simulation.runs.result import Ended, Result, result_of
from loadwise.simulation.scenario import (
    Conversations,
    Group,
    PromptTrace,
    Quota,
    Scenario,
    Tokens,
    Trace,
)
from loadwise.simulation.scenario.consistency import check_faults, check_strategy, validated
from loadwise.simulation.scenario.fleet import ids_of, server_groups
from loadwise.simulation.world.attempt import SimulatedRequest
from loadwise.simulation.world.client import Client
from loadwise.simulation.world.faults import plan_faults
from loadwise.simulation.world.loop import Loop
from loadwise.simulation.world.network import Delays
from loadwise.simulation.world.recorder import Recorder
from loadwise.simulation.world.server import Server
from loadwise.simulation.world.timeline import HealthChange
from loadwise.simulation.world.workload import Workload

__all__ = ["simulate"]


def simulate(scenario: Scenario, strategy: Recipe = "p2c", seed: int = 1) -> Result:
    """Run a scenario once, with one strategy, in virtual time.

    The strategy, the balancer, health tracking, quotas and the retry budget are the very code that
    ships; only the clock is turned by the simulator. The same arguments give the same result.

    Args:
        scenario: What to simulate.
        strategy: A name such as ``"p2c"`` (see `STRATEGIES`), a strategy class, or a function
            without arguments that makes a strategy; one is made for each client.
        seed: Seed of all chance, >= 0. Runs with the same seed are given the same requests,
            whatever the strategy.

    Returns:
        What came of it.

    Raises:
        ScenarioError: The scenario has a value that is out of range or contradicts itself, its
            trace cannot be read, or there is no such strategy.
        TypeError: An argument is of the wrong kind, or the strategy needs what servers lack.
        ConservationError: The simulator lost count: a bug, to be reported.

    Thread-safety: runs share nothing.

    Cost: some microseconds per request; 8 bytes of memory per completed request.
    """
    scenario = validated(scenario)
    seed = whole("seed", seed, 0)
    if isinstance(strategy, str):
        check_strategy(scenario, strategy)
    began = time.perf_counter()
    # What becomes of a made-up fleet is for the result to say, and not for the log.
    with hushed():
        run = _SimulationRun(scenario, contender(strategy), seed)
        run.play()
        return result_of(run.end(), time.perf_counter() - began)


class _SimulationRun:
    """One run, with objects of its own."""

    def __init__(self, scenario: Scenario, who: Contender, seed: int) -> None:
        self._scenario = scenario
        self._who = who
        self._seed = seed
        self._loop = Loop()
        self._servers: dict[str, Server] = {}
        self._members: list[Server] = []
        self._drained: list[str] = []
        self._limits = self._quotas(scenario.quotas, 1)
        self._workload = Workload(scenario, seed)
        seconds = self._workload.seconds
        if isinstance(scenario.arrivals, Trace | PromptTrace):
            # How long it is, is known only now.
            check_faults(scenario, seconds)
        self._recorder = Recorder(self._loop, self._servers, seconds)
        for group in server_groups(scenario):
            self._make_servers(group)
        self._clients: list[Client] = []
        self._generation = 0
        self._last_arrival = 0.0
        self._start_clients()
        self._recorder.marks.extend(plan_faults(scenario, self, self._loop, seconds))

    def play(self) -> None:
        """Let all requests come, and end."""
        loop, recorder, scenario = self._loop, self._recorder, self._scenario
        warm = int(self._workload.requests * scenario.warmup)
        choose = self._chooser()
        costs, prompts = bool(scenario.quotas), self._workload.prompts
        for number, (at, work, key, tokens) in enumerate(self._workload):
            loop.advance(at)
            if number == warm:
                recorder.warm()
            request: SimulatedRequest[Server] = SimulatedRequest(at, work, key)
            if prompts is not None:
                request.prompt = next(prompts)
            if costs:
                self._price(request, tokens)
            choose().send(request)
        self._last_arrival = loop.now
        loop.finish()

    def _chooser(self) -> Callable[[], Client]:
        """Return what gives the client that the next request comes to."""
        count, stagger = self._scenario.clients.count, self._scenario.clients.stagger
        # Clients are replaced in place when they are restarted.
        clients = self._clients
        if count == 1:
            return lambda: clients[0]
        random = Random(f"{self._seed}/clients").random
        if not stagger:
            return lambda: clients[int(random() * count)]
        loop = self._loop

        def clients_up() -> int:
            return count if loop.now >= stagger else 1 + int(loop.now / stagger * count)

        return lambda: clients[int(random() * clients_up())]

    def _start_clients(self) -> None:
        scenario = self._scenario
        distant = bool(scenario.network.delay or scenario.network.pairs)
        block_tokens = scenario.servers.llm.block_tokens if scenario.servers.kind == "llm" else None
        self._clients[:] = [
            Client(
                self._loop,
                self._balancer(number, host),
                scenario.callers,
                Delays(scenario.network, zone_of(scenario, number)) if distant else None,
                self._recorder,
                block_tokens,
            )
            for number, host in enumerate(hosts_of(scenario, self._loop.clock))
        ]

    def _balancer(self, number: int, host: VirtualProcess | None) -> Balancer[Server]:
        scenario, clock = self._scenario, self._loop.clock
        rng = Random(f"{self._seed}/{number}/{self._generation}")
        tracker = None
        if scenario.health.enabled and self._who.health:
            tracker = health_tracker(
                scenario.health,
                clock,
                Random(f"{self._seed}/{number}/{self._generation}/probes"),
            )
            tracker.subscribe(self._listener(number))
        known = tuple(quota for quota in scenario.quotas if quota.aware)
        outliers = outlier_detection(
            scenario, self._who, Random(f"{self._seed}/{number}/{self._generation}/outliers")
        )
        balancer = Balancer(
            self._members,
            self._who.make(seat_of(scenario, number, rng)),
            health=tracker,
            panic_threshold=given(scenario.health.panic_threshold),
            panic_window=scenario.health.panic_window,
            quota=self._quotas(known, scenario.clients.count),
            metrics=self._events(number) if tracker is not None or outliers is not None else None,
            clock=clock,
            name=f"client {number}",
            max_in_flight=scenario.limits.max_in_flight,
            outliers=outliers,
            slow_start=slow_start(scenario, self._who),
            subset=subset(scenario, number),
            host=host,
        )
        for identity in self._drained:
            balancer.drain(identity)
        return balancer

    def _listener(self, client: int) -> Callable[[object, HealthStatus, HealthStatus], None]:
        loop, changes, generation = self._loop, self._recorder.health, self._generation

        def listen(identity: object, old: HealthStatus, new: HealthStatus) -> None:
            if self._generation != generation:
                return  # a client that is gone learns how its last requests end
            changes.append(
                HealthChange(loop.now, client, str(identity), str(old.name), str(new.name))
            )

        return listen

    def _events(self, client: int) -> _Events:
        generation, recorder = self._generation, self._recorder

        def panic(entered: bool) -> None:  # noqa: FBT001 - as the collector's
            if self._generation == generation:
                recorder.panic(client, entered=entered)

        def ejection(*_: object) -> None:
            recorder.ejections += 1

        return _Events(panic, ejection)

    def _quotas(self, quotas: tuple[Quota, ...], parts: int) -> QuotaTracker | None:
        """Return a tracker of one part of the quotas, for all servers that there are."""
        if not quotas:
            return None
        tracker = QuotaTracker(self._loop.clock)
        for server in self._members:
            tracker.register(server.id, _config(quotas, parts))
        return tracker

    def _price(self, request: SimulatedRequest[Server], tokens: tuple[float, float] | None) -> None:
        """Say what a request is expected to use of the quotas, and what it will use."""
        service, prompt = self._scenario.service, request.prompt
        if prompt is not None:
            tokens = (prompt.tokens, prompt.output)
        expected, true = {}, {}
        for quota in self._scenario.quotas:
            amount = guess = 1.0
            if (
                quota.counts == "tokens"
                and tokens is not None
                and isinstance(service, Tokens | Conversations)
            ):
                # A caller knows its prompt, and of the answer only how long answers are.
                amount, guess = sum(tokens), tokens[0] + service.output
            true[quota.name] = min(amount, quota.limit)
            if quota.aware:
                expected[quota.name] = min(guess, quota.limit / self._scenario.clients.count)
        request.true_cost = true
        request.cost = expected or None

    def server(self, id: str) -> Server:  # noqa: A002 - the name of the thing everywhere else
        """Return a server by its id."""
        return self._servers[id]

    def _make_servers(self, group: Group) -> list[Server]:
        whole = self._scenario.servers
        made = [
            Server(
                identity,
                group,
                self._loop,
                whole.cache,
                whole.cached,
                self._limits,
                Random(f"{self._seed}/{identity}"),
                engine=engine_of(whole, group, self._loop),
            )
            for identity in ids_of(group)
        ]
        for server in made:
            self._servers[server.id] = server
            self._members.append(server)
            if self._limits is not None:
                self._limits.register(server.id, _config(self._scenario.quotas, 1))
        return made

    def join(self, group: Group) -> None:
        """Have servers join the fleet."""
        for server in self._make_servers(group):
            for client in self._clients:
                self._introduce(client.balancer, server)

    def _introduce(self, balancer: Balancer[Server], server: Server) -> None:
        quota = balancer.quota
        if isinstance(quota, QuotaTracker):
            known = tuple(each for each in self._scenario.quotas if each.aware)
            quota.register(server.id, _config(known, self._scenario.clients.count))
        balancer.add(server)

    def drain(self, ids: tuple[str, ...]) -> None:
        """Have servers finish what they have and leave."""
        self._drained += ids
        for client in self._clients:
            for identity in ids:
                client.balancer.drain(identity)

    def restart_clients(self) -> None:
        """Restart all clients; what they have under way is lost."""
        self._generation += 1
        self._recorder.calm(self._loop.now)
        for client in self._clients:
            client.leave()
        self._start_clients()

    def end(self) -> Ended:
        """Give up what has no end yet, and return what is left of the run."""
        return Ended(
            scenario=self._scenario,
            strategy=self._who.name,
            seed=self._seed,
            recorder=self._recorder,
            servers=self._servers.values(),
            arrived=self._workload.requests,
            in_flight=self._end_in_flight(),
            last_arrival=self._last_arrival,
        )

    def _end_in_flight(self) -> int:
        """Give up what has not ended, and return how many requests it was."""
        found = [held for server in self._servers.values() for held in server.held()]
        for attempt in found:
            attempt.lease.cancel()
        return len({id(attempt.request) for attempt in found if not attempt.request.over})


class _Events(NoopCollector):
    """Passes on panics and ejections, and nothing else."""

    def __init__(
        self, panic: Callable[[bool], None], ejection: Callable[[object, object], None]
    ) -> None:
        self.on_panic = panic
        self.on_ejection = ejection


def _config(quotas: tuple[Quota, ...], parts: int) -> QuotaConfig:
    return QuotaConfig(
        QuotaDimension(quota.name, limit=quota.limit / parts, window=quota.window, default_cost=0)
        for quota in quotas
    )
