"""Facts about balancers at one moment, as all viewers of a page see them."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any, Final, Protocol, cast

import loadwise
from loadwise.balancer import Explanation, NodeStatus
from loadwise.balancer.json_values import as_json
from loadwise.balancer.panic import Panic
from loadwise.health import HealthStatus
from loadwise.integrations._status_page.verdicts import (
    IDLE,
    WELL,
    NodeVerdict,
    Severity,
    verdict_of,
)
from loadwise.nodes import node_id

__all__ = ["BalancerFacts", "NodeFacts", "PageFacts", "Shown", "facts_of", "text_of"]

_FAIR_SHARE: Final = 20.0
"""Picks per second and node from which on it is no chance that one gets none."""
_FEWEST: Final = 3
"""Nodes with a latency from which on their median says something."""


class Shown(Protocol):
    """Balancer, as far as a page reads it."""

    name: str

    @property
    def nodes(self) -> tuple[Any, ...]:
        """The members."""
        ...

    @property
    def all_nodes(self) -> tuple[Any, ...]:
        """The members, and the nodes outside of its subset."""
        ...

    @property
    def panic(self) -> Panic | None:
        """State of panic, while it is in it."""
        ...

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a node."""
        ...

    def status(self) -> list[NodeStatus]:
        """Return how each member is."""
        ...

    def explain(self, *, hash_key: str) -> Explanation:
        """Return who would be chosen, and who not."""
        ...


