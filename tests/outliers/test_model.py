"""Outlier ejection against a plain model: Envoy's algorithm, swept by whoever comes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, pstdev

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from tests.outliers.fleet import OutlierFleet

from loadwise import FailureShare, SuccessRate

NAMES = "abcdef"
INTERVAL, BASE, MOST, MAX_EJECTED, LONGEST = 10.0, 20.0, 50.0, 0.4, 4
FACTOR, THRESHOLD, NODES, REQUESTS = 1.1, 0.7, 3, 4
TIMES = st.sampled_from([0.0, 0.5, 5.0, 9.5, 10.0, 20.0, 35.0, 200.0])


@dataclass
class Modelled:
    """One member, as the model sees it."""

    good: int = 0
    bad: int = 0
    run: int = 0
    count: int = 0
    back: float | None = None
    until: float | None = None


@dataclass
class EnvoyModel:
    """The algorithm as plainly as can be: every tick of the timer is gone through."""

    nodes: dict[str, Modelled]
    tick: float = 0.0

    @property
    def out(self) -> dict[str, float]:
        """Who is ejected, and until when."""
        return {name: n.until for name, n in self.nodes.items() if n.until is not None}

    def result(self, name: str, now: float, *, good: bool) -> None:
        """One request ends."""
        node = self.nodes[name]
        if node.until is not None:
            return
        if good:
            node.good, node.run = node.good + 1, 0
            return
        node.bad, node.run = node.bad + 1, node.run + 1
        if node.run == LONGEST:
            node.run = 0
            self.eject(name, now)

    def eject(self, name: str, now: float) -> None:
        """Eject a node, if no more are out than may be."""
        node = self.nodes[name]
        if node.until is not None or (self.out and len(self.out) / len(self.nodes) >= MAX_EJECTED):
            return
        if node.count * BASE < MOST + BASE:
            node.count += 1
        node.until = now + min(node.count * BASE, MOST)

    def sweep(self, now: float) -> None:
        """Sweep once if a tick of the timer has passed, however many have."""
        if now < self.tick + INTERVAL:
            return
        ticks = list[float]()
        while self.tick + INTERVAL <= now:
            self.tick += INTERVAL
            ticks.append(self.tick)
        self.let_back(now)
        volume = {
            name: (n.good, n.good + n.bad)
            for name, n in self.nodes.items()
            if n.until is None and n.good + n.bad >= REQUESTS
        }
        for node in self.nodes.values():
            node.good = node.bad = 0
        if len(volume) >= NODES:
            self.judge(volume, now)
        for node in self.nodes.values():
            if node.until is None and node.back is not None:
                well = sum(tick - node.back >= INTERVAL for tick in ticks)
                node.count = max(0, node.count - well)

    def let_back(self, now: float) -> None:
        """End what is over."""
        for node in self.nodes.values():
            if node.until is not None and node.until <= now:
                in_time = math.ceil(node.until / INTERVAL) * INTERVAL
                node.back, node.until = min(in_time, now), None
                node.good = node.bad = node.run = 0

    def judge(self, volume: dict[str, tuple[int, int]], now: float) -> None:
        """Eject outliers, the worst first."""
        rates = {name: 100.0 * good / total for name, (good, total) in volume.items()}
        below = fmean(rates.values()) - FACTOR * pstdev(rates.values())
        worst = sorted(rates, key=lambda name: rates[name])
        for name in worst:
            if rates[name] < below:
                self.eject(name, now)
        for name in worst:
            good, total = volume[name]
            if (total - good) / total >= THRESHOLD:
                self.eject(name, now)


class EjectionMachine(RuleBasedStateMachine):
    """Results, members and time in any order, in a balancer and in the model."""

    @initialize()
    def begin(self) -> None:
        """Make both."""
        self.fleet = OutlierFleet(
            NAMES,
            interval=INTERVAL,
            base_ejection=BASE,
            max_ejection=MOST,
            max_ejected=MAX_EJECTED,
            consecutive_failures=LONGEST,
            success_rate=SuccessRate(FACTOR, NODES, REQUESTS),
            failure_share=FailureShare(THRESHOLD, NODES, REQUESTS),
            significance=None,
            probe=False,
        )
        self.model = EnvoyModel({name: Modelled() for name in NAMES})

    @rule(name=st.sampled_from(NAMES), good=st.booleans(), number=st.integers(1, 6))
    def results(self, name: str, good: bool, number: int) -> None:  # noqa: FBT001 - drawn
        """Some requests to a node end alike."""
        if name in self.model.nodes:
            self.fleet.load(name, **{"good" if good else "bad": number})
            for _ in range(number):
                self.model.result(name, self.fleet.clock(), good=good)

    @rule(seconds=TIMES)
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.fleet.clock.advance(seconds)
        self.model.sweep(self.fleet.clock())

    @rule(name=st.sampled_from(NAMES), times=st.integers(1, 6))
    def relapse(self, name: str, times: int) -> None:
        """A node is ejected again and again, each time as soon as it is back."""
        for _ in range(times):
            self.results(name, good=False, number=LONGEST)
            until = self.model.out.get(name, self.fleet.clock())
            self.wait(math.ceil(until / INTERVAL) * INTERVAL - self.fleet.clock())
            self.both_agree()

    @rule(name=st.sampled_from(NAMES))
    def leave_or_come(self, name: str) -> None:
        """A member leaves, and one that has left comes back as new."""
        if name not in self.model.nodes:
            self.fleet.balancer.add(name)
            self.model.nodes[name] = Modelled()
        elif len(self.model.nodes) > 1:
            self.fleet.balancer.remove(name)
            del self.model.nodes[name]

    @invariant()
    def both_agree(self) -> None:
        """The same nodes are out, until the same time, and nobody else is down."""
        ejections = self.fleet.detection.ejections
        assert {name: each.until for name, each in ejections.items()} == self.model.out
        for name, each in ejections.items():
            assert each.count == self.model.nodes[str(name)].count
        assert self.fleet.down == self.fleet.out


def test_any_story_goes_as_in_the_model() -> None:
    """Any mix of results, members and time ejects whom Envoy's algorithm ejects, as long."""
    run_state_machine_as_test(
        EjectionMachine,
        settings=settings(max_examples=150, stateful_step_count=40, deadline=None),
    )
