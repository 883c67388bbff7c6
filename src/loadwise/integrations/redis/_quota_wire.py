"""What processes and the server tell each other about quotas."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loadwise.integrations.redis._limits import needs
from loadwise.integrations.redis._parsing import Rejected, fields, number, text, whole
from loadwise.quota.window import Bucket

if TYPE_CHECKING:
    from loadwise.integrations.redis._stake import Stake, Use

__all__ = ["Call", "Reply", "SharedBucket", "micros", "parse_reply"]

_LONGEST = 131_072
_SECOND = 1_000_000


def micros(seconds: float) -> int:
    """Return a time as the server counts it."""
    return round(seconds * _SECOND)


class SharedBucket(Bucket):
    """A bucket that the server keeps, with what it calls it; times by the local clock."""

    __slots__ = ("id",)

    def __init__(self, bucket_id: int, closes: float, last: float, amount: float) -> None:
        super().__init__(last, 0)
        self.id = bucket_id
        self.closes = closes
        self.amount = amount


class Call:
    """One thing to ask of the server about one node.

    Attributes:
        names: The node's dimensions, in the order of the answer.
        number: Later calls have higher ones.
        known: The epoch that the node's counts were known to be in when it was planned.
        told: What it tells of that the server did not know, to be told again if it fails.
        rest: Until when it has the node sit out, if at all, in seconds of the local clock.
        lift: Whether it ends what had the node sit out before.
        sent: When it was planned: not after the server does it.
    """

    __slots__ = ("known", "lift", "names", "node_id", "number", "payload", "rest", "sent", "told")

    def __init__(
        self,
        node_id: str,
        order: int,
        stake: Stake,
        sent: float,
        told: list[tuple[Use, float]],
    ) -> None:
        self.node_id = node_id
        self.names = list(stake.dimensions)
        self.number = order
        self.known = stake.epoch
        self.sent = sent
        self.rest = stake.rest
        self.lift = stake.lift
        self.told = told
        self.payload = b""

    def write(
        self, stake: Stake, op: str, epoch: str, amounts: Mapping[str, float], lease: float
    ) -> None:
        """Put it into words.

        Args:
            stake: What there is at stake.
            op: ``"acquire"``, ``"take"`` or ``"sync"``.
            epoch: The epoch that the server must know of, or ``""``.
            amounts: Units by dimension; to acquire, those not named are charged default costs.
            lease: Seconds that what is taken may be used.
        """
        acquires = op == "acquire"
        dims: dict[str, dict[str, Any]] = {
            name: {
                "name": name,
                "limit": float(dimension.limit),
                "window": micros(dimension.window),
                "width": micros(dimension.window / dimension.resolution),
                "amount": float(amounts.get(name, dimension.default_cost if acquires else 0)),
                "need": float(needs(dimension, amounts) if acquires else 0),
                "due": float(stake.due(name)),
                "back": [],
                "add": [],
            }
            for name, dimension in stake.dimensions.items()
        }
        for (name, bucket_id), amount in stake.back.items():
            if name in dims:
                dims[name]["back"].append([bucket_id, float(amount)])
        for use, amount in self.told:
            dims[use.name]["add"].append([micros(self.sent - use.last), float(amount)])
        ask = {
            "op": op,
            "epoch": epoch,
            "fresh": os.urandom(8).hex(),
            "lift": self.lift,
            "rest": 0 if self.rest is None else max(0, micros(self.rest - self.sent)),
            "lease": micros(lease),
            "dims": list(dims.values()),
        }
        self.payload = json.dumps(ask).encode()


class Reply:
    """What the server answered, checked; times by the local clock.

    Attributes:
        status: ``"ok"``, ``"full"``, ``"lost"`` (it knows nothing of the epoch) or ``"foreign"``
            (what it holds is not of loadwise).
        rest: Until when the node sits out.
        lifted: When that was lifted, by the server's clock; 0 if it was not.
        dropped: How many fields the server had to drop.
        granted: Amounts and buckets granted, by dimension.
        buckets: All that is counted, by dimension.
    """

    __slots__ = ("buckets", "detail", "dropped", "epoch", "granted", "lifted", "rest", "status")

    def __init__(self, status: str, epoch: str = "", detail: str = "") -> None:
        self.status = status
        self.epoch = epoch
        self.detail = detail
        self.rest = 0.0
        self.lifted = 0
        self.dropped = 0
        self.granted: dict[str, tuple[float, int]] = {}
        self.buckets: dict[str, deque[Bucket]] = {}


def parse_reply(raw: object, names: list[str], received: float) -> Reply:
    """Return what the server answered.

    Args:
        raw: The answer.
        names: The dimensions that were asked about, in order.
        received: When it arrived, in seconds of the local clock.

    Raises:
        Rejected: It makes no sense.
    """
    answer = fields(raw)
    status = text(answer[0], 16)
    if status in ("lost", "foreign") and len(answer) == len((status, "detail")):
        detail = text(answer[1])
        return Reply(status, detail if status == "lost" else "", detail)
    head, rest_of_it = answer[:5], answer[5:]
    if status not in ("ok", "full") or len(rest_of_it) != 3 * len(names):
        raise Rejected(f"{len(answer)} fields of status {status!r} for {len(names)} dimensions")
    reply = Reply(status, text(head[1], 32))
    now = whole(head[2])

    def local(moment: int) -> float:
        return received - (now - moment) / _SECOND

    rest = text(head[3], 20)
    if rest.startswith("-"):
        reply.lifted = whole(rest[1:])
    else:
        reply.rest = local(whole(rest))
    reply.dropped = whole(head[4])
    for i, name in enumerate(names):
        amount, bucket_id, buckets = rest_of_it[3 * i : 3 * i + 3]
        if text(bucket_id, 20):
            reply.granted[name] = (number(amount), whole(bucket_id))
        reply.buckets[name] = deque()
        for part in filter(None, text(buckets, _LONGEST).split(";")):
            numbers = part.split(",")
            if len(numbers) != len(("id", "closes", "last", "amount")):
                raise Rejected(f"{part[:40]!r} is no bucket")
            ident, closes, last = map(whole, numbers[:3])
            reply.buckets[name].append(
                SharedBucket(ident, local(closes), local(last), number(numbers[3]))
            )
    return reply
