"""Balancers made of fleet files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, TypedDict, Unpack

from loadwise._log import log_warning
from loadwise._numbers import shown
from loadwise._tables.contenders import Contender, Seat, contender
from loadwise._tables.parts import given, health_tracker, outlier_detection, slow_start
from loadwise._tables.records import Outliers, SlowStartTable
from loadwise._tables.schema import Raw
from loadwise._text import visible
from loadwise.balancer.failure_rules import FailureRule
from loadwise.clock import Clock
from loadwise.config.configured_balancer import ConfiguredBalancer, RetryRule
from loadwise.config.errors import ConfigError
from loadwise.config.file import FleetFile, read_fleet
from loadwise.config.quotas import FleetQuotas
from loadwise.config.records import FleetTable
from loadwise.config.sources import watcher_of
from loadwise.metrics import MetricsCollector
from loadwise.nodes import Endpoint
from loadwise.retry_budget import RetryBudget

__all__ = ["Extras", "balancer_of", "load_balancer"]


class Extras(TypedDict, total=False):
    """Keywords of `load_balancer`: what no file can say.

    Attributes:
        clock: As for `Balancer`.
        failures: As for `Balancer`.
        metrics: As for `Balancer`.
        where: As for `Balancer`.
        rng: Source of all chance; ``None`` for one of its own for each part.
    """

    clock: Clock
    failures: FailureRule
    metrics: MetricsCollector | Sequence[MetricsCollector] | None
    where: Callable[[Endpoint], bool] | None
    rng: Random | None


def load_balancer(
    path: str | Path | Mapping[str, Raw], settings: Iterable[str] = (), **extras: Unpack[Extras]
) -> ConfiguredBalancer:
    """Build the balancer that a fleet file describes.

    Args:
        path: The TOML file, or what such a file holds.
        settings: Values to override, in order, as ``--set`` of the commands does:
            ``"clients.zone=eu-1"``, ``"nodes.0.weight=2"``. A value is TOML, or plain text.
        extras: What no file can say: ``metrics``, ``failures``, ``where`` and ``clock`` as for
            `Balancer`, and ``rng``, the source of all chance.

    Returns:
        The balancer, whose nodes are `Endpoint` objects.

    Raises:
        ConfigError: The file cannot be read or is not as it must be: all that is wrong with it,
            with the place and what may stand there.
        ImportError: The source needs a package that is missing; the message says which extra.
        TypeError: A keyword is of the wrong kind, or the settings are no list of texts.

    A value that has no effect, such as ``tau`` for a strategy without it, is logged and nothing
    more.

    Where the file names a source, its watcher begins here, and this waits for the first answer,
    for ``source.timeout`` seconds at most. A source that cannot be asked is no error: the log says
    so, the balancer has no nodes yet, and the source is asked again. `ConfiguredBalancer.close`
    ends it.

    Thread-safety: each call builds a balancer of its own.

    Cost: O(nodes), once.

    Example:
        >>> fleet = {"nodes": ["10.0.0.1:80", "10.0.0.2:80"], "strategy": "round-robin"}
        >>> balancer = load_balancer(fleet)
        >>> balancer.pick().id
        '10.0.0.1:80'
        >>> load_balancer(fleet | {"limits": {"max_in_fligth": 5}})
        Traceback (most recent call last):
        ...
        loadwise.config.errors.ConfigError: the fleet: limits has no key 'max_in_fligth'; did you \
mean 'max_in_flight'? (there is max_in_flight, max_waiting)
    """
    fleet = read_fleet(path, settings)
    balancer = balancer_of(fleet, **extras)
    for text in fleet.unused:
        log_warning("%s: %s", visible(fleet.origin), visible(text))
    if balancer.watcher is not None:
        try:
            balancer.watcher.start()
        except BaseException:  # such as Ctrl-C: nobody would have anything to close
            balancer.close()
            raise
    return balancer


def balancer_of(fleet: FleetFile, **extras: Unpack[Extras]) -> ConfiguredBalancer:
    """Build the balancer of a fleet that has been read. Its watcher does not run yet.

    Raises:
        ConfigError: The nodes lack what the strategy needs, or the source is not as it must be.
        ImportError: The source needs a package that is missing.
        TypeError: A keyword is of the wrong kind.
    """
    table = fleet.table
    who = contender(table.strategy)
    clock = extras.pop("clock", time.monotonic)
    rng = extras.pop("rng", None)
    if not isinstance(rng, Random | None):
        raise TypeError(f"rng is {shown(rng)}; it must be a random.Random")
    quotas = FleetQuotas(table.quotas, table.clients.count, clock)
    options: dict[str, Any] = {
        "strategy": who.make(_seat_of(table, rng)),
        "panic_threshold": given(table.health.panic_threshold),
        "panic_window": table.health.panic_window,
        "name": table.name,
        "max_in_flight": table.limits.max_in_flight,
        "max_waiting": table.limits.max_waiting,
        "quota": quotas.tracker if table.quotas else None,
        "health": False,
        "clock": clock,
        **_optional_parts(table, who, rng),
        **extras,
    }
    if table.health.enabled and who.health:
        options["health"] = health_tracker(table.health, clock, rng)
    try:
        balancer = ConfiguredBalancer(fleet.nodes, quotas, _retries_of(table, clock), **options)
    except ValueError as error:
        raise ConfigError(fleet.origin, [str(error)]) from None
    balancer.watcher = watcher_of(fleet, balancer, rng)
    return balancer


def _seat_of(table: FleetTable, rng: Random | None) -> Seat:
    seat = Seat(rng, table.tau, table.clients.zone)
    if table.split is None:
        return seat
    tag = table.split.tag

    def group_of(node: Endpoint) -> str | None:
        return node.tags.get(tag)

    return replace(seat, shares=table.split.shares, group_of=group_of)


def _optional_parts(table: FleetTable, who: Contender, rng: Random | None) -> dict[str, Any]:
    """Return what a fleet has if its table is there, or the option behind its strategy."""
    parts: dict[str, Any] = {}
    if table.outliers is not None or who.outliers:
        parts["outliers"] = outlier_detection(table.outliers or Outliers(), rng)
    if table.slow_start is not None or who.slow_start:
        parts["slow_start"] = slow_start(table.slow_start or SlowStartTable())
    return parts


def _retries_of(table: FleetTable, clock: Clock) -> RetryRule:
    if table.callers is None:
        return RetryRule()
    return RetryRule(table.callers.attempts, RetryBudget(table.callers.budget, clock=clock))
