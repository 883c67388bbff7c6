"""A fleet without servers: scripted answers, failures and latencies, in virtual time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Generic, Self, TypeVar, cast

from loadwise._callables import refuse_awaitable
from loadwise._numbers import finite, number, shown, whole
from loadwise.balancer import Balancer
from loadwise.errors import UnknownNode
from loadwise.load import InFlight
from loadwise.nodes import node_id, refuse_text
from loadwise.strategies import PowerOfTwoChoices
from loadwise.testing.virtual_time import VirtualClock

__all__ = ["Call", "FakeFleet"]

N = TypeVar("N")
T = TypeVar("T")

Latency = float | Callable[[Random], float]

_NOTHING: Any = object()


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a node of a `FakeFleet`, and what became of it.

    Attributes:
        node_id: Whom it was sent to.
        request: What was sent.
        began: When, by the fleet's clock.
        ended: When it had its answer or error; ``None`` while it is under way.
        answer: The answer, if it has one.
        error: The error, if it ended by one; `asyncio.CancelledError` where it was given up.
    """

    node_id: Hashable
    request: object
    began: float
    ended: float | None = None
    answer: object = None
    error: BaseException | None = None

    @property
    def ok(self) -> bool:
        """True if it had an answer."""
        return self.ended is not None and self.error is None

    def __str__(self) -> str:
        end = "" if self.ended is None else f" to {self.ended:g} s"
        what = "under way"
        if self.error is not None:
            what = shown(self.error)
        elif self.ended is not None:
            what = f"answered {shown(self.answer)}"
        request = "" if self.request is None else f" {shown(self.request)}"
        return f"{self.began:g}{end} {self.node_id!r}{request}: {what}"


class _Server:
    """Server behind one node, and what it will do."""

    def __init__(self, identity: Hashable) -> None:
        self.is_down = False
        self.answer: object = identity
        self.error: object = None
        self.share = 1.0
        self.latency: Latency = 0.0
        # For the next requests, one each.
        self.outcomes: deque[object] = deque()
        self.latencies: deque[Latency] = deque()


