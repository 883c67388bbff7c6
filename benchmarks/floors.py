"""The floor below each strategy: the same choice written out in one function, without checks.

A floor is called as ``select`` is, but knows that the nodes are those it was made for and that all
may be chosen. Its tables are local. It is what interpreted Python can do at best.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count, repeat
from math import log2
from random import Random, random

from benchmarks.fleets import Server
from xxhash import xxh64_intdigest

from loadwise import HealthTracker, NodeSet, SelectionContext
from loadwise.strategies._maglev_table import build as maglev_table
from loadwise.strategies._ring import build
from loadwise.strategies.weighted_random import alias_table
from loadwise.strategies.weighted_round_robin import smooth_cycle

__all__ = ["FLOORS", "Floor"]

Floor = Callable[[object, SelectionContext], int]


def _round_robin(servers: Sequence[Server]) -> Floor:
    size, turns = len(servers), count()

    def floor(_nodes: object, _context: SelectionContext) -> int:
        return next(turns) % size

    return floor


def _tier(servers: Sequence[Server], priority: int) -> list[int]:
    return [index for index, server in enumerate(servers) if server.priority == priority]


def _first_tier(servers: Sequence[Server]) -> Floor:
    indices, turns = _tier(servers, 0), count()
    size = len(indices)

    def floor(_nodes: object, _context: SelectionContext) -> int:
        return indices[next(turns) % size]

    return floor


def _split(servers: Sequence[Server]) -> Floor:
    draw = Random(1).random
    most, few = _tier(servers, 0), _tier(servers, 1)
    turns, others = count(), count()

    def floor(_nodes: object, _context: SelectionContext) -> int:
        if draw() * 100.0 < 95.0:  # noqa: PLR2004 - as the strategy's shares
            return most[next(turns) % len(most)]
        return few[next(others) % len(few)]

    return floor


def _weighted_round_robin(servers: Sequence[Server]) -> Floor:
    cycle = smooth_cycle(range(len(servers)), [server.weight for server in servers]) or ()
    length, turns = len(cycle), count()

    def floor(_nodes: object, _context: SelectionContext) -> int:
        return cycle[next(turns) % length]

    return floor


def _fair_schedule(servers: Sequence[Server]) -> Floor:
    total = sum(server.weight for server in servers)
    periods = [total / server.weight for server in servers]
    picks = [1.0 for _ in servers]  # floats, which are quicker to multiply with floats
    following: list[int | None] = [None for _ in servers]
    due, released = dict[int, int](), dict[int, int]()
    for index in reversed(range(len(servers))):
        deadline = int(periods[index])
        following[index] = due.get(deadline)
        due[deadline] = index
    deadlines = sorted(due)
    slot = 0

    def floor(_nodes: object, _context: SelectionContext) -> int:
        nonlocal slot
        slot += 1
        deadline = deadlines[0]
        served = due[deadline]
        after = following[served]
        if after is None:
            del due[heappop(deadlines)]
        else:
            due[deadline] = after
        if deadline < slot:  # noqa: PLR1730 - rounding; max() would be a call
            deadline = slot
        following[served] = released.get(deadline)
        released[deadline] = served
        index = released.pop(slot, None)
        while index is not None:
            after = following[index]
            picks[index] = pick = picks[index] + 1.0
            deadline = int(pick * periods[index])
            following[index] = other = due.get(deadline)
            due[deadline] = index
            if other is None:
                heappush(deadlines, deadline)
            index = after
        return served

    return floor


def _random(servers: Sequence[Server]) -> Floor:
    size = len(servers)

    def floor(_nodes: object, _context: SelectionContext) -> int:
        return int(random() * size)

    return floor


def _weighted_random(servers: Sequence[Server]) -> Floor:
    size = len(servers)
    keep, alias = alias_table([server.weight for server in servers])

    def floor(_nodes: object, _context: SelectionContext) -> int:
        point = random() * size
        cell = int(point)
        return cell if point - cell < keep[cell] else alias[cell]

    return floor


def _two_choices_own_load(servers: Sequence[Server]) -> Floor:
    size, fewer = len(servers), len(servers) - 1

    def floor(_nodes: object, _context: SelectionContext) -> int:
        first, second = int(random() * size), int(random() * fewer)
        if second >= first:
            second += 1
        return second if servers[second].load_score() < servers[first].load_score() else first

    return floor


def _two_choices_in_flight(servers: Sequence[Server]) -> Floor:
    size, fewer = len(servers), len(servers) - 1
    cells: list[list[None]] = [[] for _ in servers]

    def floor(_nodes: object, _context: SelectionContext) -> int:
        first, second = int(random() * size), int(random() * fewer)
        if second >= first:
            second += 1
        return second if len(cells[second]) < len(cells[first]) else first

    return floor


def _two_choices_peak_ewma(servers: Sequence[Server]) -> Floor:
    size, fewer = len(servers), len(servers) - 1
    cells: list[list[None]] = [[] for _ in servers]
    scores = [0.0 for _ in servers]
    logs = [log2(pending + 1) for pending in range(256)]

    def floor(_nodes: object, _context: SelectionContext) -> int:
        first, second = int(random() * size), int(random() * fewer)
        if second >= first:
            second += 1
        if scores[second] + logs[len(cells[second])] < scores[first] + logs[len(cells[first])]:
            return second
        return first

    return floor


def _ring(servers: Sequence[Server]) -> Floor:
    names = [f"{server.id}_" for server in servers]
    median = sorted(server.weight for server in servers)[(len(servers) - 1) // 2]
    ring = build(names, [round(160 * server.weight / median) for server in servers])
    points, shift = ring.points, ring.shift
    # The end, which nobody owns, goes on at the first point. Owners are numbered from 1.
    owners = array("I", [(owner or ring.owners[0]) - 1 for owner in ring.owners])

    def floor(_nodes: object, context: SelectionContext) -> int:
        hashed = xxh64_intdigest(context.hash_key.encode())  # type: ignore[union-attr]  # all are str
        position = hashed >> shift
        while points[position] < hashed:
            position += 1
        return owners[position]

    return floor


def _maglev(servers: Sequence[Server]) -> Floor:
    cells = maglev_table(NodeSet(servers), 65_537).cells
    size = len(cells)

    def floor(_nodes: object, context: SelectionContext) -> int:
        return cells[xxh64_intdigest(context.hash_key.encode()) % size]  # type: ignore[union-attr]  # all are str

    return floor


def _rendezvous(servers: Sequence[Server]) -> Floor:
    seeds = [xxh64_intdigest(server.id.encode()) for server in servers]

    def floor(_nodes: object, context: SelectionContext) -> int:
        hashed = xxh64_intdigest(context.hash_key.encode())  # type: ignore[union-attr]  # all are str
        draws = list(map(xxh64_intdigest, repeat(hashed.to_bytes(8, "little")), seeds))
        return draws.index(max(draws))

    return floor


def _jump(servers: Sequence[Server]) -> Floor:
    size = len(servers)

    def floor(_nodes: object, context: SelectionContext) -> int:
        key = xxh64_intdigest(context.hash_key.encode())  # type: ignore[union-attr]  # all are str
        place, following = -1, 0
        while following < size:
            place = following
            key = (key * 2862933555777941757 + 1) & 0xFFFFFFFFFFFFFFFF
            following = int((place + 1) * (2147483648.0 / ((key >> 33) + 1)))
        return place

    return floor


def _filtered(servers: Sequence[Server]) -> Floor:
    size, turns = len(servers), count()
    health = HealthTracker()
    version = health.version

    def floor(_nodes: object, _context: SelectionContext) -> int:
        return next(turns) % size if health.version == version else -1

    return floor


def _least_own_load(servers: Sequence[Server]) -> Floor:
    size = len(servers)

    def floor(_nodes: object, _context: SelectionContext) -> int:
        values = [server.load_score() for server in servers]
        lowest = min(values)
        ties = values.count(lowest)
        if ties == 1:
            return values.index(lowest)
        if ties == size:
            return int(random() * size)
        tied = [index for index, value in enumerate(values) if value == lowest]
        return tied[int(random() * ties)]

    return floor


def _least_in_flight(servers: Sequence[Server]) -> Floor:
    size = len(servers)
    cells: list[list[None]] = [[] for _ in servers]

    def floor(_nodes: object, _context: SelectionContext) -> int:
        values = list(map(len, cells))
        lowest = min(values)
        ties = values.count(lowest)
        if ties == 1:
            return values.index(lowest)
        if ties == size:
            return int(random() * size)
        tied = [index for index, value in enumerate(values) if value == lowest]
        return tied[int(random() * ties)]

    return floor


def _most_available(servers: Sequence[Server]) -> Floor:
    size = len(servers)

    def floor(_nodes: object, _context: SelectionContext) -> int:
        values = [server.remaining() for server in servers]
        highest = max(values)
        ties = values.count(highest)
        if ties == 1:
            return values.index(highest)
        if ties == size:
            return int(random() * size)
        tied = [index for index, value in enumerate(values) if value == highest]
        return tied[int(random() * ties)]

    return floor


FLOORS: dict[str, Callable[[Sequence[Server]], Floor]] = {
    "RoundRobin": _round_robin,
    "WeightedRoundRobin": _weighted_round_robin,
    "WeightedRoundRobin, float weights": _fair_schedule,
    "Random": _random,
    "WeightedRandom": _weighted_random,
    "PowerOfTwoChoices, own load": _two_choices_own_load,
    "PowerOfTwoChoices, InFlight": _two_choices_in_flight,
    "PowerOfTwoChoices, PeakEwma": _two_choices_peak_ewma,
    "ConsistentHash": _ring,
    "Maglev": _maglev,
    "Rendezvous": _rendezvous,
    "JumpHash": _jump,
    "Filtered by health, RoundRobin": _filtered,
    "WithFallback, RoundRobin": _round_robin,
    "FallbackChain, RoundRobin": _round_robin,
    "Tiers, RoundRobin": _first_tier,
    "Zones, RoundRobin": _first_tier,  # the local zone has the same nodes
    "Split, RoundRobin": _split,
    "LeastLoad, own load": _least_own_load,
    "LeastLoad, InFlight": _least_in_flight,
    "MostAvailable": _most_available,
}
"""What makes the floor below each rule, by the rule's name."""
