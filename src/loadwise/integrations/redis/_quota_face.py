"""What shared quotas for threads and for asyncio have in common: all that does not wait."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType
from typing import Literal, get_args

from loadwise._numbers import number
from loadwise.clock import Clock, check_clock
from loadwise.integrations.redis._connection import CircuitBreaker
from loadwise.integrations.redis._core import Core
from loadwise.integrations.redis._events import EventLog, SharedEvent
from loadwise.integrations.redis._leases import LeasedCore
from loadwise.integrations.redis._mirror import OutagePolicy
from loadwise.integrations.redis._parsing import Rejected, as_seconds, check_prefix
from loadwise.integrations.redis._quota_wire import Call, Reply, parse_reply
from loadwise.nodes import id_of

__all__ = ["Mode", "QuotaFace"]

Mode = Literal["strict", "leased"]

_REFRESH = 1.0

_MEANWHILE = {
    "local": "meanwhile each process keeps to the limits by itself",
    "refuse": "meanwhile requests that need quota are refused",
}


class QuotaFace:
    """The methods of `loadwise.QuotaTracker` that answer on the spot.

    Args: as for `SharedQuota`, and

        wake: Called when there is something to tell the server; must not wait.
    """

    def __init__(
        self,
        prefix: str,
        mode: Mode,
        on_outage: OutagePolicy,
        *,
        timeout: float,
        slice_share: float,
        clock: Clock,
        on_event: Callable[[SharedEvent], object] | None,
        wake: Callable[[], None],
    ) -> None:
        check_prefix(prefix)
        self._timeout = as_seconds("timeout", timeout)
        check_clock(clock)
        for name, value, choices in (
            ("mode", mode, get_args(Mode)),
            ("on_outage", on_outage, get_args(OutagePolicy)),
        ):
            if value not in choices:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
        share = number("slice_share", slice_share)
        if not 0 < share <= 1:
            raise ValueError(f"slice_share is {slice_share!r}; it must be above 0 and at most 1")
        self._prefix = prefix
        self._wake = wake
        self._next_try = clock()
        # The key of the last call that failed, which is to work when the server is asked again.
        self._unanswered = f"{prefix}:quota:".encode()
        self._log = EventLog("quota", on_event)
        self._link = CircuitBreaker(self._log, clock, _MEANWHILE[on_outage])
        self._core: Core = (
            Core(clock, self._link, on_outage, _REFRESH, wake)
            if mode == "strict"
            else LeasedCore(clock, self._link, on_outage, _REFRESH, wake, share)
        )

    @property
    def version(self) -> int:
        """A number that is another one after every change of who is unavailable."""
        return self._core.version

    @property
    def clock(self) -> Clock:
        """The local clock, by which times are told."""
        return self._core.clock

    @property
    def connected(self) -> bool:
        """Whether the server can be reached, as far as is known."""
        return self._link.up

    @property
    def events(self) -> Mapping[str, int]:
        """How often each kind of `SharedEvent` has happened."""
        return MappingProxyType(self._log.counts)

    def remove(self, node_id: Hashable) -> None:
        """Forget a node and its limits in this process. Unknown ids are no error."""
        self._core.remove(id_of(node_id))

    def record_usage(self, node_id: Hashable, amounts: Mapping[str, float]) -> bool:
        """Charge what a request has used, as `loadwise.QuotaTracker.record_usage` does.

        It counts here at once, and elsewhere as soon as the background has told the server.
        """
        return self._core.record_usage(id_of(node_id), amounts)

    def mark_exhausted(self, node_id: Hashable, seconds: float) -> None:
        """Have a node sit out: here at once, and elsewhere, if it is registered, soon.

        Raises:
            ValueError: ``seconds`` is negative, NaN or infinite.
        """
        self._core.mark_exhausted(id_of(node_id), seconds)

    def lift(self, node_id: Hashable) -> bool:
        """End the pause of a node: here at once, and elsewhere, if it is registered, soon.

        Where another process has it sit out anew before all have heard, some may keep to the old
        pause, if that is longer.

        Returns:
            Whether the node sat out, as far as is known here.
        """
        return self._core.lift(id_of(node_id))

    def is_available(self, node_id: Hashable) -> bool:
        """Whether the node does not sit out and has room, as far as is known here."""
        return self._core.is_available(node_id)

    def remaining(self, node_id: Hashable, dimension: str) -> float:
        """Return the units left, as far as is known here; inf for a node without a quota.

        Raises:
            ValueError: The node has no such dimension.
        """
        return self._core.remaining(node_id, dimension)

    def remaining_by_dimension(self, node_id: Hashable) -> dict[str, float]:
        """Return the units left in every dimension, as far as is known here."""
        return self._core.remaining_by_dimension(node_id)

    def rests_until(self, node_id: Hashable) -> float | None:
        """Return when a node that sits out is back, or ``None``."""
        return self._core.rests_until(node_id)

    def available_at(self, node_id: Hashable, amounts: Mapping[str, float] | None = None) -> float:
        """Return when such a request will fit, as far as is known here; inf if never."""
        return self._core.available_at(node_id, amounts)

    def unavailable(self) -> list[Hashable]:
        """Return the ids of the nodes that are not available now."""
        return self._core.unavailable()

    def next_change(self) -> float:
        """Return when `unavailable` changes by the passing of time alone; inf if never."""
        return self._core.next_change()

    def _key(self, call: Call) -> bytes:
        return f"{self._prefix}:quota:{call.node_id}".encode()

    def _read(self, call: Call, raw: object) -> Reply:
        try:
            return parse_reply(raw, call.names, self._core.clock())
        except Rejected as error:
            return Reply("foreign", detail=str(error))

    def _failed(self, error: BaseException) -> float:
        """Take note that the server did not answer; return the seconds to wait."""
        if self._link.failed(error):
            self._wake()
        self._next_try = self.clock() + self._link.wait
        self._core.reconsider_all()
        return self._link.wait

    def _early(self) -> float:
        """Return by how many seconds it is too early to try again."""
        return max(0.0, self._next_try - self.clock())

    def _restored(self) -> None:
        if self._link.restored():
            self._core.reconsider_all()

    def _tell_news(self) -> None:
        news = self._core.news
        while news:
            try:
                kind, detail = news.popleft()
            except IndexError:  # another thread was quicker
                return
            self._log.add(kind, detail)

    def __repr__(self) -> str:
        state = "connected" if self.connected else "not connected"
        return f"<{type(self).__name__} {self._prefix!r}: {state}>"
