"""A quota that processes share, for asyncio."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from loadwise.clock import Clock
from loadwise.integrations.redis._background import BackgroundTask
from loadwise.integrations.redis._connection import (
    QUOTA,
    TROUBLE,
    AsyncClient,
    AsyncCommands,
    as_async_client,
    check_writable_async,
    run_async,
    with_short_timeouts_async,
)
from loadwise.integrations.redis._events import SharedEvent
from loadwise.integrations.redis._exchange import Steps, Unreachable
from loadwise.integrations.redis._mirror import OutagePolicy
from loadwise.integrations.redis._quota_face import Mode, QuotaFace
from loadwise.integrations.redis._reservation import SharedReservation
from loadwise.nodes import id_of
from loadwise.quota import QuotaConfig

__all__ = ["AsyncSharedQuota"]

T = TypeVar("T")


class AsyncSharedQuota(QuotaFace):
    """`SharedQuota` for asyncio: the same quotas, with the methods that wait to be awaited.

    These are `register`, `try_acquire` and `aclose`; all others, and `settle` and `cancel` of a
    reservation, answer on the spot as there. Since `try_acquire` is to be awaited, it cannot be
    given to a balancer as ``quota=``, but ``where=QuotaFilter(quota)`` keeps a balancer off nodes
    that are known to have nothing left. (`SharedQuota` in leased mode suits balancers in asyncio:
    no request waits for the network.)

    Args:
        client: A ``redis.asyncio.Redis`` that says where the server is.
        prefix: As for `SharedQuota`, and so are all others.
        mode: ``"strict"`` or ``"leased"``.
        on_outage: ``"local"`` or ``"refuse"``.
        timeout: Seconds.
        slice_share: Above 0 and at most 1.
        clock: Source of monotonic seconds.
        on_event: Called with each `SharedEvent`.

    Raises: as `SharedQuota` does.

    Thread-safety: await in one event loop at a time; all else from anywhere. A task works in the
    background from the first await on, until `aclose` or the end of the ``async with`` block.
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
        self._worker = BackgroundTask()
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
        node_id = id_of(node_id)
        self._core.register(node_id, config)
        await self._drive(self._core.greet(str(node_id)))
        self._worker.wake()

    async def try_acquire(
        self, node_id: Hashable, amounts: Mapping[str, float] | None = None
    ) -> SharedReservation | None:
        """Reserve quota for one request, in all dimensions or in none.

        Args, result and errors: as for `SharedQuota.try_acquire`. If it is cancelled, what it was
        about to reserve may stay charged.
        """
        return await self._drive(self._core.acquire(id_of(node_id), amounts))

    async def aclose(self) -> None:
        """Tell the server the rest, give back what is leased, and end the background task."""
        if await self._worker.aclose():
            if self._link.up:
                await self._drive(self._core.chores(last=True))
            await self._client.aclose()
        self._link.close()
        self._core.reconsider_all()

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

    def _attend(self) -> None:
        """Have a task in this event loop, and connections."""
        if self._worker.attend(self._step):
            self._client = cast(
                "AsyncCommands", with_short_timeouts_async(self._given, self._timeout)
            )

    async def _drive(self, steps: Steps[T]) -> T:
        self._attend()
        try:
            call = next(steps)
            while True:
                try:
                    raw = await run_async(self._client, QUOTA, self._key(call), call.payload)
                except TROUBLE as error:
                    self._unanswered = self._key(call)
                    self._failed(error)
                    call = steps.throw(Unreachable())
                else:
                    call = steps.send(self._read(call, raw))
        except StopIteration as stop:
            return cast("T", cast("Any", stop).value)
        finally:
            steps.close()  # an interruption leaves it open
            self._tell_news()

    async def _step(self) -> float:
        if not self._link.up:
            if (early := self._early()) > 0:
                return early
            try:
                await check_writable_async(self._client, self._unanswered)
            except TROUBLE as error:
                return self._failed(error)
            self._restored()
        return await self._drive(self._core.chores())
