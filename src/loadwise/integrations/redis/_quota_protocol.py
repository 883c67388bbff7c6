"""Messages about a node's quota: what a process states and asks, and the reply, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from loadwise.integrations.redis._parsing import EXACT, Rejected, text
from loadwise.quota import QuotaDimension

__all__ = [
    "LONGEST_REST",
    "SCHEMA",
    "News",
    "QuotaCall",
    "Reply",
    "limits_of",
    "micros",
    "parse_reply",
]

SCHEMA = "2"
LONGEST_REST = 30 * 24 * 3600
"""Seconds of the longest cooldown that is shared."""

_LONGEST_REPLY = 1_048_576
_SECOND = 1_000_000
_STATUSES = ("ok", "full", "stale")
_OURS = f"a hash of schema {SCHEMA}"
_OLDER = (
    "counts of schema 1, which an older loadwise keeps; this one keeps schema 2 and leaves them "
    "alone. Upgrade every process that shares the prefix (the old counts expire within a window of "
    "their last use), or give those that are upgraded a prefix of their own"
)

Buckets = dict[int, float]


def micros(seconds: float) -> int:
    """Return a time as the server counts it."""
    return round(seconds * _SECOND)


def limits_of(dimension: QuotaDimension) -> dict[str, Any]:
    """Return what each call says of a dimension, whatever is asked."""
    return {
        "name": dimension.name,
        "limit": float(dimension.limit),
        "window": micros(dimension.window),
        # The server divides by it.
        "width": max(1, micros(dimension.window / dimension.resolution)),
    }


class News(NamedTuple):
    """The latest word of this process on a node's cooldown.

    Attributes:
        number: Later words have higher ones; 0: there was none.
        lift: Whether it ends the cooldowns before it.
        until: When the cooldown ends that it begins; ``None`` if it begins none.
    """

    number: int = 0
    lift: bool = False
    until: float | None = None


class QuotaCall(NamedTuple):
    """One call to the server about one node.

    Attributes:
        op: ``"acquire"`` (all dimensions or none), ``"take"`` (what there is) or ``"sync"``.
        seq: Its number among the account's calls.
        sent: When it was made, by the local clock.
        amounts: Units asked for, of every dimension.
        used: What it states, by dimension and bucket.
        news: The number of the latest word on the cooldown that it brings.
        changes: How many changes of the account it states.
        restates: Whether it states what the server has counted already.
        marks: Whether it has the server remember its number in any case.
        payload: The call as it is sent; see ``quota.lua``.
    """

    op: str
    seq: int
    sent: float
    amounts: Mapping[str, float]
    used: Mapping[str, Buckets]
    news: int
    changes: int
    restates: bool
    marks: bool
    payload: bytes


class Reply(NamedTuple):
    """A reply of the server, checked. Times are microseconds of the server's clock.

    Attributes:
        status: ``"ok"``, ``"full"``, ``"stale"`` (a later call has given up this one) or
            ``"foreign"`` (what the server holds is not to be used).
        detail: Why it is foreign.
        now: When the server ran the call.
        rest: When the node's cooldown ends.
        dropped: How many fields the server had to drop.
        known: Whether the server knew the account.
        granted: What was granted, by dimension and bucket.
        others: What all other accounts have used, by dimension and bucket.
    """

    status: str
    detail: str = ""
    now: int = 0
    rest: int = 0
    dropped: int = 0
    known: bool = False
    granted: Mapping[str, Buckets] = {}
    others: Mapping[str, Buckets] = {}


def parse_reply(raw: object, asked: Mapping[str, float]) -> Reply:
    """Return what the server replied.

    Args:
        raw: The reply.
        asked: Units asked for, of every dimension, in the order of the call.

    Raises:
        Rejected: It makes no sense.
    """
    if not isinstance(raw, (str, bytes)) or len(raw) > _LONGEST_REPLY:
        raise Rejected(f"{raw!r:.40} is no text of at most {_LONGEST_REPLY} bytes")
    try:
        return _read(json.loads(raw), asked)
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise Rejected(f"{raw!r:.40} is no reply: {error!s:.100}") from None


def _read(answer: dict[str, Any], asked: Mapping[str, float]) -> Reply:
    status = answer["status"]
    if status == "foreign":
        detail = text(answer["detail"])
        return Reply(status, _OLDER if detail == "schema 1" else f"{detail}, not {_OURS}")
    now, rest, dropped = int(answer["now"]), int(answer["rest"]), int(answer["dropped"])
    if status not in _STATUSES or min(now, rest, dropped) < 0 or max(now, rest, dropped) > EXACT:
        raise Rejected(f"status {status!r:.40}, time {now}, rest {rest}, {dropped} dropped")
    granted: dict[str, Buckets] = {}
    others: dict[str, Buckets] = {}
    for (name, amount), said in zip(asked.items(), answer["dims"], strict=True):
        granted[name], others[name] = _buckets(said["granted"]), _buckets(said["others"])
        if sum(granted[name].values()) > amount:
            raise Rejected(f"more of {name!r:.40} is granted than was asked for")
    rest = min(rest, now + LONGEST_REST * _SECOND)
    return Reply(status, "", now, rest, dropped, bool(answer["known"]), granted, others)


def _buckets(given: Mapping[str, str]) -> Buckets:
    """Return amounts by bucket as numbers."""
    found: Buckets = {}
    for end, amount in given.items():
        value = float(amount)
        # A NaN is in no range.
        if not (0 <= value <= EXACT and 0 <= (bucket := int(end)) <= EXACT):
            raise Rejected(f"{given!r:.40} are no amounts by bucket")
        found[bucket] = int(value) if value.is_integer() else value
    return found