def text_of(identity: object) -> str:
    """Return an id as a text: what a reader sees, and what an action names."""
    told = as_json(identity)
    return told if isinstance(told, str) else str(told)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node, and what is the matter with it.

    Attributes:
        status: How it is.
        verdict: What is the matter with it.
        node: The node itself.
        rate: Picks per second; ``None`` if that is not known yet.
    """

    status: NodeStatus
    verdict: NodeVerdict
    node: object
    rate: float | None

    @property
    def text(self) -> str:
        """The id as a text."""
        return text_of(self.status.id)

    @property
    def tags(self) -> dict[str, str]:
        """The tags of the node, where it has some, as text."""
        tags = getattr(self.node, "tags", None)
        if not isinstance(tags, Mapping):
            return {}
        named = cast("Mapping[object, object]", tags)
        return {str(name): str(value) for name, value in named.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            **self.status.to_dict(),
            "tags": self.tags,
            "state": self.verdict.word,
            "severity": self.verdict.severity.name.lower(),
            "why": self.verdict.why,
            "picks_per_second": as_json(self.rate),
        }


@dataclass(frozen=True)
class BalancerFacts:
    """One balancer at one moment.

    Attributes:
        name: Its name.
        strategy: The name of its strategy.
        nodes: Its members, in order.
        panic: How bad it is, while it is in panic.
        waiting: How many requests wait for a node.
        filtered: How many members its own filter does not admit.
        choice: The id that the next request would get; ``None`` where that cannot be told.
        trouble: The error that reading it raised; empty if there was none.
        outside: How many nodes it was given and does not use, because they are not in its subset.
    """

    name: str
    strategy: str
    nodes: tuple[NodeFacts, ...] = ()
    panic: Panic | None = None
    waiting: int = 0
    filtered: int = 0
    choice: Hashable | None = None
    trouble: str = ""
    outside: int = 0

    @cached_property
    def members(self) -> int:
        """Nodes that the balancer's filter admits and that are not drained."""
        drained = sum(each.status.drained for each in self.nodes)
        return max(0, len(self.nodes) - drained - self.filtered)

    @cached_property
    def available(self) -> int:
        """Members that are not UNHEALTHY."""
        down = sum(
            each.status.health is HealthStatus.UNHEALTHY and not each.status.drained
            for each in self.nodes
        )
        return max(0, self.members - down)

    @cached_property
    def severities(self) -> Counter[Severity]:
        """Number of nodes of each severity."""
        return Counter(each.verdict.severity for each in self.nodes)

    @cached_property
    def by_severity(self) -> list[NodeFacts]:
        """Its nodes, those with problems first."""
        return sorted(self.nodes, key=lambda each: each.verdict.severity)

    @cached_property
    def searched(self) -> dict[Hashable, str]:
        """Texts to look for a word in, by node's id, in small letters."""
        return {each.status.id: " ".join(_words(each)).casefold() for each in self.nodes}

    @cached_property
    def rate(self) -> float | None:
        """Picks per second of all nodes."""
        rates = [each.rate for each in self.nodes if each.rate is not None]
        return sum(rates) if rates else None

    @cached_property
    def in_flight(self) -> int:
        """Requests under way."""
        return sum(each.status.in_flight for each in self.nodes)

    @cached_property
    def recent(self) -> tuple[int, int]:
        """Requests of the last minute that ended well, and that failed."""
        return (
            sum(each.status.recent_successes for each in self.nodes),
            sum(each.status.recent_failures for each in self.nodes),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it: the keys of `Balancer.status_dict` and a few more."""
        states = Counter(each.status.health for each in self.nodes)
        return {
            "name": as_json(self.name),
            "strategy": self.strategy,
            "panic": None if self.panic is None else self.panic.to_dict(),
            "members": self.members,
            "available": self.available,
            "counts": {str(state.name): states[state] for state in HealthStatus},
            "on_cooldown": sum(each.status.cooldown is not None for each in self.nodes),
            "waiting": self.waiting,
            "picks_per_second": as_json(self.rate),
            "choice": None if self.choice is None else text_of(self.choice),
            "error": self.trouble or None,
            "nodes": [each.to_dict() for each in self.nodes],
        }


@dataclass(frozen=True)
class PageFacts:
    """All balancers of a page at one moment.

    Attributes:
        number: Which snapshot of the process it is, from 1 on.
        when: When it was taken, in seconds of the page's clock.
        time: The same, in seconds since the epoch.
        interval: Seconds until the next one may be taken.
        balancers: The balancers, in order.
    """

    number: int
    when: float
    time: float
    interval: float
    balancers: tuple[BalancerFacts, ...]

    @cached_property
    def about(self) -> dict[str, str | int]:
        """The process that tells this."""
        return {
            "loadwise": loadwise.__version__,
            "python": platform.python_version(),
            "host": platform.node(),
            "pid": os.getpid(),
        }

    @cached_property
    def as_json(self) -> bytes:
        """All of it as JSON, without NaN."""
        told = {
            **self.about,
            "time": round(self.time, 3),
            "interval": round(self.interval, 3),
            "balancers": [each.to_dict() for each in self.balancers],
        }
        # Half a character is escaped, so that what is left is ASCII.
        return json.dumps(told, separators=(",", ":"), allow_nan=False).encode("ascii")


def _words(each: NodeFacts) -> Iterator[str]:
    yield from (each.text, each.verdict.word, each.verdict.why, each.status.zone or "")
    for name, value in each.tags.items():
        yield f"{name}={value}"


def facts_of(
    balancer: Shown, strategy: str, rate: Callable[[Hashable, int], float | None]
) -> BalancerFacts:
    """Return how a balancer is. O(n).

    Args:
        balancer: The balancer.
        strategy: The name of its strategy, for when it cannot be asked.
        rate: Function of an id and of how often it was picked, that returns its picks per second.
    """
    name = text_of(balancer.name)
    try:
        statuses = balancer.status()
        panic, waiting = balancer.panic, balancer.waiting
        members = {node_id(node): node for node in balancer.nodes}
        outside = max(0, len(balancer.all_nodes) - len(members))
    except Exception as error:  # noqa: BLE001 - a quota source of the user's, say: one balancer's
        return BalancerFacts(name, strategy, trouble=f"{type(error).__name__}: {error}")
    ruled_out, choice = _explained(balancer)
    middle = _median(statuses)
    rates = [rate(status.id, status.picks) for status in statuses]
    busy = sum(each for each in rates if each is not None) >= _FAIR_SHARE * len(rates)
    told: list[NodeFacts] = []
    for status, picked in zip(statuses, rates, strict=True):
        verdict = verdict_of(status, ruled_out.get(status.id), middle, panic=panic is not None)
        if busy and picked == 0 and verdict is WELL:
            verdict = IDLE
        told.append(NodeFacts(status, verdict, members.get(status.id), picked))
    return BalancerFacts(
        name,
        strategy,
        tuple(told),
        panic,
        waiting,
        sum(why == "filtered" for why in ruled_out.values()),
        choice,
        outside=outside,
    )


def _explained(balancer: Shown) -> tuple[Mapping[Hashable, str], Hashable | None]:
    """Return who would not be chosen and why, and who would be, as far as that can be told."""
    try:
        # Some strategies need a key; to the others it says nothing.
        told = balancer.explain(hash_key="")
    except Exception:  # noqa: BLE001 - a strategy of the user's own may need more than a key
        return {}, None
    return told.ineligible, told.choice


def _median(statuses: list[NodeStatus]) -> float | None:
    """Return the median latency of those that get requests; ``None`` for too few."""
    latencies = [
        each.latency
        for each in statuses
        if each.latency is not None and each.health is not HealthStatus.UNHEALTHY
    ]
    middle = median(latencies) if len(latencies) >= _FEWEST else 0.0
    return middle if 0 < middle < sys.float_info.max else None
