"""Failover of one request: the node of each attempt, and the wait for one."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import suppress
from typing import Any, NamedTuple

from loadwise.balancer import Lease
from loadwise.balancer.acquiring import Acquisition
from loadwise.errors import NoNodeAvailable
from loadwise.integrations._http.deadline import Deadline
from loadwise.integrations._http.node_search import Search
from loadwise.integrations._http.settings import Options, Settings
from loadwise.nodes import node_id

__all__ = ["Failover", "Prior"]


class Prior(NamedTuple):
    """History of a request before its way through the fleet.

    Args:
        ends: The deadline of the request that it was made of, as after a redirect.
        found: What has come of waiting for a node, where that was awaited.
        challenger: The node that has asked for credentials, which this request brings: what it has
            given with its challenge, other nodes may not know.
        began: When that waiting began, by the balancer's clock.
    """

    ends: float | None = None
    found: Lease[Any] | NoNodeAvailable | None = None
    challenger: Hashable | None = None
    began: float | None = None


class Failover:
    """Choice of the nodes that one request goes to, one after another.

    Args:
        settings: What holds for all requests.
        options: What this one says for itself.
        search: Its search for nodes.
        prior: What has been before it.

    Attributes:
        deadline: The moment by which the request has to end.

    Not thread-safe: it belongs to one request.
    """

    __slots__ = ("_limited", "_patient_until", "_search", "_stranded", "_tried", "deadline")

    def __init__(self, settings: Settings, options: Options, search: Search, prior: Prior) -> None:
        limit, patience = options.time(settings), options.patience(settings)
        clock, began = settings.balancer.clock, prior.began
        if began is None and (patience or limit is not None):
            began = clock()
        own = None if limit is None or began is None else began + limit
        self.deadline = Deadline(clock, own if prior.ends is None else prior.ends)
        self._search = search
        # Until when a node is waited for, if there is none.
        self._patient_until = began + patience if patience and began is not None else None
        # Where nothing but a node is missing for the next attempt: the search, and what it found.
        self._stranded: tuple[Acquisition[Any], NoNodeAvailable] | None = None
        self._tried: tuple[Hashable, ...] = ()
        # Those of them that a rate limit has refused.
        self._limited: tuple[Hashable, ...] = ()

    def first(self, prior: Prior) -> Lease[Any]:
        """Return a lease for the first attempt; wait for one if the request says so.

        Raises:
            NoNodeAvailable: There is none.
        """
        challenger, found = prior.challenger, prior.found
        if challenger is not None and found is None:
            with suppress(NoNodeAvailable):
                return self._search.of(lambda node: node_id(node) == challenger)
        if isinstance(found, NoNodeAvailable):
            raise found
        if found is not None:
            return found
        seconds = self.patience()
        return self._search.wait(seconds) if seconds else self._search.now()

    def next(self, failed: Hashable, *, may_return: bool) -> Lease[Any] | None:
        """Return a lease on a node that has not been tried; ``None`` if there is none now.

        Args:
            failed: The id of the node that has just been tried.
            may_return: Whether that one may be tried again after a wait, because it is on cooldown
                until then.
        """
        self._tried = (*self._tried, failed)
        if may_return:
            self._limited = (*self._limited, failed)
        search = self._search.besides(self._tried)
        found = search.look()
        if not isinstance(found, NoNodeAvailable):
            return found
        self._stranded = search, found
        if self._patient_until is None:
            self.abandon()
        return None

    @property
    def is_stranded(self) -> bool:
        """True if nothing but a node is missing for the next attempt, and may be waited for."""
        return self._stranded is not None

    def abandon(self) -> None:
        """Report to metrics that the next attempt has no node, and is not waited for."""
        stranded, self._stranded = self._stranded, None
        if stranded is not None:
            search, refusal = stranded
            search.refused(refusal)

    def patience(self) -> float:
        """Return for how many more seconds a node may be waited for."""
        if self._patient_until is None:
            return 0.0
        left = self._patient_until - self.deadline.clock()
        return max(0.0, min(left, self.deadline.seconds_left()))

    def wait(self, seconds: float) -> Lease[Any]:
        """Return a lease for the next attempt; wait for one in this thread.

        Raises:
            NoNodeAvailable: There was none in time, or it would have been in vain to wait.
        """
        return self._search.wait(seconds, self._excluded())

    async def wait_async(self, seconds: float) -> Lease[Any]:
        """Return a lease as `wait` does, without a thread."""
        return await self._search.wait_async(seconds, self._excluded())

    def _excluded(self) -> tuple[Hashable, ...]:
        """Return the nodes that are left out of a wait: those tried that may not return."""
        self._stranded = None
        self._tried = tuple(each for each in self._tried if each not in self._limited)
        self._limited = ()
        return self._tried
