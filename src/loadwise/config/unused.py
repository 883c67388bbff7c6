"""Values of a fleet that nothing heeds: they are allowed, and told of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loadwise._tables.contenders import Contender, contender
from loadwise._tables.records import Health, Retries
from loadwise.config.records import FleetTable
from loadwise.nodes import Endpoint

__all__ = ["unused_values"]

_UNWEIGHTED = {"round-robin", "random"}


def unused_values(table: FleetTable, nodes: Sequence[Endpoint], *, has_tau: bool) -> Iterator[str]:
    """Yield what a fleet says in vain, with the reason and the remedy. O(nodes).

    It is no error, for one file may serve programs that choose by different strategies.

    Args:
        table: What the file says.
        nodes: The nodes that it names.
        has_tau: Whether the file says ``tau``, be it the default.

    Example:
        >>> list(unused_values(FleetTable(strategy="p2c", nodes=("a",)), [], has_tau=True))
        ["tau is 10.0, but 'p2c' has no use for it: 'p2c-peak-ewma' has, or leave it out"]
    """
    who = contender(table.strategy)
    for what, better in _of_strategy(table, nodes, who, has_tau=has_tau):
        plain = who.name.partition("/")[0]
        yield f"{what}, but {plain!r} has no use for it: {better!r} has, or leave it out"
    if table.clients.count > 1 and not table.quotas:
        yield (
            f"clients.count is {table.clients.count}, but there are no quotas to share: add "
            f"[[quotas]], or leave it out"
        )
    callers = table.callers or Retries()
    if callers.attempts == 1 and callers.budget not in {0, Retries().budget}:
        yield (
            f"callers.budget is {callers.budget}, but callers.attempts is 1, so that nothing is "
            f"retried: set attempts, such as 3, or leave the budget out"
        )
    is_tracked = table.health.enabled and who.health
    if not is_tracked and table.health not in {Health(), Health(enabled=False)}:
        reason = "health.enabled is false" if who.health else "the strategy has /no-health"
        yield f"health has values, but {reason}: leave out the one or the other"


def _of_strategy(
    table: FleetTable, nodes: Sequence[Endpoint], who: Contender, *, has_tau: bool
) -> Iterator[tuple[str, str]]:
    """Yield what the strategy does not heed, and the name of one that does."""
    plain = who.name.partition("/")[0]
    if has_tau and not who.forgets:
        yield f"tau is {table.tau}", "p2c-peak-ewma"
    if table.clients.zone is not None and plain != "zones":
        yield f"clients.zone is {table.clients.zone!r}", "zones"
    if plain != "tiers" and len({node.priority for node in nodes}) > 1:
        yield "the nodes differ in priority", "tiers"
    if plain in _UNWEIGHTED and len({node.weight for node in nodes if node.weight}) > 1:
        yield "the nodes differ in weight", f"weighted-{plain}"
