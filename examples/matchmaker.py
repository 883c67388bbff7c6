"""A matchmaker: players sit down at a table near their rating that is not too crowded.

The strategy reads the rating in the request's tags; `where` says how far off a table may be.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from loadwise import Balancer, InFlight, SelectionContext

ANY = SelectionContext()


@dataclass(frozen=True)
class Table:
    """A node of one's own."""

    id: str
    rating: int
    seats: int


class Nearest:
    """Goes by distance in rating, and takes each player at the table for 100 points more."""

    def __init__(self) -> None:
        self.players = InFlight()
        self.measures = (self.players,)  # for the balancer to count in

    def select(self, candidates: Sequence[Table], context: SelectionContext = ANY) -> int | None:
        """Return the index of the best table of those with a free seat."""

        def load(index: int) -> float:
            distance = abs(candidates[index].rating - int(context.tag("rating") or 0))
            return distance + 100 * self.players.load(self.players.cell(candidates[index].id))

        return min(set(range(len(candidates))) - context.exclude, key=load, default=None)


async def play(hall: Balancer[Table], rating: int) -> str:
    """Play one game, and tell where."""

    def near(table: Table) -> bool:
        return abs(table.rating - rating) <= 400

    async with hall.acquire_async(tags={"rating": str(rating)}, where=near, timeout=5.0) as lease:
        await asyncio.sleep(0.01)
    return f"{rating}: {lease.node.id}"


async def main() -> None:
    """Seat fourteen players, who come all at once, at eight seats."""
    tables = [Table("beginners", 1000, 4), Table("club", 1500, 2), Table("masters", 2000, 2)]
    hall = Balancer(tables, Nearest(), max_in_flight=lambda table: table.seats)
    games = [asyncio.create_task(play(hall, rating)) for rating in range(900, 2300, 100)]
    await asyncio.sleep(0)
    print(f"waiting: {hall.waiting}", *await asyncio.gather(*games), sep="\n")


asyncio.run(main())
