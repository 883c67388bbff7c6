"""Sources of nodes that fleet files name."""

from __future__ import annotations

from random import Random

from loadwise.config.configured_balancer import ConfiguredBalancer
from loadwise.config.errors import ConfigError
from loadwise.config.file import FleetFile
from loadwise.config.records import DnsNodes, FileNodes, KubernetesNodes
from loadwise.discovery import (
    ConsulSource,
    DnsSource,
    FileSource,
    KubernetesSource,
    NodeSource,
    Watcher,
)
from loadwise.nodes import Endpoint

__all__ = ["nodes_now", "source_of", "watcher_of"]


def source_of(fleet: FleetFile) -> NodeSource[Endpoint] | None:
    """Return the source that a fleet names; ``None`` where it names nodes.

    Raises:
        ConfigError: Its values do not go together.
        ImportError: It needs a package that is missing.
    """
    try:
        return _made(fleet)
    except ValueError as error:
        raise ConfigError(fleet.origin, [f"source: {error}"]) from None


def _made(fleet: FleetFile) -> NodeSource[Endpoint] | None:
    table = fleet.table.source
    if table is None:
        return None
    if isinstance(table, FileNodes):
        return FileSource(table.path, table.interval)
    if isinstance(table, DnsNodes):
        return DnsSource(table.name, type=table.type, port=table.port)
    if isinstance(table, KubernetesNodes):
        return KubernetesSource(
            table.service, namespace=table.namespace, port=table.port, url=table.url
        )
    return ConsulSource(
        table.service,
        url=table.url,
        tag=table.tag,
        datacenter=table.datacenter,
        wait=table.wait,
    )


def watcher_of(
    fleet: FleetFile, balancer: ConfiguredBalancer, rng: Random | None
) -> Watcher[Endpoint] | None:
    """Return the watcher of a balancer, which does not run yet; ``None`` where none is needed.

    Raises:
        ConfigError, ImportError: As for `source_of`.
    """
    source, table = source_of(fleet), fleet.table.source
    if source is None or table is None:
        return None
    return Watcher(
        balancer,
        source,
        timeout=table.timeout,
        debounce=table.debounce,
        hold_back=table.hold_back,
        allow_empty=table.allow_empty,
        cache=table.cache,
        rng=rng,
    )


def nodes_now(fleet: FleetFile) -> tuple[Endpoint, ...]:
    """Return the nodes that a fleet names, or those that its source lists now, which is asked once.

    Raises:
        ConfigError: The source cannot be asked, or lists nothing.
        ImportError: It needs a package that is missing.
    """
    source = source_of(fleet)
    if source is None:
        return fleet.nodes
    try:
        feed = source.open()
        try:
            nodes = feed.fetch().nodes
        finally:
            feed.close()
    except Exception as error:  # noqa: BLE001 - whatever a source has to say
        raise ConfigError(fleet.origin, [f"source: {source!r} cannot be asked: {error}"]) from None
    if not nodes:
        raise ConfigError(fleet.origin, [f"source: {source!r} lists no nodes"])
    return nodes
