"""Picks while the fleet changes all the time: what they take, whom they choose, how evenly.

``python -m benchmarks.churn`` changes 10,000 nodes 500 times a second, while four threads pick for
20 seconds; then the same threads pick beside a balancer that nobody changes.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections import deque
from dataclasses import dataclass, field
from random import Random
from threading import Event, Thread
from time import monotonic, perf_counter, sleep

from loadwise import Balancer, ConsecutiveFailurePolicy, HealthTracker

__all__ = ["Churn", "Found", "run"]

_ERROR_PROBABILITY = 1e-6
_AT_ONCE = 10
"""How many nodes are down at a time, and how many are drained."""
_PICKS_A_LOOK = 20


@dataclass(frozen=True)
class Churn:
    """How much changes, and how much is picked.

    Attributes:
        nodes: How many nodes there are.
        changes: How many changes a second; 0 for none.
        threads: How many threads pick.
        seconds: For how long.
        seed: Of what is changed when.
    """

    nodes: int = 10_000
    changes: float = 500.0
    threads: int = 4
    seconds: float = 20.0
    seed: int = 1


@dataclass
class Found:
    """What came of it.

    Attributes:
        picks: How often the nodes that were there all the time were picked, each.
        seconds: What picks took; a sample.
        changes: How many changes were made.
        late: Nodes picked by a pick that began after they had left or been drained.
        errors: What was raised.
    """

    picks: dict[int, int] = field(default_factory=dict[int, int])
    seconds: list[float] = field(default_factory=list[float])
    changes: int = 0
    late: list[int] = field(default_factory=list[int])
    errors: list[str] = field(default_factory=list[str])

    def chi_squared(self) -> float:
        """Return how uneven the picks are: 1 on average for even draws, below 1 for P2C."""
        mean = statistics.fmean(self.picks.values())
        total = sum((count - mean) ** 2 for count in self.picks.values())
        return total / mean / (len(self.picks) - 1)

    def bound(self) -> float:
        """Return what `chi_squared` exceeds with a probability below 1e-6 for even draws.

        Source: E. B. Wilson, M. M. Hilferty, "The distribution of chi-square", PNAS 17, 1931.
        """
        spread = 2 / (9 * (len(self.picks) - 1))
        quantile = statistics.NormalDist().inv_cdf(1 - _ERROR_PROBABILITY)
        return (1 - spread + quantile * math.sqrt(spread)) ** 3

    def percentile(self, share: float) -> float:
        """Return what this share of the picks took at most, in seconds."""
        return sorted(self.seconds)[int(share * len(self.seconds))]


class _Changes:
    """Changes a balancer, one node at a time.

    Those of the upper tenth come and go, are drained, cool down and fail. The others stay as they
    are, so that their picks can be compared. A node is drained once, so that a pick that is late is
    known as such.
    """

    def __init__(self, balancer: Balancer[int], health: HealthTracker, churn: Churn) -> None:
        self._balancer = balancer
        self._health = health
        self._rng = Random(churn.seed)
        self._fresh = deque(range(churn.nodes - churn.nodes // 10, churn.nodes))
        self._used: deque[int] = deque()
        self._next = churn.nodes
        self._down: deque[int] = deque()
        self._drained: deque[int] = deque()
        self._kinds = (self._add, self._remove, self._drain, self._cool_down, self._flap)
        # Whom nobody may pick who begins from now on.
        self.closed: set[int] = set()

    def make(self) -> None:
        """Make one change."""
        self._rng.choice(self._kinds)()

    def _add(self) -> None:
        self._balancer.add(self._next)
        self._fresh.append(self._next)
        self._next += 1

    def _remove(self) -> None:
        node = (self._used or self._fresh).popleft()
        self._balancer.remove(node)
        self.closed.add(node)

    def _drain(self) -> None:
        if len(self._drained) < _AT_ONCE:
            node = self._fresh.popleft()
            self._balancer.drain(node)
            self.closed.add(node)
            self._drained.append(node)
        else:
            node = self._drained.popleft()
            self.closed.discard(node)
            self._balancer.resume(node)
            self._used.append(node)

    def _cool_down(self) -> None:
        self._balancer.acquire().rate_limited(0.05)

    def _flap(self) -> None:
        if len(self._down) < _AT_ONCE:
            node = self._fresh[-1 - len(self._down)]
            self._health.report_failure(node)
            self._down.append(node)
        else:
            self._health.report_success(self._down.popleft())


def run(churn: Churn) -> Found:
    """Pick from a fleet that changes, and tell what came of it."""
    policy = ConsecutiveFailurePolicy(failure_threshold=1, recovery_successes=1)
    health = HealthTracker(policy)
    balancer = Balancer(range(churn.nodes), health=health)
    changes = _Changes(balancer, health, churn)
    found = Found()
    over = Event()
    untouched = churn.nodes - churn.nodes // 10
    tallies = [[0] * untouched for _ in range(churn.threads)]

    def pick(tally: list[int]) -> None:
        try:
            while not over.is_set():
                _pick(balancer, changes, found, tally)
                sleep(0)  # as requests wait for their answers
        except Exception as error:  # noqa: BLE001 - told at the end
            found.errors.append(repr(error))

    pickers = [Thread(target=pick, args=(tally,)) for tally in tallies]
    for thread in pickers:
        thread.start()
    began = monotonic()
    try:
        while (now := monotonic()) < began + churn.seconds:
            if churn.changes and found.changes <= (now - began) * churn.changes:
                changes.make()
                found.changes += 1
            else:
                sleep(0.0005)
    except Exception as error:  # noqa: BLE001 - told at the end
        found.errors.append(repr(error))
    finally:
        over.set()
        for thread in pickers:
            thread.join()
    found.picks = dict(enumerate(map(sum, zip(*tallies, strict=True))))
    return found


def _pick(balancer: Balancer[int], changes: _Changes, found: Found, tally: list[int]) -> None:
    # Before the picks: whom it finds there left before they began.
    closed = changes.closed.copy()
    for _ in range(_PICKS_A_LOOK):
        began = perf_counter()
        lease = balancer.acquire()
        found.seconds.append(perf_counter() - began)
        node = lease.node
        lease.success()
        if node < len(tally):
            tally[node] += 1
        elif node in closed and node in changes.closed:
            found.late.append(node)


def main() -> int:
    """Run it with changes and without, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.churn", description=__doc__)
    parser.add_argument("--seconds", type=float, default=Churn.seconds)
    parser.add_argument("--nodes", type=int, default=Churn.nodes)
    given = parser.parse_args()
    good = True
    for rate in (Churn.changes, 0.0):
        found = run(Churn(nodes=given.nodes, changes=rate, seconds=given.seconds))
        good = good and not found.errors and not found.late
        good = good and found.chi_squared() <= found.bound()
        print(
            f"{found.changes} changes, {len(found.seconds)} picks: "
            f"{len(found.errors)} errors, {len(found.late)} picks of nodes that had left; "
            f"chi-squared per degree {found.chi_squared():.3f} (bound {found.bound():.3f}); "
            f"a pick's median {found.percentile(0.5) * 1e6:.1f} us, "
            f"p99 {found.percentile(0.99) * 1e6:.1f} us, "
            f"p99.9 {found.percentile(0.999) * 1e6:.1f} us"
        )
        for error in found.errors:
            print(f"  {error}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
