"""Searches for a node that know when it is no use to wait for one.

A balancer waits as long as it is told, because a cooldown may be lifted. A request that has a
caller waiting for it fails at once where every node is on cooldown for longer than it would wait.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from loadwise._prompt import Prompt
from loadwise.balancer import Balancer, Lease
from loadwise.balancer.acquiring import Acquisition
from loadwise.context import HashKey
from loadwise.errors import NoNodeAvailable
from loadwise.integrations._http.metering import Amounts, RequestAccount
from loadwise.integrations._http.settings import Options, Settings
from loadwise.integrations._llm.prompts import PromptAccount

__all__ = ["Search", "search_of", "waited"]

_UNTIL_A_COOLDOWN_ENDS = frozenset({"rate_limited", "excluded", "filtered", "drained"})


class Search:
    """One request's search for its nodes. Not thread-safe: it belongs to one request.

    Args:
        balancer: Who chooses.
        hash_key: What the request belongs to.
        cost: What it is expected to use.
        where: What its nodes have to pass.
        prompt: What a language model is to read, if the strategy goes by that.
    """

    __slots__ = ("_balancer", "_cost", "_hash_key", "_prompt", "_where")

    def __init__(
        self,
        balancer: Balancer[Any],
        hash_key: HashKey,
        cost: Amounts | None,
        where: Callable[[Any], bool] | None,
        prompt: Prompt | None = None,
    ) -> None:
        self._balancer = balancer
        self._hash_key = hash_key
        self._cost = cost
        self._where = where
        self._prompt = prompt

    def of(self, where: Callable[[Any], bool]) -> Lease[Any]:
        """Return a lease on a node of another kind, without a wait.

        Raises:
            NoNodeAvailable: There is none.
        """
        return self._balancer.acquire(
            hash_key=self._hash_key, cost=self._cost, where=where, prompt=self._prompt
        )

    def now(self) -> Lease[Any]:
        """Return a lease without a wait.

        Raises:
            NoNodeAvailable: There is none.
        """
        return self._balancer.acquire(
            hash_key=self._hash_key, cost=self._cost, where=self._where, prompt=self._prompt
        )

    def besides(self, tried: tuple[Hashable, ...]) -> Acquisition[Any]:
        """Return a search that leaves out nodes, and has not begun."""
        return self._acquisition(tried, 0.0)

    def wait(self, seconds: float, tried: tuple[Hashable, ...] = ()) -> Lease[Any]:
        """Return a lease; wait for one in this thread if need be.

        A synchronous client stops an event loop of its thread with every request, and so it may
        here; but not for any time, because what it waits for may be another task's to do.

        Args:
            seconds: For how long.
            tried: Nodes to leave out.

        Raises:
            NoNodeAvailable: There was none in time, or it would have been in vain to wait.
        """
        acquisition = self._acquisition(tried, seconds)
        found = _look(acquisition, seconds)
        if isinstance(found, NoNodeAvailable):
            return acquisition.in_thread(found, may_stop_loop=True)
        return found

    async def wait_async(self, seconds: float, tried: tuple[Hashable, ...] = ()) -> Lease[Any]:
        """Return a lease as `wait` does, without a thread."""
        acquisition = self._acquisition(tried, seconds)
        found = _look(acquisition, seconds)
        return await acquisition.in_task(found) if isinstance(found, NoNodeAvailable) else found

    def _acquisition(self, tried: tuple[Hashable, ...], seconds: float) -> Acquisition[Any]:
        return self._balancer.acquisition(
            hash_key=self._hash_key,
            exclude=tried,
            cost=self._cost,
            where=self._where,
            timeout=seconds,
            prompt=self._prompt,
        )


def _look(acquisition: Acquisition[Any], seconds: float) -> Lease[Any] | NoNodeAvailable:
    """Return a lease, or the refusal after which it is worth to wait.

    Raises:
        NoNodeAvailable: It is not.
    """
    found = acquisition.at_once()
    if isinstance(found, NoNodeAvailable) and _is_in_vain(found, seconds):
        raise acquisition.refused(found)
    return found


def _is_in_vain(refusal: NoNodeAvailable, seconds: float) -> bool:
    """Tell whether all nodes that may be asked are on cooldown for longer than is waited."""
    wait = refusal.retry_after
    return (
        wait is not None and wait > seconds and _UNTIL_A_COOLDOWN_ENDS.issuperset(refusal.reasons)
    )


def search_of(
    settings: Settings, options: Options, hash_key: HashKey, account: RequestAccount | None
) -> Search:
    """Return a request's search for its nodes."""
    cost = account.amounts if options.cost is None and account is not None else options.cost
    prompt = account.prompt if isinstance(account, PromptAccount) else None
    return Search(settings.balancer, hash_key, cost, options.where, prompt)


async def waited(
    settings: Settings, options: Options, hash_key: HashKey, account: RequestAccount | None
) -> tuple[Lease[Any] | NoNodeAvailable | None, float | None]:
    """Wait for a request's first node, where that is wanted.

    Returns:
        What has come of it, and when it began, by the balancer's clock.
    """
    patience = options.patience(settings)
    if not patience:
        return None, None
    limit, began = options.time(settings), settings.balancer.clock()
    search = search_of(settings, options, hash_key, account)
    try:
        found = await search.wait_async(patience if limit is None else min(patience, limit))
    except NoNodeAvailable as error:
        return error, began
    return found, began
