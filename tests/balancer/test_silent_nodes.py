"""A node that falls silent is left alone by peak EWMA, and comes back once it answers again."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from functools import partial
from math import log
from typing import Any

import pytest

from loadwise import Balancer, Lease, LeastLoad, PeakEwma, PowerOfTwoChoices
from loadwise.testing import ManualClock

RATE, USUAL, SILENT = 100.0, 0.02, 0
"""100 requests/s to four nodes that take 20 ms, give or take; one of them falls silent."""
FALLS, ANSWERS = 10.0, 130.0


class Fleet:
    """Four nodes in virtual time, of which one does not answer between two moments.

    Requests that it holds when it answers again are answered at once. Those that came before it
    fell silent and are not answered yet are held as well.
    """

    def __init__(
        self, strategy: type[Any], tau: float, clients: int, patience: float | None
    ) -> None:
        self.clock = ManualClock()
        self.patience = patience
        self.balancers = [
            Balancer(
                range(4),
                strategy(load=PeakEwma(tau=tau), rng=random.Random(client)),
                clock=self.clock,
                health=False,
            )
            for client in range(clients)
        ]
        self.rng = random.Random(17)
        self.leases: list[Lease[int]] = []
        self.picks: list[tuple[float, int]] = []
        self.events: list[tuple[float, int, Callable[[], object]]] = []
        self.held: list[tuple[float, Lease[int]]] = []
        self.number = 0

    def at(self, moment: float, what: Callable[[], object]) -> None:
        """Have something done at a moment."""
        self.number += 1
        heapq.heappush(self.events, (moment, self.number, what))

    def run(self, end: float) -> float:
        """Let time pass until ``end``; return the longest wait at the silent node."""
        waits = [0.0]

        def wake() -> None:
            waits.extend(ANSWERS - began for began, lease in self.held if lease.outcome is None)
            for _, lease in self.held:
                lease.success()

        self.at(0.0, self.arrive)
        self.at(ANSWERS, wake)
        while self.events[0][0] <= end:
            moment, _, what = heapq.heappop(self.events)
            self.clock.advance(moment - self.clock())
            what()
        for lease in self.leases:
            lease.cancel()
        return max(waits)

    def arrive(self) -> None:
        """Send a request, and see to the next."""
        now = self.clock()
        self.at(now + self.rng.expovariate(RATE), self.arrive)
        lease = self.rng.choice(self.balancers).acquire()
        self.leases.append(lease)
        self.picks.append((now, lease.node))
        takes = self.rng.uniform(0.5, 1.5) * USUAL
        self.at(now + takes, lambda: self.answer(now, lease))
        if self.patience is not None:
            self.at(now + self.patience, lease.cancel)

    def answer(self, began: float, lease: Lease[int]) -> None:
        """Answer a request, unless its node is silent."""
        if lease.node == SILENT and FALLS <= self.clock() < ANSWERS:
            self.held.append((began, lease))
        else:
            lease.success()

    def share(self, since: float, until: float) -> float:
        """Return the silent node's share of the picks between two moments."""
        nodes = [node for moment, node in self.picks if since <= moment < until]
        return nodes.count(SILENT) / len(nodes)


@pytest.mark.parametrize("patience", [None, 1.0])
@pytest.mark.parametrize(("tau", "clients"), [(1.0, 8), (10.0, 1), (10.0, 8)])
@pytest.mark.parametrize("strategy", [PowerOfTwoChoices, LeastLoad])
def test_a_silent_node_is_left_alone_and_comes_back(
    strategy: type[Any], tau: float, clients: int, patience: float | None
) -> None:
    """It gets at most 12 % in any 10 s from 10 s on, and 15 % once the longest wait has faded.

    The cost that its late answers leave comes down to the usual latency in tau * ln(longest wait /
    usual latency); two tau more are granted. A share of 15 % or less of 2,000 picks by chance,
    where a quarter is due and the share in each second varies by a tenth, is beyond 6 sigma.
    """
    fleet = Fleet(strategy, tau, clients, patience)
    longest = 120.0 if patience is None else patience
    due = ANSWERS + tau * (log(longest / USUAL) + 2)
    waited = fleet.run(due + 20.0)
    assert waited <= longest + 2 * USUAL
    begins = range(int(FALLS + 10), int(ANSWERS - 10) + 1)
    assert max(fleet.share(begin, begin + 10.0) for begin in begins) <= 0.12
    assert fleet.share(due, due + 20.0) >= 0.15
    assert fleet.share(0.0, FALLS) >= 0.15


@pytest.mark.parametrize("strategy", [PowerOfTwoChoices, LeastLoad])
def test_a_newcomer_that_never_answers_is_given_up(strategy: type[Any]) -> None:
    """A node that joins and hangs costs eight clients a request each, and then next to nothing."""
    fleet = Fleet(strategy, 10.0, 8, 1.0)
    for balancer in fleet.balancers:
        balancer.remove(SILENT)
        fleet.at(FALLS, partial(balancer.add, SILENT))
    fleet.run(FALLS + 30.0)
    assert fleet.share(FALLS, FALLS + 30.0) * RATE * 30.0 <= 12


def test_streams_do_not_look_silent() -> None:
    """Nodes whose answers have begun are as good as any, however long the answers go on."""
    clock, measure = ManualClock(), PeakEwma()
    strategy: LeastLoad[str] = LeastLoad(load=measure, rng=random.Random(3))
    balancer = Balancer(list("ab"), strategy, clock=clock)
    for excluded in "ab":
        with balancer.acquire(exclude=[excluded]):
            clock.advance(0.02)
    streams = []
    for number in range(200):
        lease = balancer.acquire()
        clock.advance(0.02)
        lease.first_byte()
        clock.advance(1.0)
        streams.append(lease)
        counts = [len(measure.cell(node)) for node in "ab"]
        assert sum(counts) == number + 1
    assert max(measure.load(measure.cell(node)) for node in "ab") < 0.02 * 201
    assert not any(measure.waiting(measure.cell(node)) for node in "ab")
    for lease in streams:
        lease.success()
