"""Summary of what a fleet file builds, a line for each part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from loadwise._tables.contenders import contender
from loadwise._tables.records import Outliers, SlowStartTable
from loadwise._text import in_seconds
from loadwise.config import ConfiguredBalancer
from loadwise.config.file import FleetFile
from loadwise.config.records import FleetQuota, FleetTable
from loadwise.config.sources import source_of
from loadwise.nodes import Endpoint

__all__ = ["summary"]

_MOST_NAMED = 5


def summary(fleet: FleetFile, balancer: ConfiguredBalancer) -> Iterator[tuple[str, str]]:
    """Yield what is built: the name of each part, and what it is in words. O(nodes)."""
    table, nodes = fleet.table, fleet.nodes
    told = balancer.status_dict()
    yield "balancer", table.name
    source = source_of(fleet)
    named = f"{len(nodes):,}: {_some([str(node.id) for node in nodes])}"
    yield "nodes", named if source is None else f"as {source!r} lists them (it was not asked)"
    yield from _kinds_of_nodes(nodes)
    yield "strategy", f"{contender(table.strategy).name} ({told['strategy']})"
    yield "health", _health(table, tracked=balancer.health is not None)
    yield from _optional(table)
    for quota in table.quotas:
        yield "quota", _quota(quota, table.clients.count)
    yield "retries", _retries(table)
    for text in fleet.unused:
        yield "no effect", text


def _kinds_of_nodes(nodes: Sequence[Endpoint]) -> Iterator[tuple[str, str]]:
    weights = [node.weight for node in nodes]
    if min(weights, default=1) != max(weights, default=1):
        yield "weights", f"{min(weights):g} to {max(weights):g}"
    if any(node.zone is not None for node in nodes):
        yield "zones", _counted(node.zone or "none" for node in nodes)
    if any(node.priority for node in nodes):
        yield "priorities", _counted(str(node.priority) for node in nodes)


def _optional(table: FleetTable) -> Iterator[tuple[str, str]]:
    who, limits = contender(table.strategy), table.limits
    if table.outliers is not None or who.outliers:
        rule = table.outliers or Outliers()
        first = in_seconds(rule.base_ejection)
        yield "outliers", f"looked for every {in_seconds(rule.interval)}, out for {first} at first"
    if table.slow_start is not None or who.slow_start:
        window = (table.slow_start or SlowStartTable()).window
        yield "slow start", f"{in_seconds(window)} until a node has its whole weight"
    if limits.max_in_flight is not None:
        yield "limits", f"{_count(limits.max_in_flight, 'request')} at a node at once"
    if limits.max_waiting is not None:
        yield "queue", f"{_count(limits.max_waiting, 'request')} may wait"
    if table.clients.zone is not None:
        yield "stands in", table.clients.zone


def _health(table: FleetTable, *, tracked: bool) -> str:
    if not tracked:
        return "not tracked"
    rule = table.health
    panic = rule.panic_threshold
    return (
        f"down after {_count(rule.failure_threshold, 'failure')} in a row, then probed every "
        f"{in_seconds(rule.probe_interval)}; panic "
        + ("never" if isinstance(panic, str) else f"below {100 * panic:g} % available")
    )


def _quota(quota: FleetQuota, clients: int) -> str:
    whose = f", for {_some(quota.nodes)}" if quota.nodes else ""
    part = f", shared by {clients:,} clients" if clients > 1 else ""
    known = "" if quota.aware else "; not kept here, but learned by answers 429"
    return (
        f"{quota.name}: {quota.limit:,.15g} {quota.counts} in {in_seconds(quota.window)}"
        f"{whose}{part}{known}"
    )


def _retries(table: FleetTable) -> str:
    if table.callers is None:
        return "as each call says; 3 attempts by default"
    attempts = _count(table.callers.attempts, "attempt")
    return f"{attempts}; retries up to {100 * table.callers.budget:g} % of requests, and 10 per s"


def _counted(names: Iterable[str]) -> str:
    counts = Counter(names)
    return _some([f"{name} ({counts[name]})" for name in sorted(counts)])


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + rest
