"""A strategy of one's own, and the contract that says whether it behaves.

`SpillOver` fills the cheapest node first, and goes to the next when it has enough to do. It reads
requests in flight from a load measure, which it names in `measures` so that the balancer feeds it.

    python examples/own_strategy.py
    pytest examples/own_strategy.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadwise import Balancer, InFlight, LoadMeasure, SelectionContext, Strategy
from loadwise.testing import StrategyContract

ANY_REQUEST = SelectionContext()


@dataclass(frozen=True)
class Model:
    """A node with a price."""

    id: str
    price: float


class SpillOver:
    """The cheapest node with a free place; when all are full, the one with the fewest requests.

    Args:
        places: Requests in flight that a node may have before the next one is asked, >= 1.

    Cost: O(n) per pick.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self._in_flight = InFlight()

    @property
    def measures(self) -> tuple[LoadMeasure, ...]:
        """What the balancer is to feed."""
        return (self._in_flight,)

    def select(
        self, candidates: Sequence[Model], context: SelectionContext = ANY_REQUEST
    ) -> int | None:
        """Return the index of the chosen candidate, or ``None``."""
        free = [index for index in range(len(candidates)) if index not in context.exclude]
        return min(free, key=lambda index: self._rank(candidates[index]), default=None)

    def _rank(self, node: Model) -> tuple[float, float]:
        busy = self._in_flight.load(self._in_flight.cell(node.id))
        return (0, node.price) if busy < self.places else (busy, node.price)


class TestSpillOver(StrategyContract):
    """The tests that pytest runs: those of every strategy."""

    def make(self) -> Strategy[Model]:
        """Return the strategy to test."""
        return SpillOver(places=2)

    def make_nodes(self, count: int) -> list[Model]:
        """Return nodes with a price."""
        return [Model(f"model-{number}", price=1.0 + number % 3) for number in range(count)]


def main() -> None:
    """Hold more and more requests at once, and show where they go."""
    models = [Model("large", price=15.0), Model("small", price=0.5), Model("medium", price=3.0)]
    balancer = Balancer(models, SpillOver(places=2))
    leases = [balancer.acquire() for _ in range(7)]
    print("seven at once:", " ".join(lease.node.id for lease in leases))
    for lease in leases:
        lease.success()
    print("one after another:", " ".join(balancer.pick().id for _ in range(3)))


if __name__ == "__main__":
    main()
