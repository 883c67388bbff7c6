"""Quotas that processes share, for threads and for asyncio."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Self, cast

from loadwise.clock import Clock
from loadwise.integrations.redis._arguments import Mode, OutagePolicy
from loadwise.integrations.redis._background import BackgroundTask, BackgroundThread
from loadwise.integrations.redis._connection import (
    ATTEMPTS_AT_END,
    QUOTA,
    TROUBLE,
    AsyncClient,
    AsyncCommands,
    Client,
    abandon,
    as_async_client,
    as_client,
    run,
    run_async,
    with_short_timeouts,
    with_short_timeouts_async,
)
from loadwise.integrations.redis._events import SharedEvent
from loadwise.integrations.redis._shared_counts import SharedCounts
from loadwise.integrations.redis._shared_node import PendingCall, SharedReservation
from loadwise.nodes import id_of
from loadwise.quota import QuotaConfig
from loadwise.quota.protocol import Amounts

__all__ = ["AsyncSharedQuota", "SharedQuota"]


class SharedQuota(SharedCounts):
    """Quotas of nodes, by id, that all processes with the same server and prefix share.

    It has the methods of `loadwise.QuotaTracker`: give it to a balancer as ``quota=``. Register
    the same limits in every process. A node without a registered quota is unlimited.

    Args:
        client: A ``redis.Redis``, or a ``redis.RedisCluster``, that says where the server is.
            Connections of its own are opened with the same settings, but for ``timeout`` and
            without retries.
        prefix: A node's HASH is named ``{prefix}:quota:{id}``; it expires when nothing in it
            counts any more.
        mode: ``"strict"``: the server decides on each request, in one round trip, for all
            dimensions at once. ``"leased"``: slices of the limits are taken in the background,
            and requests use those without waiting for the network; one that finds too little is
            refused, and more is taken. The first request of a process for a node waits for one
            round trip, in which it takes the first slice.
        on_outage: What to do while the server cannot be reached. ``"local"``: each process keeps
            to the limits by itself, starting from what it knows, so that all together may reach
            the number of processes times the limit. ``"refuse"``: `try_acquire` returns ``None``
            for registered nodes.
        timeout: Seconds to wait for the server at most, finite and > 0.
        slice_share: Of a limit, how much to hold ready in leased mode until the demand is known,
            above 0 and at most 1.
        clock: Source of monotonic seconds, to tell times by. Windows go by the server's clock.
        on_event: Called with each `SharedEvent`, in any thread; it must be quick.

    In both modes no stretch of ``window`` seconds, wherever it begins, holds more than the limit
    of reserved use, in all processes together. Strict mode: use is counted in buckets on a grid of
    the server's clock, each forgotten whole a window after its end. Leased mode: a slice counts as
    if it were used at the last moment at which it may be, a tenth of the node's shortest window
    and at most 5 s after it was taken; what was not used is given back. What is recorded, or
    settled above what was reserved, counts even beyond the limit.

    Each call states all that this process has used, so one that is lost, repeated or overtaken
    leaves nothing wrong behind. All this is as good as the server's clock and memory: after a
    restart or a flush the next call of each process, within a second or so, states its own use;
    until all have made one, more than the limit may be granted.

    At the first failure a circuit opens: nobody waits for a server that is down, and the
    background tries to reach it again. That it hangs is noticed by one request, which waits for
    ``timeout``. What was used meanwhile is told afterwards.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range, or the client is of one node of a cluster.

    Thread-safety: full. A daemon thread works in the background from the first use in a process on,
    again in the child of a fork, which leaves to the parent what the parent reserved. `register` is
    no such use. `close` it, or use it in a ``with`` block; a process that ends by itself, and an
    object that is dropped, do what `close` does.

    Cost: `try_acquire` in strict mode one round trip, `register` one, and the first question of a
    process about a node at most one; all else none.
    """

    def __init__(
        self,
        client: Client,
        prefix: str = "loadwise",
        mode: Mode = "strict",
        on_outage: OutagePolicy = "local",
        *,
        timeout: float = 0.25,
        slice_share: float = 0.1,
        clock: Clock = time.monotonic,
        on_event: Callable[[SharedEvent], object] | None = None,
    ) -> None:
        self._given = as_client(client)
        self._worker = BackgroundThread(f"loadwise quota {prefix}", self._step, self.close)
        super().__init__(
            prefix,
            mode,
            on_outage,
            timeout=timeout,
            slice_share=slice_share,
            clock=clock,
            on_event=on_event,
            wake=self._worker.wake,
        )
        self._client = with_short_timeouts(self._given, self._timeout)

    def _after_fork(self) -> None:
        super()._after_fork()
        abandon(self._client)
        self._client = with_short_timeouts(self._given, self._timeout)

    def register(self, node_id: Hashable, config: QuotaConfig) -> None:
        """Set a node's limits here, and ask the server what is used of them.

        Registering again replaces them and keeps what was used.

        Raises:
            TypeError: The id is no str or ``config`` not a `loadwise.QuotaConfig`.
            ValueError: A number in it is beyond what can be shared.
        """
        self._set_limits(id_of(node_id), config)
        for pending in self._due(id_of(node_id)):
            self._ask(pending)

    def try_acquire(
        self, node_id: Hashable, amounts: Amounts | None = None
    ) -> SharedReservation | None:
        """Reserve quota for one request, in all dimensions or in none.

        Args:
            node_id: The node's id.
            amounts: Units by dimension; each dimension not named is charged its default cost.

        Returns:
            The reservation, or ``None`` when it does not fit or the node is on cooldown.

        Raises:
            ValueError: A dimension is unknown, or an amount negative, NaN or infinite.
        """
        self._worker.attend()
        begun = self._begin(node_id, amounts)
        if not isinstance(begun, PendingCall):
            return begun
        self._ask(begun)
        return self._finish(begun)

    def close(self) -> None:
        """Tell the server the rest, give back what is leased, and end the background thread.

        Requests after that are treated as in an outage.
        """
        self._worker.close()
        self._tell_the_rest()
        self._circuit.close()
        self._reconsider_all()
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if "_client" in self.__dict__:  # else its arguments were refused
            self._worker.finish(self.close)

    def _keep_current(self, node_id: Hashable) -> None:
        if not self._worker.is_begun:
            self._worker.begin()
            for pending in self._due(id_of(node_id)):
                self._ask(pending)

    def _tell_the_rest(self) -> None:
        """Tell the server what it has not heard, and give back what is leased."""
        for _ in range(ATTEMPTS_AT_END):
            for pending in self._due_requests(last=True):
                self._ask(pending)

    def _ask(self, pending: PendingCall) -> None:
        """Send a call and take in the reply, or what it means that there is none."""
        try:
            raw = run(self._client, QUOTA, pending.node.key, pending.call.payload)
        except TROUBLE as error:
            self._failed(pending, error)
        else:
            self._received(pending, raw)
        finally:
            if pending.reply is None:
                self._unanswered(pending)
        if self._log.deferred:
            self._log.tell_deferred()

    def _step(self) -> float:
        began = self.clock()
        for pending in self._due_requests():
            self._ask(pending)
        return self._pause(began)


class AsyncSharedQuota(SharedCounts):
    """`SharedQuota` for asyncio: the same quotas, with the methods that wait to be awaited.

    These are `register`, `try_acquire` and `aclose`; all others, and `settle` and `cancel` of a
    reservation, answer on the spot as there. Since `try_acquire` is to be awaited, it cannot be
    given to a balancer as ``quota=``, but ``where=QuotaFilter(quota)`` keeps a balancer off nodes
    that are known to have nothing left. (`SharedQuota` in leased mode suits balancers in asyncio:
    no request waits for the network.)

    Args:
        client: A ``redis.asyncio.Redis``, or a ``redis.asyncio.RedisCluster``, that says where the
            server is.
        prefix: As for `SharedQuota`, and so are all others.
        mode: ``"strict"`` or ``"leased"``.
        on_outage: ``"local"`` or ``"refuse"``.
        timeout: Seconds.
        slice_share: Above 0 and at most 1.
        clock: Source of monotonic seconds.
        on_event: Called with each `SharedEvent`.

    Raises: as `SharedQuota` does.

    Thread-safety: await in one event loop at a time; all else from anywhere. A task works in the
    background from the first await on, until `aclose` or the end of the ``async with`` block; the
    end of `asyncio.run`, and an object that is dropped, do what `aclose` does.
    """

    def __init__(
        self,
        client: AsyncClient,
        prefix: str = "loadwise",
        mode: Mode = "strict",
        on_outage: OutagePolicy = "local",
        *,
        timeout: float = 0.25,
        slice_share: float = 0.1,
        clock: Clock = time.monotonic,
        on_event: Callable[[SharedEvent], object] | None = None,
    ) -> None:
        self._given = as_async_client(client)
        self._worker = BackgroundTask(self._step, self._end)
        super().__init__(
            prefix,
            mode,
            on_outage,
            timeout=timeout,
            slice_share=slice_share,
            clock=clock,
            on_event=on_event,
            wake=self._worker.wake,
        )
        self._client = cast("AsyncCommands", client)

    async def register(self, node_id: Hashable, config: QuotaConfig) -> None:
        """Set a node's limits here, and ask the server what is used of them.

        Raises: as `SharedQuota.register` does.
        """
        self._set_limits(id_of(node_id), config)
        for pending in self._due(id_of(node_id)):
            await self._ask(pending)

    async def try_acquire(
        self, node_id: Hashable, amounts: Amounts | None = None
    ) -> SharedReservation | None:
        """Reserve quota for one request, in all dimensions or in none.

        Args, result and errors: as for `SharedQuota.try_acquire`. If it is cancelled, what it was
        about to reserve is free again with the next call for the same node.
        """
        begun = self._begin(node_id, amounts)
        if not isinstance(begun, PendingCall):
            self._attend()
            return begun
        await self._ask(begun)
        return self._finish(begun)

    async def aclose(self) -> None:
        """Tell the server the rest, give back what is leased, and end the background task."""
        if await self._worker.aclose():
            await self._end()
        self._circuit.close()
        self._reconsider_all()

    async def __aenter__(self) -> Self:
        self._attend()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if "_client" in self.__dict__:  # else its arguments were refused
            self._worker.finish(self._end)

    async def _end(self) -> None:
        """Tell the server the rest, and close the connections of this event loop."""
        try:
            await self._tell_the_rest()
        finally:
            await self._client.aclose()

    async def _tell_the_rest(self) -> None:
        """Tell the server what it has not heard, and give back what is leased."""
        for _ in range(ATTEMPTS_AT_END):
            for pending in self._due_requests(last=True):
                await self._ask(pending)

    def _attend(self) -> None:
        """Have a task in this event loop, and connections."""
        if self._worker.attend():
            self._client = cast(
                "AsyncCommands", with_short_timeouts_async(self._given, self._timeout)
            )

    async def _ask(self, pending: PendingCall) -> None:
        """Send a call and take in the reply, or what it means that there is none."""
        self._attend()
        try:
            raw = await run_async(self._client, QUOTA, pending.node.key, pending.call.payload)
        except TROUBLE as error:
            self._failed(pending, error)
        else:
            self._received(pending, raw)
        finally:
            if pending.reply is None:
                self._unanswered(pending)
        if self._log.deferred:
            self._log.tell_deferred()

    async def _step(self) -> float:
        began = self.clock()
        for pending in self._due_requests():
            await self._ask(pending)
        return self._pause(began)