class FakeFleet(Generic[N]):
    """A fleet without servers, to test retries and failover of your own code in virtual time.

    Args:
        nodes: The nodes; or a mapping from each to a script: what its next requests come to. Of a
            script an exception, or a class of them, is raised, everything else is an answer; a
            list is a sequence of such. After it, and without one, a node answers with its id.
        latency: Seconds that a request takes, finite and >= 0; or a function of ``rng``.
        clock: The time; by default one that begins at 0.
        rng: Source of chance, for shares of failures, for latencies and for the choices of
            `balancer`; by default it is seeded, so that each run is like the last.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: There are two nodes with the same id, or ``latency`` is out of range.

    Attributes:
        clock: The time, for the balancer and whatever else is tested.
        rng: The source of chance.

    Not thread-safe: virtual time has one thread, or one event loop; see `VirtualClock`.

    Example:
        >>> fleet = FakeFleet(["a", "b"]).fail("a", ConnectionError, times=1).slow("b", 0.3)
        >>> balancer = fleet.balancer()
        >>> for attempt in balancer.attempts(2):
        ...     with attempt as lease:
        ...         answer = fleet.send(lease.node, "GET /")
        >>> answer, fleet.clock(), fleet.asked[-1]
        ('b', 0.3, 'b')
    """

    def __init__(
        self,
        nodes: Iterable[N] | Mapping[N, object],
        *,
        latency: Latency = 0.0,
        clock: VirtualClock | None = None,
        rng: Random | None = None,
    ) -> None:
        refuse_text(nodes)
        if clock is not None and not isinstance(clock, VirtualClock):
            raise TypeError(f"clock is {shown(clock)}; it must be a VirtualClock, or None")
        self.clock = VirtualClock() if clock is None else clock
        self.rng = Random(0) if rng is None else rng
        self._latency = _checked_latency(latency)
        self._nodes: dict[Hashable, N] = {}
        self._servers: dict[Hashable, _Server] = {}
        self._calls: list[Call] = []
        for node in nodes:
            self.add(node)
        if isinstance(nodes, Mapping):
            scripts = cast("Mapping[N, object]", nodes)
            for node, script in scripts.items():
                steps = cast("list[object]", script) if isinstance(script, list) else [script]
                self.script(node, *steps)

    def add(self, node: N) -> Self:
        """Add a node, which answers with its id.

        Raises:
            ValueError: There is one with this id.
        """
        identity = node_id(node)
        if identity in self._nodes:
            raise ValueError(f"there is a node with the id {identity!r} already")
        self._nodes[identity] = node
        self._servers[identity] = server = _Server(identity)
        server.latency = self._latency
        return self

    def script(self, node: object, *outcomes: object) -> Self:
        """Have the next requests to a node come to these outcomes, one each.

        Args:
            node: The node or its id; as everywhere here.
            outcomes: Exceptions, or classes of them, to raise; everything else is an answer.

        Raises:
            UnknownNode: There is no such node; as everywhere here.
        """
        self._server(node).outcomes.extend(outcomes)
        return self

    def answer(self, node: object, value: object, *, times: int | None = None) -> Self:
        """Have a node answer with a value; a function is called with the request.

        Args:
            node: The node or its id.
            value: The answer, or a function of the request that returns or raises it.
            times: For so many requests, after those that are scripted; ``None`` for all others,
                in the place of what it answered or failed with.
        """
        server = self._server(node)
        if times is None:
            server.answer, server.error = value, None
        else:
            server.outcomes.extend([value] * whole("times", times, 1))
        return self

    def fail(
        self,
        node: object,
        error: BaseException | type[BaseException] = ConnectionError,
        *,
        times: int | None = None,
        share: float = 1.0,
    ) -> Self:
        """Have requests to a node fail.

        Args:
            node: The node or its id.
            error: What to raise.
            times: So many, after those that are scripted; ``None`` for all others, until `answer`.
            share: Which part of those others fails, above 0 and at most 1, by chance.

        Raises:
            TypeError: ``error`` is no exception.
            ValueError: ``share`` is out of range, or given together with ``times``.
        """
        if not _is_error(error):
            raise TypeError(f"error is {shown(error)}; it must be an exception or a class of them")
        part = number("share", share)
        if not 0 < part <= 1:
            raise ValueError(f"share is {share!r}; it must be above 0 and at most 1")
        server = self._server(node)
        if times is None:
            server.error, server.share = error, part
        elif part < 1:
            raise ValueError("give either times or share, not both")
        else:
            server.outcomes.extend([error] * whole("times", times, 1))
        return self

    def slow(self, node: object, seconds: Latency, *, times: int | None = None) -> Self:
        """Have requests to a node take their time, whatever they come to.

        Args:
            node: The node or its id.
            seconds: How long, finite and >= 0; or a function of the fleet's ``rng``.
            times: For so many requests; ``None`` for all others.
        """
        server, latency = self._server(node), _checked_latency(seconds)
        if times is None:
            server.latency = latency
        else:
            server.latencies.extend([latency] * whole("times", times, 1))
        return self

    def down(self, node: object) -> Self:
        """Have a node refuse connections at once, until `up`. Its script waits."""
        self._server(node).is_down = True
        return self

    def up(self, node: object) -> Self:
        """End `down`."""
        self._server(node).is_down = False
        return self

    def send(self, node: object, request: object = None) -> Any:  # noqa: ANN401 - what is scripted
        """Send a request: let its latency pass, and return the answer.

        Args:
            node: The node or its id.
            request: Anything, for the record.

        Raises:
            BaseException: What was scripted.
        """
        number, outcome, seconds = self._begin(node, request)
        try:
            self.clock.sleep(seconds)
            answer = self._found(outcome, request)
            refuse_awaitable(f"node {node_id(node)!r}", answer, "use asend")
            return self._end(number, answer)
        except BaseException as error:
            self._break(number, error)
            raise

    async def asend(self, node: object, request: object = None) -> Any:  # noqa: ANN401 - as `send`
        """Send a request in a task, while other tasks go on; else as `send`."""
        number, outcome, seconds = self._begin(node, request)
        try:
            # Also where it takes no time: others go on, as while one waits for an answer.
            await self.clock.asleep(seconds)
            answer = self._found(outcome, request)
            if isinstance(answer, Coroutine):
                answer = await cast("Coroutine[Any, Any, object]", answer)
            return self._end(number, answer)
        except BaseException as error:
            self._break(number, error)
            raise

    def balancer(self, **options: Any) -> Balancer[N]:  # noqa: ANN401 - those of Balancer
        """Return a balancer of these nodes that goes by the fleet's clock.

        Args:
            options: Those of `Balancer`. Without a ``strategy`` it is the default one, but draws
                from the fleet's ``rng``.
        """
        options.setdefault("clock", self.clock)
        options.setdefault("strategy", PowerOfTwoChoices(load=InFlight(), rng=self.rng))
        return Balancer(self.nodes, **options)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in virtual time, `asyncio.sleep` and deadlines included.

        See `VirtualClock.run`.
        """
        return self.clock.run(main)

    @property
    def nodes(self) -> tuple[N, ...]:
        """The nodes, in order."""
        return tuple(self._nodes.values())

    @property
    def calls(self) -> tuple[Call, ...]:
        """Calls that were sent, in order."""
        return tuple(self._calls)

    @property
    def asked(self) -> list[Hashable]:
        """Ids of the nodes that requests were sent to, in order."""
        return [call.node_id for call in self._calls]

    def assert_asked(self, *nodes: object) -> None:
        """Check that requests were sent to these nodes, in this order, and to no others.

        Raises:
            AssertionError: They were not; it shows all that was sent.
        """
        wanted = [node_id(node) for node in nodes]
        asked = self.asked
        assert asked == wanted, f"asked were {asked}, not {wanted}:\n{self}"

    def assert_used_up(self) -> None:
        """Check that all that was scripted has happened.

        Raises:
            AssertionError: Something has not; it shows all that was sent.
        """
        left = {
            identity: [*server.outcomes, *(f"latency {shown(each)}" for each in server.latencies)]
            for identity, server in self._servers.items()
            if server.outcomes or server.latencies
        }
        assert not left, f"these have not happened: {left}\n{self}"

    def _server(self, node: object) -> _Server:
        server = self._servers.get(node_id(node))
        if server is None:
            raise UnknownNode(node_id(node), "the fake fleet", self._nodes)
        return server

    def _begin(self, node: object, request: object) -> tuple[int, object, float]:
        server = self._server(node)
        self._calls.append(Call(node_id(node), request, self.clock()))
        number = len(self._calls) - 1
        if server.is_down:
            return number, ConnectionRefusedError(f"{node_id(node)!r} is down"), 0.0
        latency = server.latencies.popleft() if server.latencies else server.latency
        seconds = _checked_latency(latency(self.rng)) if callable(latency) else latency
        if server.outcomes:
            outcome = server.outcomes.popleft()
        elif server.error is not None and (server.share == 1 or self.rng.random() < server.share):
            outcome = server.error
        else:
            outcome = server.answer
        return number, outcome, cast("float", seconds)

    def _found(self, outcome: object, request: object) -> object:
        if _is_error(outcome):
            raise cast("BaseException", outcome)
        return outcome(request) if callable(outcome) else outcome

    def _end(self, number: int, answer: object) -> object:
        self._calls[number] = replace(self._calls[number], ended=self.clock(), answer=answer)
        return answer

    def _break(self, number: int, error: BaseException) -> None:
        self._calls[number] = replace(self._calls[number], ended=self.clock(), error=error)

    def __str__(self) -> str:
        return "\n".join(map(str, self._calls)) or "nothing was sent"

    def __repr__(self) -> str:
        return f"<FakeFleet of {len(self._nodes)}: {len(self._calls)} calls, {self.clock():g} s>"


def _is_error(outcome: object) -> bool:
    kind = outcome if isinstance(outcome, type) else type(outcome)
    return issubclass(kind, BaseException)


def _checked_latency(latency: Latency) -> Latency:
    if callable(latency):
        return latency
    seconds = finite("a latency", latency)
    if not seconds >= 0:
        raise ValueError(f"a latency is {latency!r}; it must be finite and at least 0")
    return seconds
