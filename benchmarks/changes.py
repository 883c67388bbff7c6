"""What is worked out once: sets, rings and tables; and what a change of the fleet costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

from benchmarks.fleets import Server, servers
from benchmarks.grid import by_size
from benchmarks.model import Result, Scale
from benchmarks.timing import Case, calls, measure

from loadwise import (
    Balancer,
    ConsecutiveFailurePolicy,
    ConsistentHash,
    HealthTracker,
    NodeSet,
    WeightedRandom,
    WeightedRoundRobin,
)
from loadwise.testing import ManualClock

__all__ = ["building", "changes"]


def building(scale: Scale) -> Result:
    """Time what a new membership costs, part by part."""
    cases = (case for size in scale.sizes for case in _parts(size))
    note = "Tables are built by `prepare`, for nodes never seen before; weights are 1, 2 and 3."
    found = measure("building", cases, scale)
    return by_size(found, scale, "Building, once per membership", first="what", note=note)


def changes(scale: Scale) -> Result:
    """Time changes, each with the pick that notices it."""
    cases = (case for size in scale.sizes for case in _changes(size))
    note = "Two changes and two picks: the fleet stays as large, and as healthy, as it was."
    found = measure("changes", cases, scale)
    return by_size(found, scale, "Changes of a running balancer", first="what", note=note)


def _parts(size: int) -> Iterator[Case]:
    nodes = servers(size)
    # The ring's points do not depend on these nodes' weights, so they are of equal weight.
    alike = NodeSet([node.id for node in nodes])
    weighted = NodeSet(nodes)

    def case(row: str, function: Callable[[], object]) -> Case:
        return Case(row, str(size), calls(function))

    yield case("`NodeSet(nodes)`", partial(NodeSet, nodes))
    yield case("ring, 160 points a node", partial(_prepare, ConsistentHash, alike))
    yield case("cycle of a weighted round robin", partial(_prepare, WeightedRoundRobin, weighted))
    yield case("alias table of a weighted random", partial(_prepare, WeightedRandom, weighted))
    yield case("`Balancer(nodes)`", partial(Balancer, nodes))


def _prepare(
    kind: type[ConsistentHash[object] | WeightedRoundRobin[object] | WeightedRandom[object]],
    nodes: NodeSet[object],
) -> None:
    kind().prepare(nodes)


def _changes(size: int) -> Iterator[Case]:
    for name, make in (("default", None), ("ring", ConsistentHash[Server])):
        nodes = servers(size)
        balancer = Balancer(nodes, None if make is None else make())
        yield Case(
            f"a node comes, the oldest leaves, {name}",
            str(size),
            calls(partial(_come_and_leave, balancer, count(size))),
        )
        policy = ConsecutiveFailurePolicy(failure_threshold=1, recovery_successes=1)
        clock = ManualClock()
        health = HealthTracker(policy, clock)
        balancer = Balancer(nodes, None if make is None else make(), health=health, clock=clock)
        for row, change in (
            ("a node goes down and recovers", partial(_flap, balancer, health, nodes[-1].id)),
            ("a node is drained and back", partial(_drain, balancer, nodes[size // 2].id)),
            ("a node is on cooldown and back", partial(_cool_down, balancer, clock)),
        ):
            yield Case(f"{row}, {name}", str(size), calls(change))


def _come_and_leave(balancer: Balancer[Server], numbers: Iterator[int]) -> None:
    # Never a membership that was there before, whose tables might be kept.
    balancer.add(Server(next(numbers)))
    balancer.pick(hash_key=1)
    balancer.remove(balancer.nodes[0].id)
    balancer.pick(hash_key=1)


def _flap(balancer: Balancer[Server], health: HealthTracker, identity: str) -> None:
    health.report_failure(identity)
    balancer.pick(hash_key=1)
    health.report_success(identity)
    balancer.pick(hash_key=1)


def _drain(balancer: Balancer[Server], identity: str) -> None:
    balancer.drain(identity)
    balancer.pick(hash_key=1)
    balancer.resume(identity)
    balancer.pick(hash_key=1)


def _cool_down(balancer: Balancer[Server], clock: ManualClock) -> None:
    balancer.acquire(hash_key=1).rate_limited(1.0)
    balancer.pick(hash_key=1)
    clock.advance(2.0)
    balancer.pick(hash_key=1)
