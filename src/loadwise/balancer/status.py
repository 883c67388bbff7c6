"""Frozen records in which a balancer tells about itself."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from loadwise._text import visible
from loadwise.balancer.cooldowns import Cooldown
from loadwise.balancer.json_values import as_json
from loadwise.balancer.panic import Panic
from loadwise.health import HealthStatus

__all__ = ["Explanation", "NodeStatus"]


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One member at one moment.

    Attributes:
        id: The node's id.
        health: Its state of health.
        health_reason: Why it is in that state, in words; ``None`` for a node that simply works.
        in_flight: Requests under way; with ``host`` those of all processes that share it.
        latency: Moving average of its successful requests' latency in seconds; ``None`` before
            the first.
        picks: How often it was chosen since it joined, by this process.
        quota_remaining: Units left by quota dimension; empty without quotas.
        next_probe: Seconds until it may be probed, 0 when a probe is due; ``None`` for a node
            that needs none or whose probe is under way.
        drained: Whether it gets no new requests by `Balancer.drain` or a weight of 0.
        ailing: Whether it is UNHEALTHY but not dead, so that it gets requests in panic.
        limit: How many requests it may have in flight; ``None`` for no limit.
        cooldown: For how long it is on cooldown, and why; ``None`` if it is not.
        state_seconds: For how many seconds it has been in its state of health, as far as this
            process knows: since that changed here, or else since it joined.
        recent_successes: How many requests it has answered well in the last minute, in this
            process. Counted in steps of 10 seconds: all of the last 60 are in, and none that is
            more than 70 old.
        recent_failures: How many it has failed, counted alike.
        weight: Its weight, as read when it joined.
        zone: The node's ``zone``, where it is a str.
        priority: The node's ``priority``, where it is an int.
        slow_start: What part of its weight it has now, where that still grows (see `SlowStart`);
            ``None`` where it has all of it.
        ejected: Whether it is out because it did worse than the rest (see `OutlierDetection`).
        elsewhere: How many of the requests under way other processes have; 0 without ``host``.

    Example:
        >>> from loadwise import Balancer
        >>> balancer = Balancer(["a"])
        >>> balancer.acquire().rate_limited(30.0)
        True
        >>> print(balancer.status()[0].cooldown)
        rate limited, retry after 30 s; 30 s left
    """

    id: Hashable
    health: HealthStatus
    health_reason: str | None
    in_flight: int
    latency: float | None
    picks: int
    quota_remaining: Mapping[str, float]
    next_probe: float | None
    drained: bool
    ailing: bool = False
    limit: int | None = None
    cooldown: Cooldown | None = None
    state_seconds: float = 0.0
    recent_successes: int = 0
    recent_failures: int = 0
    weight: float = 1
    zone: str | None = None
    priority: int | None = None
    slow_start: float | None = None
    ejected: bool = False
    elsewhere: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it, for ``json.dumps`` as it stands.

        The keys are the names of the attributes. ``health`` is the name of the state, such as
        ``"HEALTHY"``; ``cooldown`` is ``None`` or has the keys ``seconds_left``, ``until`` and
        ``reason``; ``quota_remaining`` maps dimensions to numbers. An id that is no str, int,
        float, bool or ``None`` becomes its text. NaN and the infinities become ``None``.

        Example:
            >>> from loadwise import Balancer
            >>> told = Balancer([("10.0.0.1", 8080)]).status()[0].to_dict()
            >>> told["id"], told["health"], told["cooldown"]
            ("('10.0.0.1', 8080)", 'HEALTHY', None)
        """
        told = {name: as_json(getattr(self, name)) for name in _NAMES}
        told["quota_remaining"] = {
            as_json(str(name)): as_json(left) for name, left in self.quota_remaining.items()
        }
        told["cooldown"] = None if self.cooldown is None else self.cooldown.to_dict()
        return told


_NAMES: Final = tuple(each.name for each in fields(NodeStatus))


@dataclass(frozen=True, slots=True)
class Explanation:
    """Reasons why the next request would go where it would go.

    Attributes:
        balancer: The balancer's name.
        strategy: The strategy's name.
        ineligible: The nodes that were ruled out, by id, each with the reason: ``"drained"``,
            ``"unhealthy"``, ``"recovering"``, ``"rate_limited"``, ``"quota"``, ``"full"``,
            ``"filtered"`` or ``"excluded"``.
        eligible: The ids the strategy could choose from.
        seen: What the strategy bases its choice on, by id and by name (``"load"``, ``"weight"``,
            ``"remaining"``), for the eligible nodes; of one in slow start the ``"weight"`` that
            it has now, and as ``"slow_start"`` what part of its own that is.
        choice: The id it would choose; ``None`` when there is none, or when it cannot be told.
        foreseeable: Whether the choice can be told; ``False`` for a strategy of your own that has
            no ``peek``, and where the first choice is full, has not the quota that the request
            costs, or is RECOVERING and has all the requests that it needs.
        panic: How bad it is, while the balancer is in panic; else ``None``.
        ailing: The ids of nodes that are UNHEALTHY and eligible because of it, but not dead.
        cooldowns: For how long nodes are on cooldown, and why, by id.
        passed_over: The id of the first choice, where the balancer would not take it and ask again,
            so that `choice` cannot be told; else ``None``.
    """

    balancer: str
    strategy: str
    ineligible: Mapping[Hashable, str]
    eligible: tuple[Hashable, ...]
    seen: Mapping[Hashable, Mapping[str, float]]
    choice: Hashable | None
    foreseeable: bool
    panic: Panic | None = None
    ailing: frozenset[Hashable] = frozenset()
    cooldowns: Mapping[Hashable, Cooldown] = field(default_factory=dict[Hashable, Cooldown])
    passed_over: Hashable | None = None

    def __str__(self) -> str:
        lines = [f"{self.balancer}: {self.strategy}"]  # each is made safe to show in the end
        if self.passed_over is not None:
            why = self.ineligible.get(self.passed_over, "recovering")
            lines[0] += f" would choose {self.passed_over!r} ({why}), and be asked again"
        elif not self.foreseeable:
            lines[0] += " cannot predict its choice (it has no peek())"
        elif self.choice is None:
            lines[0] += " has nothing to choose"
        else:
            lines[0] += f" would choose {self.choice!r}"
        if self.panic is not None:
            lines.append(f"  {self.panic}")
        for node_id in self.eligible:
            facts = ", ".join(f"{name} {value:g}" for name, value in self.seen[node_id].items())
            eligible = "eligible though ailing" if node_id in self.ailing else "eligible"
            lines.append(f"  {node_id!r}: {eligible}" + (f" ({facts})" if facts else ""))
        for node_id, reason in self.ineligible.items():
            cooldown = self.cooldowns.get(node_id)
            lines.append(f"  {node_id!r}: {reason}" + (f" ({cooldown})" if cooldown else ""))
        return "\n".join(map(visible, lines))
