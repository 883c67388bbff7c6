"""The balancer: strategy, health, quotas and filters wired together for the common case.

All that callers ask of a balancer stands on this one page, which is long for its docstrings; what
it does for them is in the modules beside it.
"""

from __future__ import annotations

import math
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Hashable,
    Iterable,
    Mapping,
    Sequence,
)
from functools import partial
from typing import Any, Generic, Literal, TypeVar, Unpack, overload

from loadwise._native import mypyc_attr
from loadwise._numbers import finite, whole
from loadwise._prompt import Prompt
from loadwise.backoff import Backoff
from loadwise.balancer.acquiring import Acquiring, Acquisition, checked_timeout
from loadwise.balancer.admission import Admission, Grant
from loadwise.balancer.arguments import (
    Unchanging,
    as_failures,
    as_slow_starts,
    as_tracker,
    check_outliers,
    check_quota,
    check_same_clock,
    checked_hung_after,
    first_clock,
    guarded,
    with_counter,
)
from loadwise.balancer.attempts import Attempts
from loadwise.balancer.calls import CallOptions, run, run_async
from loadwise.balancer.cooldowns import Cooldowns
from loadwise.balancer.explain import explain, no_node_available
from loadwise.balancer.failure_rules import ANY_EXCEPTION, FailureRule
from loadwise.balancer.fleet import Fleet
from loadwise.balancer.free_nodes import FreeNodes
from loadwise.balancer.host import LOOKS_AT_OTHERS, HealthVersion, Host, as_host, measures_of
from loadwise.balancer.lease import Lease
from loadwise.balancer.limits import Limit, Limits, Room
from loadwise.balancer.member_reports import Roster
from loadwise.balancer.outcome_reporting import Reporter
from loadwise.balancer.panic import Panic, PanicLog, PanicRule
from loadwise.balancer.request import NOBODY, Request, is_slight
from loadwise.balancer.slot import Slot
from loadwise.balancer.slow_start import SlowStart
from loadwise.balancer.status import Explanation, NodeStatus
from loadwise.balancer.subsetting import SubsetRule, Subsetting
from loadwise.balancer.view import View
from loadwise.balancer.wait_queue import WaitQueue
from loadwise.clock import Clock
from loadwise.context import EMPTY, HashKey, SelectionContext, context_of
from loadwise.errors import NoNodeAvailable
from loadwise.filters import as_filter
from loadwise.health import HealthTracker
from loadwise.load import FirstByteMeasure, InFlight, PendingTokens
from loadwise.metrics import GuardedCollector, MetricsCollector
from loadwise.node_set import NodeSet
from loadwise.nodes import node_id
from loadwise.outcome import Outcome, check_outcome
from loadwise.outliers import OutlierDetection
from loadwise.quota import QuotaSource, QuotaTracker
from loadwise.retry_budget import RetryBudget
from loadwise.strategies import PowerOfTwoChoices, Strategy
from loadwise.strategies.adapter import adapt, is_built_in, strategy_name

__all__ = ["Balancer"]

N = TypeVar("N")
R = TypeVar("R")


