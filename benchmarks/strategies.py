"""What each strategy's choice costs: on a NodeSet, on a list, and with a lease around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from time import perf_counter
from typing import Any

from benchmarks.fleets import RULES, Rule, Server, contexts, keys
from benchmarks.grid import by_size
from benchmarks.model import Result, Scale
from benchmarks.timing import Case, measure

from loadwise import Balancer, NodeSet, Strategy

__all__ = ["acquire_and_release", "growth_limit", "select_on_list", "select_on_node_set"]

_LIMITS = {rule.name: rule.most for rule in RULES}


def growth_limit(rule: str) -> float | None:
    """Return how much more a rule may cost on the largest fleet than on the smallest."""
    return _LIMITS[rule]


def select_on_node_set(scale: Scale) -> Result:
    """Time ``select`` on a `NodeSet`."""
    found = measure("select", _selects(scale, NodeSet), scale)
    return by_size(found, scale, "`select` on a `NodeSet`", limit=growth_limit)


def select_on_list(scale: Scale) -> Result:
    """Time ``select`` on a list."""
    found = measure("select-list", _selects(scale, list[Server]), scale)
    note = "A list may have changed since the last call, so ids and weights are read at each."
    return by_size(found, scale, "`select` on a list", note=note)


def acquire_and_release(scale: Scale) -> Result:
    """Time ``acquire`` and ``success`` with every strategy."""
    cases = (
        Case(
            rule.name,
            str(size),
            partial(_batch_of(rule), _balancer(rule, size)),
            _warm(rule, size),
            rule.round,
        )
        for rule in RULES
        for size in scale.sizes
    )
    found = measure("acquire", cases, scale)
    note = "A balancer with health tracking; `acquire()` and `success()`."
    title = "`acquire` and release, by strategy"
    return by_size(found, scale, title, limit=growth_limit, note=note)


def time_select(strategy: Strategy[Any], nodes: Sequence[Any], loops: int) -> float:
    """Time ``select``, each with a key of its own."""
    select = strategy.select
    requests = contexts(loops)
    start = perf_counter()
    for context in requests:
        select(nodes, context)
    return perf_counter() - start


def time_acquire(balancer: Balancer[Any], loops: int) -> float:
    """Time ``acquire`` and ``success``."""
    acquire = balancer.acquire
    start = perf_counter()
    for _ in range(loops):
        acquire().success()
    return perf_counter() - start


def time_acquire_by_key(balancer: Balancer[Any], loops: int) -> float:
    """Time ``acquire`` with a key, and ``success``."""
    acquire = balancer.acquire
    requests = keys(loops)
    start = perf_counter()
    for key in requests:
        acquire(hash_key=key).success()
    return perf_counter() - start


def _selects(scale: Scale, kind: Callable[[list[Server]], Sequence[Server]]) -> Iterator[Case]:
    for rule in RULES:
        for size in scale.sizes:
            nodes = kind(rule.servers(size))
            warm = _warm(rule, size) if kind is NodeSet else 0
            yield Case(
                rule.name, str(size), partial(time_select, rule.make(), nodes), warm, rule.round
            )


def _warm(rule: Rule, size: int) -> int:
    return 0 if rule.scans else 2 * size


def _balancer(rule: Rule, size: int) -> Balancer[Any]:
    return Balancer(rule.servers(size), rule.make())


def _batch_of(rule: Rule) -> Any:  # noqa: ANN401 - either of the two above
    return time_acquire_by_key if rule.keyed else time_acquire
