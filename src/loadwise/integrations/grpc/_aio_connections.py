"""Channels of nodes in an event loop, and whether they are connected; see `_connections`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import grpc
import grpc.aio

from loadwise.balancer.per_node_stock import running_loop
from loadwise.integrations.grpc._connections import Connection

__all__ = ["AioConnection"]

_SOON: Final = 0.005
"""Seconds until a call that is sent is made by a task, if nobody awaits it."""

_READY: Final = grpc.ChannelConnectivity.READY
_FAILED: Final = frozenset(
    {grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN}
)


class SentCall(Protocol):
    """A call whose first attempt is sent."""

    def make(self) -> None:
        """Have a task make the call, if nobody does."""
        ...


class AioConnection(Connection):
    """A `grpc.aio.Channel` to one node. It belongs to its event loop.

    Args:
        channel: The channel.
        failed: Called with this object when it could not connect.
    """

    def __init__(self, channel: grpc.aio.Channel, failed: Callable[[AioConnection], None]) -> None:
        super().__init__()
        self.channel = channel
        self._failed = failed
        self._connecting: asyncio.Task[bool] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._sent: list[SentCall] = []

    @property
    def is_ready(self) -> bool:
        """True if the channel is connected."""
        return self.channel.get_state() is _READY

    def watch(self, call: SentCall, loop: asyncio.AbstractEventLoop) -> None:
        """Have a task make a call soon, unless it is awaited before, as nearly all are.

        Cost: O(1). One timer serves all calls of a few milliseconds: one for each would be a
        noticeable part of a call.
        """
        if not self._sent:
            loop.call_later(_SOON, self._see_to_sent)
        self._sent.append(call)

    def _see_to_sent(self) -> None:
        sent, self._sent = self._sent, []
        for call in sent:
            call.make()

    async def connect(self, seconds: float | None) -> bool:
        """Connect, or wait for who does so already; return whether the channel is connected.

        Args:
            seconds: For how long at most; ``None`` for as long as it takes.
        """
        task = self._connecting
        if task is None:
            # A task of its own, so that whoever is cancelled does not take the others along.
            task = self._connecting = asyncio.create_task(self._connect())
        await asyncio.wait((task,), timeout=seconds)
        return task.done() and not task.cancelled() and task.result()

    async def _connect(self) -> bool:
        try:
            state = self.channel.get_state(try_to_connect=True)
            while state is not _READY and state not in _FAILED:
                await self.channel.wait_for_state_change(state)
                state = self.channel.get_state(try_to_connect=True)
        except grpc.aio.UsageError:  # it has been closed
            return False
        finally:
            self._connecting = None
        if state is not _READY:
            self._failed(self)
        return state is _READY

    def shut(self) -> None:
        """Close the channel, in a task of its own."""
        loop = running_loop()
        if self._closing is None and loop is not None:  # without one there is nothing to close
            self._closing = loop.create_task(self.channel.close())

    async def close(self, grace: float | None) -> None:
        """Close the channel now.

        Args:
            grace: Seconds that the calls under way are given.
        """
        await self.channel.close(grace)
