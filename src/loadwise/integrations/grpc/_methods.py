"""Methods of a service, and the arguments of their calls, for both channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from loadwise.balancer.per_node import PerNode
from loadwise.integrations._http.client_life import ClientLife
from loadwise.integrations.grpc._attempts import CallArguments, CallAttempts
from loadwise.integrations.grpc._connections import Connection, GrpcNode
from loadwise.integrations.grpc._settings import GrpcSettings

__all__ = ["Metadata", "Method", "NodeChannels"]

C = TypeVar("C", bound=Connection)

# Channels that are known before those that are no more are looked for.
_FEW = 16

Metadata = Sequence[tuple[str, str | bytes]]
"""Metadata that a caller sends along."""


class NodeChannels(Generic[C]):
    """Channels of all nodes.

    Args:
        settings: What holds for all calls.
        nodes: The nodes' channels.
        life: Tells whether they were closed.
    """

    __slots__ = ("life", "nodes", "settings")

    def __init__(
        self, settings: GrpcSettings, nodes: PerNode[Any, GrpcNode[C]], life: ClientLife
    ) -> None:
        self.settings = settings
        self.nodes = nodes
        self.life = life


class Method(Generic[C]):
    """A method of the service, as it is called on each node's channel.

    Args:
        fleet: The nodes' channels.
        name: Its full name.
        make: Makes what calls it on one channel.

    Thread-safety: full.
    """

    def __init__(self, fleet: NodeChannels[C], name: str, make: Callable[[C], Any]) -> None:
        self.fleet = fleet
        self.name = name
        self._make = make
        self._callables: dict[C, Any] = {}
        self._most = _FEW

    def on(self, connection: C) -> Any:
        """Return what calls the method on one node's channel."""
        found = self._callables.get(connection)
        return self._added(connection) if found is None else found

    def _added(self, connection: C) -> Any:
        """Make what calls the method on a channel, and forget the channels that are no more."""
        found = self._callables[connection] = self._make(connection)
        if len(self._callables) > self._most:
            present = {
                each: made for each, made in self._callables.copy().items() if not each.retired
            }
            self._most = 2 * len(present) + _FEW
            self._callables = present  # what another thread adds meanwhile is made again
        return found

    def attempts(self, arguments: CallArguments, request: Any, *, repeatable: bool) -> CallAttempts:
        """Return the attempts of a call, none of which has begun.

        Raises:
            ValueError: The channel has been closed.
        """
        fleet = self.fleet
        if fleet.life.closed:
            raise ValueError("Cannot invoke RPC on closed channel!")  # as gRPC has it
        return CallAttempts(
            fleet.settings, fleet.life, self.name, request, arguments, repeatable=repeatable
        )