@mypyc_attr(allow_interpreted_subclasses=True)
class Balancer(Generic[N]):
    """Chooses a node per request and keeps the state that the choice depends on.

    Args:
        nodes: The members: anything with an ``id``, or hashable values. Of a mapping they are the
            keys.
        strategy: Who chooses; by default `PowerOfTwoChoices` over requests in flight.
        health: A tracker to use or share; ``True`` for one of its own, ``False`` or ``None`` to
            do without.
        panic_threshold: Share of available members, from 0 to 1, below which the balancer is in
            panic: then nodes that are ailing get requests, too, and if there are none, all do.
            0 for only when nobody is available; ``None`` for never.
        panic_window: Seconds since its last success for which a node may count as ailing, finite
            and > 0; ``None`` for the policy's ``probe_interval``, but at least 1 and at most 60.
        quota: Quotas to reserve from, by node id.
        where: A filter, or a function of a node, that holds for every request.
        metrics: Receives events; several may be given in a list.
        clock: Source of monotonic seconds; by default that of ``health`` or ``quota`` where
            given, else `time.monotonic`. All of them must go by the same clock (``==``).
        name: For error messages and metrics.
        failures: Which exceptions of a lease's block are failures of the node: exception types,
            or a function of the exception that returns an `Outcome`, or true for FAILURE; all
            others end it as cancelled. In `attempts` the default is ``retry_on``, `OSError` and
            `TimeoutError`.
        hung_after: Seconds, finite and > 0, after which a request that its caller gives up
            without an answer is a failure of the node; ``None`` for never.
        max_in_flight: How many requests a node may have in flight at once, from 1 to 2 ** 20; or a
            function of a node that returns that, asked when the node joins; ``None`` for no limit.
            Leases are counted, picks are not: those only pass over nodes that are full. With
            ``host``, those of all its processes are.
        max_waiting: How many requests may wait for a node at once (see ``timeout`` of `acquire`),
            >= 0; ``None`` for any number.
        slow_start: How the weight of a node grows that joins after the balancer's first second, or
            is HEALTHY again after it was UNHEALTHY; ``None`` for its full weight at once.
        subset: A function of all nodes that returns those to use as a `NodeSet`, such as a
            `RendezvousSubset` or an `Aperture`; asked again when a node comes or goes. ``None`` to
            use all.
        outliers: Ejects nodes that do worse than the rest; ``None`` for never. With ``health`` of
            ``False`` nodes go down for nothing else.
        host: A `loadwise.shared_memory.HostState`, by which the processes of a host see each
            other's load; ``None`` for this process alone.

    Raises:
        TypeError: An argument is of the wrong kind, or the strategy needs what a node lacks.
        ValueError: Two nodes share an id, a weight or ``hung_after`` is out of range, or the clocks
            of balancer, health, quota and load measures are not the same.

    Where most nodes fail, the balancer is in panic: it chooses among the nodes that still answer
    now and then, too, and where all are dead, among all of them.
    When nothing is left to choose, `NoNodeAvailable` says why and when to come back.

    Thread-safety: for threads and asyncio alike, by immutable views swapped by one assignment; a
    pick takes no lock while health, quotas and membership stay the same. In a forked child,
    requests that the parent has in flight are not counted.

    Cost: O(1) per pick and per release with an O(1) strategy; O(n) at the next pick after health,
    quotas, filters or membership changed, with the default strategy at the speed of a copy.

    Example:
        >>> balancer = Balancer(["10.0.0.1:8080", "10.0.0.2:8080"])
        >>> with balancer.acquire() as lease:
        ...     lease.node in ("10.0.0.1:8080", "10.0.0.2:8080")
        True
        >>> [status.in_flight for status in balancer.status()]
        [0, 0]
    """

    def __init__(  # noqa: PLR0913 - one keyword for each thing that a balancer decides
        self,
        nodes: Iterable[N] = (),
        strategy: Strategy[N] | None = None,
        *,
        health: HealthTracker | bool | None = True,
        panic_threshold: float | None = 0.5,
        panic_window: float | None = None,
        quota: QuotaSource | None = None,
        where: Callable[[N], bool] | None = None,
        metrics: MetricsCollector | Sequence[MetricsCollector] | None = None,
        clock: Clock | None = None,
        name: str = "default",
        failures: FailureRule = ANY_EXCEPTION,
        hung_after: float | None = None,
        max_in_flight: Limit[N] = None,
        max_waiting: int | None = None,
        slow_start: SlowStart | None = None,
        subset: SubsetRule[N] | None = None,
        outliers: OutlierDetection | None = None,
        host: Host | None = None,
    ) -> None:
        check_quota(quota)
        check_outliers(outliers)
        blamed = as_failures(failures)
        self._attempts_rule = None if failures is ANY_EXCEPTION else blamed
        self.name = name
        self._clock = first_clock(clock, health, quota)
        self._health = as_tracker(health, self._clock, outliers)
        self._is_private = health is None or health is False
        self._quota = quota
        self._quota_source = QuotaTracker(self._clock) if quota is None else quota
        default: PowerOfTwoChoices[N] = PowerOfTwoChoices(load=InFlight())
        self._strategy = adapt(default if strategy is None else strategy)
        self._strategy_name = strategy_name(self._strategy)
        self._select = self._strategy.select
        measures = with_counter(self._strategy.measures)
        self._host = host
        if host is not None:
            measures = measures_of(as_host(host, self._clock), self._strategy)
        for measure in measures:
            measure.use_clock(self._clock)
        parts: dict[str, object] = {"health": self._health, "quota": quota}
        parts |= {f"load measure {measure!r}": measure for measure in measures}
        check_same_clock(self._clock, parts)
        self._metrics = guarded(metrics, self)
        rule = PanicRule.of(panic_threshold, panic_window, self._health)
        on_panic = None if self._metrics is None else self._metrics.on_panic
        watch = None if host is None else host.watch(self._health)
        self._vitals: HealthVersion = watch or self._health or Unchanging()
        limits: Limits[N] = Limits(max_in_flight)
        free: FreeNodes[N] = FreeNodes()
        self._fleet: Fleet[N] = Fleet(
            name,
            measures,
            self._health,
            self._quota_source,
            has_quota=quota is not None,
            limits=limits,
            freed=free.freed,
            where=None if where is None else as_filter(where),
            rule=rule,
            slow=as_slow_starts(slow_start, self._clock, watch),
            on_panic=PanicLog(name, rule, self._clock, on_panic).tell,
            prepare=self._strategy.prepare,
            vitals=self._vitals,
        )
        self._all: Fleet[N] | Subsetting[N] = self._fleet
        if subset is not None:
            self._all = Subsetting(name, subset, self._fleet)
        self._all.replace(NodeSet(nodes))
        self._cooldowns = Cooldowns(self._quota_source, self._metrics)
        self._roster: Roster[N] = Roster(
            self._fleet, self._clock, self._health, self._quota_source, self._cooldowns, rule
        )
        self._admission: Admission[N] = Admission(self._strategy, self._health, quota, free)
        self._queue: WaitQueue[N, Lease[N]] = WaitQueue(
            self._clock,
            None if max_waiting is None else whole("max_waiting", max_waiting, 0),
            tells_apart=not is_built_in(self._strategy),
            looks_again=1.0 if host is None or not limits.exist else LOOKS_AT_OTHERS,
        )
        self._waiting = self._queue.waiting
        told = (self._health, self._cooldowns, self._metrics, rule)
        self._reporter = Reporter(
            self._fleet, self._clock, *told, blamed, checked_hung_after(hung_after), self._queue
        )
        self._dropped = self._reporter.dropped
        if outliers is not None and self._health is not None:
            # Last of all: who is refused for something else has not used it up.
            on_ejection = None if self._metrics is None else self._metrics.on_ejection
            fleet = self._fleet
            share = None if watch is None else watch.share_ejections
            ejector = outliers.begin(
                name, lambda: fleet.view.slots, self._health, on_ejection, share=share
            )
            self._reporter.ejector = ejector
            fleet.eject_outliers(ejector)

    def pick(
        self,
        context: SelectionContext | None = None,
        *,
        hash_key: HashKey = None,
        exclude: Iterable[Hashable] = NOBODY,
        cost: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        where: Callable[[N], bool] | None = None,
        prompt: str | Prompt | None = None,
    ) -> N:
        """Choose a node, without keeping track of the request.

        For callers that say by themselves how the request ended, with `report`. Quota is charged
        for good; a probe granted this way lapses if nothing is reported.

        Args and errors: as for `acquire`.
        """
        if (
            exclude is NOBODY
            and cost is None
            and where is None
            and prompt is None
            and (context is None or (hash_key is None and tags is None and is_slight(context)))
        ):
            if context is None:
                context = EMPTY if hash_key is None and tags is None else context_of(hash_key, tags)
            view = self._current_view()
            if view.plain:
                index = self._select(view.nodes, context)
                if index is not None and view.slots[index].room is None:
                    self._picked(view.slots[index])
                    return view.members[index]
            hash_key = tags = None
        request: Request[N] = Request(
            context,
            hash_key=hash_key,
            exclude=exclude,
            cost=cost,
            tags=tags,
            where=where,
            prompt=prompt,
        )
        found = self._queue.in_turn(self._grant, partial(self._chosen, request))
        if isinstance(found, NoNodeAvailable):
            if self._metrics is not None:
                self._metrics.on_unavailable(found.reason)
            raise found
        return found[0]

    def _chosen(self, request: Request[N]) -> tuple[N] | NoNodeAvailable:
        """Return a node without a lease, or why there is none."""
        try:
            view, found = self._find(request, for_lease=False)
            if isinstance(found, NoNodeAvailable):
                return found
            slot = view.slots[found.index]
            self._picked(slot)
            if request.prompt is not None:
                slot.prompt_sent(request.prompt, 0, self._clock())
            return (view.members[found.index],)
        except BaseException:
            self._admission.give_up(request)
            raise

    def acquire(
        self,
        context: SelectionContext | None = None,
        *,
        hash_key: HashKey = None,
        exclude: Iterable[Hashable] = NOBODY,
        cost: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        where: Callable[[N], bool] | None = None,
        prompt: str | Prompt | None = None,
        timeout: float | None = 0.0,
    ) -> Lease[N]:
        """Choose a node and hold it for one request.

        Args:
            context: A ready context, instead of the keywords; it excludes by index.
            hash_key: What the request belongs to, for strategies that keep a key on one node.
            exclude: Ids of nodes not to choose, or the nodes themselves. Those that are not
                members are ignored.
            cost: What the request is expected to use, by quota dimension; reserved atomically.
            tags: Free text for strategies of your own.
            where: A filter, or a function of a node, for this request only. A function is asked
                of every node: O(n); a filter such as `by_zone` once per membership.
            prompt: All that a language model is to read, for strategies that send it where its
                beginning is cached, such as `PrefixAffinity`.
            timeout: Seconds to wait for a node, >= 0; ``None`` for any time. Only what comes with
                time is waited for: a node that is full, on cooldown, out of quota or to be probed.
                Among requests that the same node could serve the longest waiting is the first.
                While it waits, ``where`` and the strategy are asked by whoever else looks for a
                node, one at a time: they must be quick, and take no lock that is held around calls
                of the balancer.

        Returns:
            The lease, to be used in a ``with`` or ``async with`` block.

        Raises:
            NoNodeAvailable: There is no node to choose, or was none in time.
            RuntimeError: It would have to wait in a thread that runs an event loop, which that
                would stop: await `acquire_async`.
            MissingHashKey: The strategy needs a ``hash_key``.
            TypeError: Both a context and keywords were given, or one is of the wrong kind.
            ValueError: ``cost`` names an unknown dimension or a bad amount, or ``timeout`` is
                negative.
        """
        if timeout:
            timeout = checked_timeout(timeout)
        if (
            exclude is NOBODY
            and cost is None
            and where is None
            and prompt is None
            and (context is None or (hash_key is None and tags is None and is_slight(context)))
        ):
            if context is None:
                context = EMPTY if hash_key is None and tags is None else context_of(hash_key, tags)
            # The common case, written out: each call saved is a twentieth of the whole.
            view = self._fleet.view
            started = self._clock()
            if (
                started >= view.until
                or view.quota_version != self._quota_source.version
                or view.health_version != self._vitals.version
                or self._dropped
            ):
                view = self._current_view()
                index = self._select(view.nodes, context) if view.plain else None
            else:
                index = self._select(view.nodes, context)
            if index is not None:
                slot = view.slots[index]
                if slot.room is None:
                    # What may raise or be interrupted comes before the lease, which counts.
                    next(slot.picks)
                    if self._metrics is not None:
                        self._metrics.on_selection(slot.id, self._strategy_name)
                    return Lease(self._reporter, slot, view.members[index], started)
                lease = self._enter(slot, slot.room, view.members[index])
                if lease is not None:
                    return lease
            hash_key = tags = None
        request: Request[N] = Request(
            context,
            hash_key=hash_key,
            exclude=exclude,
            cost=cost,
            tags=tags,
            where=where,
            prompt=prompt,
        )
        return self._acquire(request, math.inf if timeout is None else timeout)

    def _acquire(self, request: Request[N], seconds: float) -> Lease[N]:
        refusal: NoNodeAvailable | None = None
        if not self._waiting:
            found = self._grant(request)
            if not isinstance(found, NoNodeAvailable):
                return found
            refusal = found
        acquisition = self._acquisition(request, seconds)
        found = acquisition.at_once(refusal)
        return acquisition.in_thread(found) if isinstance(found, NoNodeAvailable) else found

    def _enter(self, slot: Slot, room: Room, node: N) -> Lease[N] | None:
        """Return a lease on a node with a limit, if it has room and nobody waits."""
        if self._waiting or room.debt or not room.free:
            return None
        if room.elsewhere is not None and room.left <= 0:
            return None
        started = self._clock()
        try:
            lease = Lease(self._reporter, slot, node, started, None, None, room)
        except IndexError:  # another thread was quicker
            return None
        if room.elsewhere is not None and room.left < 0:  # as above
            lease.call_off()
            return None
        try:
            self._picked(slot)
        except BaseException:
            lease.call_off()
            raise
        return lease

    def acquire_async(
        self,
        context: SelectionContext | None = None,
        *,
        hash_key: HashKey = None,
        exclude: Iterable[Hashable] = NOBODY,
        cost: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        where: Callable[[N], bool] | None = None,
        prompt: str | Prompt | None = None,
        timeout: float | None = 0.0,
    ) -> Acquiring[N]:
        """Choose a node and hold it for one request; wait for one in a task, if need be.

        Args and errors: as for `acquire`. Waiting needs an event loop of asyncio or trio. A task
        that is cancelled while it waits loses its place, and no node.

        Returns:
            What is to be awaited for the lease, or entered by ``async with``.

        Example:
            >>> import asyncio
            >>> balancer = Balancer(["gpu-1"], max_in_flight=1)
            >>> async def work(number):
            ...     async with balancer.acquire_async(timeout=5.0) as lease:
            ...         return f"{number} on {lease.node}"
            >>> async def both():
            ...     return await asyncio.gather(work(1), work(2))
            >>> asyncio.run(both())
            ['1 on gpu-1', '2 on gpu-1']
        """
        seconds = checked_timeout(timeout)
        request: Request[N] = Request(
            context,
            hash_key=hash_key,
            exclude=exclude,
            cost=cost,
            tags=tags,
            where=where,
            prompt=prompt,
        )
        return Acquiring(self._acquisition(request, seconds))

    def acquisition(
        self,
        *,
        hash_key: HashKey = None,
        exclude: Iterable[Hashable] = NOBODY,
        cost: Mapping[str, float] | None = None,
        where: Callable[[N], bool] | None = None,
        prompt: str | Prompt | None = None,
        timeout: float = 0.0,
    ) -> Acquisition[N]:
        """Return a search for a node, for integrations that see a refusal before they wait.

        Args: as for `acquire`.
        """
        request: Request[N] = Request(
            hash_key=hash_key, exclude=exclude, cost=cost, where=where, prompt=prompt
        )
        return self._acquisition(request, timeout)

    def _acquisition(self, request: Request[N], seconds: float) -> Acquisition[N]:
        return Acquisition(self._queue, self._grant, self._clock, self._metrics, request, seconds)

    def attempts(  # noqa: PLR0913 - those of acquire, and the limits
        self,
        n: int,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] = Exception,
        *,
        deadline: float | None = None,
        backoff: Backoff | None = None,
        budget: RetryBudget | None = None,
        timeout: float | None = 0.0,
        hash_key: HashKey = None,
        exclude: Iterable[Hashable] = NOBODY,
        cost: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        where: Callable[[N], bool] | None = None,
        prompt: str | Prompt | None = None,
    ) -> Attempts[N]:
        """Try a request on up to ``n`` nodes.

        Each attempt is a context manager that acquires a lease on a node not tried before. An
        exception of the kind ``retry_on``, or a lease ended by ``failure()`` or
        ``rate_limited()``, leads to the next attempt; the first success ends the loop. When the
        attempts or the nodes are used up, the last error is raised; if the last attempt was ended
        by a word on its lease there is none, and the loop just ends. A cancellation never is
        retried.

        Without ``backoff`` there is one round: never the same node twice. With it, a round ends
        when no node is left that was not tried in it. Then the next attempt waits when it is
        entered, in ``with`` by a sleep, in ``async with`` without stopping other tasks. After that
        all may be chosen again but those in ``exclude``. Where a new round finds no node, and time
        can help, it waits once more, and until the ``retry_after`` of `NoNodeAvailable` if that is
        later; where it cannot, the last error is raised. To find no node uses up no attempt. No
        wait goes past the deadline: where it would, the last error is raised at once. Give a
        deadline, because a quota may be used up for long.

        The first failure of the request counts against its node at once, later ones only once an
        attempt succeeds: what fails everywhere is the request's fault. Failures of probes, of
        RECOVERING nodes and of requests that were never sent (`Lease.refund`) count at once.

        Args:
            n: Attempts at most, >= 1.
            retry_on: The exceptions that lead to another attempt. They, `OSError` and
                `TimeoutError` are failures of the node, unless the balancer has ``failures``.
            deadline: Seconds from this call, finite and > 0, after which no attempt begins: then
                the last error is raised, or `TimeoutError` if there is none. An attempt under way
                goes on. ``None`` for none.
            backoff: How long to wait from round to round; ``None`` for one round only.
            budget: Limits retries: the request is deposited, each attempt after the first
                withdrawn; if that is refused there is none. ``None`` for no such limit.
            timeout: Seconds, at least 0, for which each attempt waits for a node where there is
                none, as in `acquire`, but not past the deadline; ``None`` for without bound.
            hash_key: As for `acquire`.
            exclude: As for `acquire`.
            cost: As for `acquire`; reserved for each attempt.
            tags: As for `acquire`.
            where: As for `acquire`.
            prompt: As for `acquire`.

        Raises:
            TypeError: ``n`` is not an int, ``retry_on`` not an exception type, or another argument
                of the wrong kind.
            ValueError: ``n``, ``deadline`` or ``timeout`` is out of range.
            NoNodeAvailable: When an attempt is entered, and there is no earlier error to raise.
            TimeoutError: When an attempt is entered too late, and there is none either.
            RuntimeError: When an attempt that has to wait is entered by ``with`` while an event
                loop runs in the thread; ``async with`` waits without stopping it.

        Example:
            >>> balancer = Balancer(["a", "b"])
            >>> tried = []
            >>> for attempt in balancer.attempts(3):
            ...     with attempt as lease:
            ...         tried.append(lease.node)
            ...         if len(tried) == 1:
            ...             raise ConnectionError("refused")
            >>> sorted(tried)
            ['a', 'b']
        """
        return Attempts(
            self,
            n,
            retry_on,
            self._attempts_rule,
            deadline,
            backoff,
            budget,
            timeout,
            hash_key,
            exclude,
            cost,
            tags,
            where,
            prompt,
        )

    @overload
    def call(
        self,
        fn: Callable[[N], R],
        /,
        *,
        with_lease: Literal[False] = False,
        **options: Unpack[CallOptions[N]],
    ) -> R: ...
    @overload
    def call(
        self,
        fn: Callable[[N, Lease[N]], R],
        /,
        *,
        with_lease: Literal[True],
        **options: Unpack[CallOptions[N]],
    ) -> R: ...
    def call(  # noqa: PLR0913 - those of attempts and acquire
        self,
        fn: Callable[..., R],
        /,
        *,
        attempts: int = 3,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] = Exception,
        deadline: float | None = None,
        backoff: Backoff | None = None,
        budget: RetryBudget | None = None,
        timeout: float | None = 0.0,
        with_lease: bool = False,
        hash_key: HashKey = None,
        exclude: Iterable[Hashable] = NOBODY,
        cost: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        where: Callable[[N], bool] | None = None,
        prompt: str | Prompt | None = None,
    ) -> R:
        """Call ``fn`` with one node after another, until it succeeds.

        ``fn(node)`` is one attempt of `attempts`, whose rules hold here: what is retried, on which
        nodes, and whose fault a failure is. With ``with_lease`` it is ``fn(node, lease)``, and may
        say on the lease what an answer is worth; where the last attempt is a failure by such a
        word, its answer is returned all the same.

        Args:
            fn: The request: a plain function of a node. For a coroutine function, see
                `call_async`.
            attempts: Attempts at most, >= 1.
            retry_on: As for `attempts`.
            deadline: As for `attempts`. The attempt under way is not ended by it: nothing can stop
                a function in its thread. Give ``fn`` a timeout of its own.
            backoff: As for `attempts`.
            budget: As for `attempts`.
            timeout: As for `attempts`.
            with_lease: Whether ``fn`` is given the lease, too.
            hash_key: As for `acquire`.
            exclude: As for `acquire`.
            cost: As for `acquire`; reserved for each attempt.
            tags: As for `acquire`.
            where: As for `acquire`.
            prompt: As for `acquire`.

        Returns:
            What ``fn`` returns. A stream is to be read before: its slot is given back here.

        Raises:
            NoNodeAvailable: There is no node for the first attempt, or none in time.
            TimeoutError: The deadline passed before any attempt began.
            RuntimeError: It would have to wait in a thread that runs an event loop.
            TypeError: ``fn`` is a coroutine function or a generator function, or returns what is
                to be awaited; or another argument is of the wrong kind.
            ValueError: An argument is out of range.

        Whatever the last attempt raises is raised here.

        Thread-safety: full.

        Cost: O(1), and that of ``fn``.

        Example:
            >>> balancer = Balancer(["a", "b"])
            >>> asked = []
            >>> def fetch(node):
            ...     asked.append(node)
            ...     if len(asked) == 1:
            ...         raise ConnectionError("refused")
            ...     return f"answer from {node}"
            >>> balancer.call(fetch) == f"answer from {asked[1]}"
            True
        """
        if attempts.__class__ is not int or attempts < 1:
            attempts = whole("attempts", attempts, 1)
        made = Attempts(
            self,
            attempts,
            retry_on,
            self._attempts_rule,
            deadline,
            backoff,
            budget,
            timeout,
            hash_key,
            exclude,
            cost,
            tags,
            where,
            prompt,
        )
        answer: R = run(made, fn, with_lease=with_lease)
        return answer

    @overload
    def call_async(
        self,
        fn: Callable[[N], Awaitable[R]],
        /,
        *,
        with_lease: Literal[False] = False,
        **options: Unpack[CallOptions[N]],
    ) -> Coroutine[Any, Any, R]: ...
    @overload
    def call_async(
        self,
        fn: Callable[[N, Lease[N]], Awaitable[R]],
        /,
        *,
        with_lease: Literal[True],
        **options: Unpack[CallOptions[N]],
    ) -> Coroutine[Any, Any, R]: ...
    def call_async(  # noqa: PLR0913 - those of attempts and acquire
        self,
        fn: Callable[..., Awaitable[R]],
        /,
        *,
        attempts: int = 3,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] = Exception,
        deadline: float | None = None,
        backoff: Backoff | None = None,
        budget: RetryBudget | None = None,
        timeout: float | None = 0.0,
        with_lease: bool = False,
        hash_key: HashKey = None,
        exclude: Iterable[Hashable] = NOBODY,
        cost: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        where: Callable[[N], bool] | None = None,
        prompt: str | Prompt | None = None,
    ) -> Coroutine[Any, Any, R]:
        """Await ``fn`` with one node after another, until it succeeds.

        As `call`, for a coroutine function, or a plain one whose answers are to be awaited. Waits
        between rounds and for a node let other tasks go on.

        Args:
            fn: The request: a function of a node that returns what is to be awaited.
            attempts: Attempts at most, >= 1.
            retry_on: As for `attempts`.
            deadline: As for `attempts`; besides, it cancels the attempt under way. For its node
                that is a request given up by its caller: no failure, unless ``hung_after`` of the
                balancer says so. It needs a task of asyncio.
            backoff: As for `attempts`.
            budget: As for `attempts`.
            timeout: As for `attempts`.
            with_lease: Whether ``fn`` is given the lease, too.
            hash_key: As for `acquire`.
            exclude: As for `acquire`.
            cost: As for `acquire`; reserved for each attempt.
            tags: As for `acquire`.
            where: As for `acquire`.
            prompt: As for `acquire`.

        Returns:
            A coroutine that returns what ``fn`` returns, awaited.

        Raises:
            NoNodeAvailable: There is no node for the first attempt, or none in time.
            TimeoutError: The deadline passed while an attempt was under way, or before any began.
            TypeError: ``fn`` returns what cannot be awaited, or another argument is of the wrong
                kind.
            ValueError: An argument is out of range.
            RuntimeError: There is a ``deadline``, and no task of asyncio.

        Whatever the last attempt raises is raised here. A cancellation from outside is never
        retried, and never taken for the deadline's.

        Thread-safety: full.

        Cost: O(1), and that of ``fn``.

        Example:
            >>> import asyncio
            >>> balancer = Balancer(["a", "b"])
            >>> async def fetch(node):
            ...     return "an answer"
            >>> asyncio.run(balancer.call_async(fetch, deadline=5.0))
            'an answer'
        """
        if attempts.__class__ is not int or attempts < 1:
            attempts = whole("attempts", attempts, 1)
        made = Attempts(
            self,
            attempts,
            retry_on,
            self._attempts_rule,
            deadline,
            backoff,
            budget,
            timeout,
            hash_key,
            exclude,
            cost,
            tags,
            where,
            prompt,
        )
        return run_async(made, fn, with_lease=with_lease)

    def explain(
        self,
        context: SelectionContext | None = None,
        *,
        hash_key: HashKey = None,
        exclude: Iterable[Hashable] = NOBODY,
        cost: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        where: Callable[[N], bool] | None = None,
        prompt: str | Prompt | None = None,
    ) -> Explanation:
        """Tell where such a request would go and why. It changes nothing. O(n).

        Args and errors: as for `acquire`, but for `NoNodeAvailable`, which is told in the result.
        """
        request: Request[N] = Request(
            context,
            hash_key=hash_key,
            exclude=exclude,
            cost=cost,
            tags=tags,
            where=where,
            prompt=prompt,
        )
        self._catch_up()
        view = self._fleet.look()
        return explain(
            self.name,
            self._strategy,
            view,
            request,
            self._quota,
            self._admission,
            self._cooldowns,
        )

    @property
    def reads_prompts(self) -> bool:
        """True if strategy or measures go by prompts, so that it is worth while to read them."""
        measures = self._strategy.measures
        return any(isinstance(each, (PendingTokens, FirstByteMeasure)) for each in measures)

    def _catch_up(self) -> None:
        self._reporter.close_dropped()
        if self._host is not None:
            self._host.catch_up()
        if self._reporter.ejector is not None:
            self._reporter.ejector.catch_up()

    def _current_view(self) -> View[N]:
        if self._dropped:
            self._reporter.close_dropped()
        return self._fleet.refreshed()

    def _grant(self, request: Request[N]) -> Lease[N] | NoNodeAvailable:
        """Return a lease, or why there is none."""
        try:
            view, found = self._find(request)
            if isinstance(found, NoNodeAvailable):
                return found
            slot = view.slots[found.index]
            # What may raise or be interrupted comes before the lease, which counts.
            self._picked(slot)
            node = view.members[found.index]
            started = self._clock()
            lease = Lease(
                self._reporter,
                slot,
                node,
                started,
                found.probe,
                found.reservation,
                request.room,
                request,
            )
            if request.prompt is not None:
                # Its end takes this token back, as it does those of measures that count ages.
                lease._token = token = id(lease)  # noqa: SLF001 - the two are one mechanism
                try:
                    slot.prompt_sent(request.prompt, token, started)
                except BaseException:
                    lease.call_off()
                    raise
            return lease  # noqa: TRY300 - one way out of many
        except BaseException:
            self._admission.give_up(request)
            self._reporter.tell_waiting(None)  # of what it gives back
            raise

    def _picked(self, slot: Slot) -> None:
        next(slot.picks)
        if self._metrics is not None:
            self._metrics.on_selection(slot.id, self._strategy_name)

    def _find(
        self, request: Request[N], *, for_lease: bool = True
    ) -> tuple[View[N], Grant | NoNodeAvailable]:
        """Find a node that grants what the request needs, or tell why there is none."""
        self._reporter.close_dropped()
        view = self._fleet.refreshed()
        found = self._admission.find(view, request, for_lease=for_lease)
        if isinstance(found, Grant):
            return view, found
        health, quota = self._health, self._quota_source
        request.pin(view.nodes)  # it may wait, and be asked for again when others are members
        return view, no_node_available(self.name, view, request, found, health, quota)

    def _has_only(self, ids: frozenset[Hashable]) -> bool:
        """Tell whether there is no member but these. O(number of ids)."""
        members = self._fleet.ids
        return len(ids) >= len(members) and ids.issuperset(members)

    def _anyone_left(self, request: Request[N]) -> bool:
        """Tell whether there is a node for such a request, as far as that can be told."""
        self._reporter.close_dropped()
        return self._admission.anyone(self._fleet.refreshed(), request)

    def report(
        self,
        id: Hashable,  # noqa: A002 - the name of the thing everywhere else
        outcome: Outcome,
        *,
        reason: str | BaseException | None = None,
        latency: float | None = None,
    ) -> None:
        """Say how a request to a node ended that was chosen by `pick`.

        Args:
            id: The member's id, or the member itself.
            outcome: How it ended. RATE_LIMITED puts the node on cooldown for a second.
            reason: What went wrong, for those who ask about the node's health.
            latency: How many seconds it took, finite and >= 0. With it, load measures and metrics
                are told, too; without it, only health.

        Raises:
            UnknownNode: There is no member with this id.
            TypeError: ``outcome`` is not an `Outcome`, or ``latency`` no number.
            ValueError: ``latency`` is negative, NaN or infinite.

        Thread-safety: full. Cost: O(1).

        Example:
            >>> balancer = Balancer(["a", "b"])
            >>> node = balancer.pick()
            >>> balancer.report(node, Outcome.FAILURE, reason="connection refused")
            >>> {status.id: status.health_reason for status in balancer.status()}[node]
            '1 failure, the last: connection refused'
        """
        slot = self._fleet.slot_of(id)
        check_outcome(outcome)
        if latency is not None:
            seconds = finite("latency", latency)
            if not seconds >= 0:
                raise ValueError(f"latency is {latency!r}; it must be finite and at least 0")
            latency = seconds
        self._reporter.reported(slot, outcome, latency, reason)

    @property
    def nodes(self) -> tuple[N, ...]:
        """The members, drained ones included, in order; of a subset those in it."""
        return self._fleet.nodes

    @property
    def all_nodes(self) -> tuple[N, ...]:
        """All nodes it was given, in order, whether they are in its subset or not."""
        return self._all.nodes

    def __contains__(self, id: object) -> bool:  # noqa: A002 - the name of the thing everywhere else
        """Tell whether there is a member with this id. O(log n)."""
        return self._fleet.has(node_id(id))

    @property
    def health(self) -> HealthTracker | None:
        """The health tracker, if there is one; none that serves ``outliers`` alone."""
        return None if self._is_private else self._health

    @property
    def panic(self) -> Panic | None:
        """State of panic, while the balancer is in it; else ``None``. O(1) between changes."""
        return self._fleet.refreshed().panic

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a node now."""
        return len(self._waiting)

    @property
    def metrics(self) -> GuardedCollector | None:
        """The metrics collector, guarded, if there is one; for integrations with more to tell."""
        return self._metrics

    @property
    def clock(self) -> Clock:
        """The clock, for integrations that keep time with the balancer."""
        return self._clock

    @property
    def quota(self) -> QuotaSource | None:
        """The quotas, if there are any."""
        return self._quota

    def add(self, node: N) -> None:
        """Add a member. O(n).

        Raises:
            ValueError: A member has the same id, or the weight is out of range.
            TypeError: The node lacks what the strategy needs.
        """
        self._all.add(node)
        self._reporter.tell_waiting(None)

    def remove(self, id: Hashable) -> None:  # noqa: A002 - the name of the thing everywhere else
        """Remove a member. Its leases in flight still end cleanly; its health is forgotten. O(n).

        Raises:
            UnknownNode: There is no member with this id.
        """
        self._all.remove(id)
        self._reporter.tell_waiting(None)

    def replace(self, nodes: Iterable[N]) -> None:
        """Replace all members at once; nodes whose id stays keep their state. O(n).

        Raises:
            TypeError, ValueError: As at construction; then nothing has changed.
        """
        self._all.replace(NodeSet(nodes))
        self._reporter.tell_waiting(None)

    def drain(self, id: Hashable) -> None:  # noqa: A002
        """Give a member no new requests; its leases in flight finish. O(n).

        Raises:
            UnknownNode: There is no member with this id.
        """
        self._all.set_draining(id, draining=True)
        self._reporter.tell_waiting(None)

    def resume(self, id: Hashable) -> None:  # noqa: A002
        """End a drain. O(n).

        Raises:
            UnknownNode: There is no member with this id.
        """
        self._all.set_draining(id, draining=False)
        self._reporter.tell_waiting(None)

    def status(self) -> list[NodeStatus]:
        """Return how each member is. O(n)."""
        self._catch_up()
        return self._roster.status()

    def status_dict(self) -> dict[str, Any]:
        """Return how the balancer and each member is, for ``json.dumps`` as it stands. O(n).

        Returns:
            A dict with the keys ``name``; ``strategy``; ``panic``, ``None`` or the attributes of
            `Panic` and all in words as ``text``; ``members``, how many nodes the balancer's filter
            admits and are not drained; ``available``, how many of those are not UNHEALTHY;
            ``counts``, how many nodes are in each state of health, by its name; ``on_cooldown``,
            how many are on cooldown; ``waiting``, how many requests wait for a node; and ``nodes``,
            the list of `NodeStatus.to_dict`.

        Thread-safety: full; the counts are of one moment each.

        Example:
            >>> told = Balancer(["a", "b"], name="search").status_dict()
            >>> told["name"], told["members"], told["available"], told["panic"]
            ('search', 2, 2, None)
            >>> [node["id"] for node in told["nodes"]]
            ['a', 'b']
        """
        self._catch_up()
        return self._roster.as_dict(self.name, self._strategy_name, self.waiting)

    def lift(self, id: Hashable) -> bool:  # noqa: A002
        """End a member's cooldown and its ejection, and nothing else.

        A drain, the quota that is used, and health that its failures have spoilt stay as they are.
        Of a node that was ejected one probe decides, or it is HEALTHY at once: as after an
        ejection that has lasted its time.

        Args:
            id: The member's id, or the member itself.

        Returns:
            Whether it was on a cooldown, or ejected.

        Raises:
            UnknownNode: There is no member with this id.
            TypeError: It is on a cooldown, and the quota is a source of your own that has no
                ``lift(node_id)``. Then nothing has changed.

        Thread-safety: full. Cost: O(1). Where the quota is shared, the others are told of a
        cooldown's end; an ejection is of this process alone.

        Example:
            >>> balancer = Balancer(["a"])
            >>> balancer.acquire().rate_limited(retry_after=30.0)
            True
            >>> balancer.lift("a"), balancer.lift("a"), balancer.pick()
            (True, False, 'a')
        """
        slot = self._fleet.slot_of(id)
        lifted = self._cooldowns.lift(slot)
        if self._reporter.ejector is not None:
            lifted |= self._reporter.ejector.lift(slot.id)
        elif self._health is not None and self._health.is_ejected(slot.id):
            # By another balancer with the same tracker, which sees it at its next sweep.
            self._health.readmit(slot.id, probe=True)
            lifted = True
        self._reporter.tell_waiting(None)
        return lifted

    def __repr__(self) -> str:
        return f"<Balancer {self.name!r}: {len(self.nodes)} nodes, {self._strategy_name}>"
