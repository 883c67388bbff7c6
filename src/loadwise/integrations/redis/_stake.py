"""What one process has at stake at one node: what it has used, and what the server knows of it.

The server may forget, and it may be out of reach while requests go on. So each process remembers
its own use for as long as it counts, and how much of it the server has been told. What it has not
been told is told with the next call; after it forgot, that is everything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadwise.integrations.redis._quota_wire import Call
    from loadwise.quota.config import QuotaDimension
    from loadwise.quota.window import Bucket

__all__ = ["Charge", "Stake", "Use"]


class Use:
    """What this process used of one dimension between two moments, by the local clock.

    Attributes:
        told: How much of ``amount`` the server knows of.
    """

    __slots__ = ("amount", "closes", "last", "name", "told")

    def __init__(self, name: str, closes: float, last: float) -> None:
        self.name = name
        self.closes = closes
        self.last = last
        self.amount: float = 0
        self.told: float = 0


class Charge:
    """Units that were granted to this process, or that it took without asking.

    Attributes:
        name: The dimension.
        amount: The units.
        use: Where this process remembers them.
        id: What the server calls the bucket that it counts them in; ``None`` if it was not asked.
        epoch: The epoch that this is true in.
        shown: The local bucket that shows them, if the server was not asked.
        left: Units leased and not handed out yet.
        expires: Until when they may be handed out; already over for units not leased.
    """

    __slots__ = ("amount", "epoch", "expires", "id", "left", "name", "shown", "use")

    def __init__(
        self,
        use: Use,
        amount: float,
        bucket_id: int | None = None,
        epoch: str = "",
        shown: Bucket | None = None,
    ) -> None:
        self.name = use.name
        self.amount = amount
        self.use = use
        self.id = bucket_id
        self.epoch = epoch
        self.shown = shown
        self.left: float = 0
        self.expires = -1.0


class Stake:
    """What this process has at stake at one node. Not thread-safe: the core holds a lock.

    Attributes:
        epoch: Which counts of the server's it is about; ``""`` if that is not known.
        back: Units to give back, by dimension and the server's bucket.
        rest: Until when the others are to be told that the node sits out.
        lift: Whether they are to be told that it does no more, or not till then.
        lifted: When the server last had a rest lifted, by its clock, as far as is known here.
        order: Number of the latest call whose answer is shown.
        synced: When the server last answered.
        foreign: Whether what the server holds is not of loadwise.
        under_way: The calls that have been planned and not answered yet.
    """

    def __init__(self, dimensions: Iterable[QuotaDimension]) -> None:
        self.dimensions = {dimension.name: dimension for dimension in dimensions}
        self.uses: dict[str, deque[Use]] = {name: deque() for name in self.dimensions}
        self.epoch = ""
        self.back: dict[tuple[str, int], float] = {}
        self.rest: float | None = None
        self.lift = False
        self.lifted = 0
        self.order = -1
        self.synced = float("-inf")
        self.foreign = False
        self.under_way: set[Call] = set()

    def inherit(self, before: Stake) -> None:
        """Go on from what an earlier configuration of the node had at stake."""
        self.uses |= {name: uses for name, uses in before.uses.items() if name in self.uses}
        self.epoch = before.epoch
        # Whoever still plans with the old one must not give the same back once more.
        self.back, before.back = before.back, {}
        self.rest, before.rest = before.rest, None
        self.lift, before.lift = before.lift, False
        self.lifted = before.lifted
        self.under_way = before.under_way

    def forget(self) -> None:
        """Leave it to others, as the child of a fork does."""
        self.uses = {name: deque() for name in self.dimensions}
        self.back = {}
        self.rest = None
        self.lift = False
        self.under_way = set()

    def slide(self, now: float) -> None:
        """Forget what has left the window."""
        for name, uses in self.uses.items():
            window = self.dimensions[name].window
            while uses and uses[0].last + window <= now:
                uses.popleft()

    def use(self, name: str, amount: float, told: float, now: float, until: float) -> Use:
        """Remember use, which lasts until ``until`` at the latest."""
        uses, dimension = self.uses[name], self.dimensions[name]
        if not uses or now >= uses[-1].closes:
            uses.append(Use(name, now + dimension.window / dimension.resolution, until))
        found = uses[-1]
        found.amount += amount
        found.told += told
        found.last = max(found.last, until)
        return found

    def untold(self) -> Iterator[tuple[Use, float]]:
        """Return what the server does not know of."""
        for uses in self.uses.values():
            for use in uses:
                if use.amount > use.told:
                    yield use, use.amount - use.told

    def due(self, name: str) -> float:
        """Return what the server is being told of a dimension, and may not have heard yet."""
        return sum(
            amount for call in self.under_way for use, amount in call.told if use.name == name
        )

    def matters(self) -> bool:
        """Whether the server should know of anything that this process did."""
        return bool(self.back) or any(use.told > 0 for uses in self.uses.values() for use in uses)

    def pending(self) -> bool:
        """Whether there is anything to tell."""
        news = self.lift or self.rest is not None
        return bool(self.back) or news or any(True for _ in self.untold())

    def take_back(self, charge: Charge, amount: float) -> None:
        """Give units back, on the server too if it can tell which."""
        use = charge.use
        use.amount = max(0, use.amount - amount)
        if charge.id is not None and charge.epoch == self.epoch:
            use.told = max(0, use.told - amount)
            key = (charge.name, charge.id)
            self.back[key] = self.back.get(key, 0) + amount
        # What the server counts too much must not stand for use that is still to come.
        use.told = min(use.told, use.amount)

    def tell_anew(self) -> bool:
        """Have everything told again; tell whether there is anything.

        But what is being told: whether that reaches the counts that have begun anew or those before
        is for its answer to say.
        """
        self.back = {}
        for uses in self.uses.values():
            for use in uses:
                use.told = 0
        for call in self.under_way:
            self.has_told(call)
        return any(True for _ in self.untold())

    def has_told(self, call: Call) -> None:
        """Take note that the server knows what a call tells, or is about to."""
        for use, amount in call.told:
            use.told = min(use.amount, use.told + amount)

    def has_not_told(self, call: Call) -> None:
        """Take note that the server does not know what a call told: it will be told again."""
        for use, amount in call.told:
            use.told = max(0, use.told - amount)

    def undo(self, call: Call) -> None:
        """Take note that a call may not have arrived.

        What it was to charge will be told again, at worst twice; what it was to give back will
        not, for that must not happen twice.
        """
        self.has_not_told(call)
        if call.rest is not None and not self.lift:
            self.rest = max(call.rest, self.rest or call.rest)
        self.lift = self.lift or call.lift

    def tells_of_rest(self) -> bool:
        """Whether the server has not answered yet to all that it is to be told of the rest."""
        return (
            self.lift
            or self.rest is not None
            or any(call.lift or call.rest is not None for call in self.under_way)
        )
