"""A quota that processes share, for threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from loadwise._fork import ForkAware, reset_in_child
from loadwise.clock import Clock
from loadwise.integrations.redis._background import BackgroundThread
from loadwise.integrations.redis._connection import (
    QUOTA,
    TROUBLE,
    Client,
    Commands,
    abandon,
    as_client,
    check_writable,
    run,
    with_short_timeouts,
)
from loadwise.integrations.redis._events import SharedEvent
from loadwise.integrations.redis._exchange import Steps, Unreachable
from loadwise.integrations.redis._mirror import OutagePolicy
from loadwise.integrations.redis._quota_face import Mode, QuotaFace
from loadwise.integrations.redis._reservation import SharedReservation
from loadwise.nodes import id_of
from loadwise.quota import QuotaConfig

__all__ = ["SharedQuota"]

T = TypeVar("T")


class SharedQuota(QuotaFace, ForkAware):
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
            refused, and more is taken.
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
    of reserved use, in all processes together. Strict mode: by buckets on the server, each
    forgotten whole a window after its last use. Leased mode: a slice counts until a window after
    the last moment at which it may be used, a tenth of the node's shortest window and at most 5 s
    after it was taken; what was not used is given back. What is recorded, or settled above what
    was reserved, counts even beyond the limit. All this is as good as the server's clock and
    memory: after a restart or a flush each process tells its own use anew once it notices, within
    a second or so, and until all have, more than the limit may be granted.

    At the first failure a circuit opens: nobody waits for a server that is down, and the
    background tries to reach it again. That it hangs is noticed by one request, which waits for
    ``timeout``. What was used meanwhile is told afterwards.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of range, or the client is of one node of a cluster.

    Thread-safety: full. A daemon thread works in the background, anew in the child of a fork, which
    leaves to the parent what the parent reserved. `close` it, or use it in a ``with`` block.

    Cost: `try_acquire` in strict mode one round trip, `register` one; all else none.
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
        self._worker = BackgroundThread(f"loadwise quota {prefix}")
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
        self._worker.start(self._step)
        reset_in_child(self)

    def _after_fork(self) -> None:
        abandon(self._client)
        self._client = with_short_timeouts(self._given, self._timeout)
        self._worker.restart_in_child()

    def register(self, node_id: Hashable, config: QuotaConfig) -> None:
        """Set a node's limits here, and ask the server what is used of them.

        Registering again replaces them and keeps what was used.

        Raises:
            TypeError: The id is no str or ``config`` not a `loadwise.QuotaConfig`.
            ValueError: A number in it is beyond what can be shared.
        """
        node_id = id_of(node_id)
        self._core.register(node_id, config)
        self._drive(self._core.greet(str(node_id)))
        self._worker.wake()

    def try_acquire(
        self, node_id: Hashable, amounts: Mapping[str, float] | None = None
    ) -> SharedReservation | None:
        """Reserve quota for one request, in all dimensions or in none.

        Args:
            node_id: The node's id.
            amounts: Units by dimension; each dimension not named is charged its default cost.

        Returns:
            The reservation, or ``None`` when it does not fit or the node sits out.

        Raises:
            ValueError: A dimension is unknown, or an amount negative, NaN or infinite.
        """
        return self._drive(self._core.acquire(id_of(node_id), amounts))

    def close(self) -> None:
        """Tell the server the rest, give back what is leased, and end the background thread.

        Requests after that are treated as in an outage.
        """
        self._worker.close()
        if self._link.up:
            self._drive(self._core.chores(last=True))
        self._link.close()
        self._core.reconsider_all()
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

    def _drive(self, steps: Steps[T]) -> T:
        try:
            call = next(steps)
            while True:
                try:
                    raw = run(cast("Commands", self._client), QUOTA, self._key(call), call.payload)
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

    def _step(self) -> float:
        if not self._link.up:
            if (early := self._early()) > 0:
                return early
            try:
                check_writable(cast("Commands", self._client), self._unanswered)
            except TROUBLE as error:
                return self._failed(error)
            self._restored()
        return self._drive(self._core.chores())
