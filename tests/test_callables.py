"""Functions whose answers are used at once, and that would have to be awaited for them."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import logging
import math
import random
import sys
from collections.abc import Awaitable, Callable, Generator, Hashable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from tests.compiled import COMPILED

from loadwise import (
    AllOf,
    AnyOf,
    Balancer,
    Filter,
    Filtered,
    FnFilter,
    HealthStatus,
    HealthTracker,
    InFlight,
    LeastLoad,
    LoadwiseError,
    MostAvailable,
    NodeSet,
    NoopCollector,
    Not,
    Outcome,
    PeakEwma,
    PowerOfTwoChoices,
    QuotaFilter,
    QuotaTracker,
    RetryBudget,
    RoundRobin,
    SelectionContext,
)
from loadwise._callables import is_async, is_awaitable, refuse_awaitable
from loadwise.health import NodeHealth
from loadwise.health_checks import AsyncHealthChecker, HealthChecker, HttpProbe, TcpProbe
from loadwise.health_checks.plan import CheckPlan
from loadwise.health_checks.settings import CheckSettings
from loadwise.health_checks.thread_checker import _ThreadRun
from loadwise.load import Cell
from loadwise.testing import ManualClock

NODES = ["a", "b"]


async def coroutine_function(*_: object) -> Any:
    """Return false, for who awaits it."""
    return False


def generator_function(*_: object) -> Generator[bool, None, None]:
    """Yield false, for who iterates."""
    yield False


async def async_generator_function(*_: object) -> Any:
    """Yield false, for who iterates."""
    yield False


def plain(*_: object) -> float:
    """Return a number."""
    return 1.0


class AsyncCallable:
    """An object that is called by a coroutine method."""

    async def __call__(self, *_: object) -> Any:
        return False

    async def method(self, *_: object) -> Any:
        return False

    @staticmethod
    async def static(*_: object) -> Any:
        return False

    @classmethod
    async def of_class(cls, *_: object) -> Any:
        return False


class PlainCallable:
    """An object that is called by a plain method, and has another to be awaited."""

    def __call__(self, *_: object) -> float:
        return 1.0

    def method(self, *_: object) -> float:
        return 1.0

    async def other(self) -> None:
        """Do nothing."""


SEEN: dict[str, Any] = {
    "coroutine function": coroutine_function,
    "async generator function": async_generator_function,
    "generator function": generator_function,
    "async lambda's like": AsyncCallable().method,
    "static method": AsyncCallable.static,
    "class method": AsyncCallable.of_class,
    "object": AsyncCallable(),
    "class of such objects": AsyncCallable,
    "partial": functools.partial(coroutine_function),
    "partial of a partial of an object": functools.partial(functools.partial(AsyncCallable(), 1)),
    "mock": AsyncMock(),
}
UNSEEN: dict[str, Any] = {
    "lambda": lambda *_: coroutine_function(),
    "object": lambda *_: AsyncCallable()(),
    "generator": lambda *_: generator_function(),
}
each_seen = pytest.mark.parametrize("function", SEEN.values(), ids=SEEN)
each_unseen = pytest.mark.parametrize("function", UNSEEN.values(), ids=UNSEEN)


@each_seen
def test_what_is_to_be_awaited_is_seen(function: Any) -> None:
    """However a coroutine function is wrapped up, it is known for one."""
    assert is_async(function)


@pytest.mark.parametrize(
    "function",
    [
        plain,
        lambda: 0,
        PlainCallable(),
        PlainCallable,
        PlainCallable().method,
        functools.partial(plain, 1),
        len,
        {}.get,
        str,
        math.isfinite,
        Mock(),
        None,
        5,
    ],
)
def test_a_plain_function_is_not(function: Any) -> None:
    """Nor is a class, a built-in function, or what cannot be called at all."""
    assert not is_async(function)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="marks came with Python 3.12")
def test_a_mark_is_heeded() -> None:
    """A plain function may say of itself that it returns a coroutine."""
    mark: Callable[[Any], Any] = getattr(inspect, "markcoroutinefunction")  # noqa: B009 - new

    def marked(*_: object) -> Awaitable[bool]:
        return coroutine_function()

    assert is_async(mark(marked))


def test_answers_to_be_awaited_are_known() -> None:
    """Coroutines, futures and whatever else has an ``__await__``; numbers and texts are none."""

    class Custom:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def main() -> list[bool]:
        future: Any = asyncio.get_running_loop().create_future()
        answers: list[object] = [future, Custom(), 1.0, None, "x", [1], NodeSet([1])]
        return [is_awaitable(each) for each in answers]

    assert asyncio.run(main()) == [True, True, False, False, False, False, False]
    for function in UNSEEN.values():
        with pytest.raises(TypeError, match=r"^it returned <.*>, which is to be awaited; wait$"):
            refuse_awaitable("it", function(), "wait")
    refuse_awaitable("it", 5, "wait")
    gc.collect()  # a coroutine that was not closed warns now


class Strategy:
    """A strategy of one method, which is given."""

    def __init__(self, select: Callable[..., Any]) -> None:
        self.select = select


class Node:
    """A node whose methods are given."""

    def __init__(self, load: Callable[..., Any], identity: str = "a") -> None:
        self.id = identity
        self.load_score = self.remaining = load


class Policy:
    """A policy whose rule is given."""

    probe_interval = 10.0

    def __init__(self, rule: Callable[[NodeHealth, Outcome], HealthStatus]) -> None:
        self.next_status = rule


class Quota(QuotaTracker):
    """Quotas of which some method is given."""

    def __init__(self, name: str, method: Callable[..., Any]) -> None:
        super().__init__()
        setattr(self, name, method)


class Collector(NoopCollector):
    """A collector of which some method is given."""

    def __init__(self, name: str, method: Callable[..., Any]) -> None:
        setattr(self, name, method)


class Measure(InFlight):
    """A load measure of one's own, of which the load is given."""

    def __init__(self, load: Callable[..., Any]) -> None:
        super().__init__()
        self.give = load

    def load(self, cell: Cell) -> float:
        given: float = self.give(cell)
        return given


class AsyncMeasure(InFlight):
    """A load measure whose load is to be awaited."""

    async def load(self, cell: Cell) -> float:  # type: ignore[override]  # to be found out
        return 1.0


PLACES: dict[str, Callable[[Any], object]] = {
    "where of a balancer": lambda fn: Balancer(NODES, where=fn),
    "where of a request": lambda fn: Balancer(NODES).pick(where=fn),
    "where of an acquire": lambda fn: Balancer(NODES).acquire(where=fn),
    "where of attempts": lambda fn: Balancer(NODES).attempts(2, where=fn),
    "where of explain": lambda fn: Balancer(NODES).explain(where=fn),
    "FnFilter": FnFilter,
    "AllOf": AllOf,
    "AnyOf": AnyOf,
    "Not": Not,
    "&": lambda fn: FnFilter(plain) & fn,
    "Filtered": lambda fn: Filtered(RoundRobin(), fn),
    "load of P2C": PowerOfTwoChoices,
    "load of LeastLoad": LeastLoad,
    "load of a measure": lambda _: LeastLoad(AsyncMeasure()),  # type: ignore[arg-type]
    "load_score of a node": lambda fn: Balancer([Node(fn)], LeastLoad()),
    "load_score of a node, for P2C": lambda fn: PowerOfTwoChoices[Any]().select([Node(fn)]),
    "remaining of a node": lambda fn: Balancer([Node(fn)], MostAvailable()),
    "select": lambda fn: Balancer(NODES, Strategy(fn)),
    "select of a filtered one": lambda fn: Filtered(Strategy(fn), plain),  # type: ignore[arg-type]
    "policy": lambda fn: HealthTracker(Policy(fn)),
    "listener": lambda fn: HealthTracker().subscribe(fn),
    "clock of health": lambda fn: HealthTracker(clock=fn),
    "clock of quotas": QuotaTracker,
    "clock of a balancer": lambda fn: Balancer(NODES, clock=fn),
    "clock of a measure": lambda fn: PeakEwma(clock=fn),
    "clock of a budget": lambda fn: RetryBudget(clock=fn),
    "clock of a checker": lambda fn: HealthChecker(Balancer(NODES), plain, clock=fn),  # type: ignore[arg-type]
    "try_acquire": lambda fn: Balancer(NODES, quota=Quota("try_acquire", fn)),
    "available_at": lambda fn: Balancer(NODES, quota=Quota("available_at", fn)),
    "is_available": lambda fn: QuotaFilter(Quota("is_available", fn)),
    "on_outcome": lambda fn: Balancer(NODES, metrics=Collector("on_outcome", fn)),
    "on_retry": lambda fn: Balancer(NODES, metrics=Collector("on_retry", fn)),
    "attach": lambda fn: Balancer(NODES, metrics=Collector("attach", fn)),
    "probe": lambda fn: HealthChecker(Balancer(NODES), fn),
    "wait": lambda fn: HealthChecker(Balancer(NODES), plain, wait=fn),  # type: ignore[arg-type]
    "url of a probe": lambda fn: HttpProbe(url=fn),
    "address of a probe": TcpProbe,
}


@each_seen
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_it_is_refused_where_it_is_given(place: Callable[[Any], object], function: Any) -> None:
    """Wherever an answer is used at once, who would have to be awaited for it is refused."""
    with pytest.raises(TypeError, match=r"awaited; |is a coroutine function; |an instance"):
        place(function)


def test_a_filter_of_ones_own_is_refused_as_it_is_defined() -> None:
    """A coroutine as the answer of a `Filter` subclass would accept every node."""
    with pytest.raises(TypeError, match=r"whose __call__ is to be awaited; a pick cannot wait"):

        class Wrong(Filter[str]):
            async def __call__(self, node: str) -> bool:  # type: ignore[override]
                return False


class Sly(Filter[str]):
    """A filter that is a plain function, and returns what is to be awaited."""

    def __call__(self, node: str) -> bool:
        return coroutine_function()  # type: ignore[return-value]  # to be found out


LATER: dict[str, Callable[[Any], object]] = {
    "where of a balancer": lambda fn: Balancer(NODES, where=fn).pick(),
    "where of a request": lambda fn: Balancer(NODES).pick(where=fn),
    "where of attempts": lambda fn: next(Balancer(NODES).attempts(2, where=fn)).__enter__(),
    "a filter asked": lambda fn: FnFilter(fn)("a"),
    "AllOf": lambda fn: Balancer(NODES, where=AllOf(fn, fn)).pick(),
    "AnyOf": lambda fn: Balancer(NODES, where=AnyOf(fn)).pick(),
    "Not": lambda fn: Balancer(NODES, where=Not(fn)).pick(),
    "Filtered": lambda fn: Filtered(RoundRobin(), fn).select(NODES),
    "a filter of one's own": lambda _: Balancer(NODES, where=Sly()).pick(),
    "a part of one's own": lambda _: Balancer(NODES, where=Sly() & Sly()).pick(),
    "is_available": lambda fn: Balancer(NODES, where=QuotaFilter(Quota("is_available", fn))).pick(),
    "load of P2C": lambda fn: PowerOfTwoChoices(load=fn).select(NODES),
    "load of P2C, excluding": lambda fn: PowerOfTwoChoices(load=fn).select(
        ["a", "b", "c"], SelectionContext(exclude={0})
    ),
    "load of LeastLoad": lambda fn: Balancer(NODES, LeastLoad(load=fn)).pick(),
    "load of a measure": lambda fn: Balancer(NODES, LeastLoad(Measure(fn))).pick(),
    "load explained": lambda fn: Balancer(NODES, LeastLoad(load=fn)).explain(),
    "load_score": lambda fn: LeastLoad[Any]().select([Node(fn), Node(fn, "b")]),
    "remaining": lambda fn: MostAvailable[Any]().select([Node(fn)]),
    "select": lambda fn: Balancer(NODES, Strategy(fn)).pick(),
    "policy": lambda fn: HealthTracker(Policy(fn)).report_failure("a"),
    "try_acquire": lambda fn: Balancer(NODES, quota=Quota("try_acquire", fn)).pick(),
    "hash_key of a context": lambda fn: SelectionContext(hash_key=fn()),
    "address of a probe": lambda fn: TcpProbe(fn).check_node("a"),
    "url of a probe": lambda fn: HttpProbe(url=fn).check_node("a"),
}
if not COMPILED:  # else it is refused by its type, before a function begins
    LATER["hash_key"] = lambda fn: Balancer(NODES).pick(hash_key=fn())


@each_unseen
@pytest.mark.parametrize("use", LATER.values(), ids=LATER)
def test_an_answer_to_be_awaited_is_refused(use: Callable[[Any], object], function: Any) -> None:
    """Where the function does not show it, its answer does; and no coroutine is left behind."""
    with pytest.raises(TypeError, match=r"returned <.*>, which is to be awaited; "):
        use(function)
    gc.collect()  # a coroutine that was not closed warns now


@each_unseen
def test_a_listener_or_collector_is_complained_of(
    function: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What they return is nobody's to await; it is logged, and breaks no report."""
    health = HealthTracker()
    health.subscribe(function)
    balancer = Balancer(["a"], health=health, metrics=Collector("on_outcome", function))
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert balancer.acquire().failure()
    assert health.status("a") is HealthStatus.UNHEALTHY
    gc.collect()
    said = [record.message.split()[:3] for record in caplog.records]
    assert said.count(["the", "metrics", "collector"]) == 1
    assert said.count(["a", "health", "listener"]) == 2
    assert "nobody would await it" in caplog.text


def test_a_probe_that_returns_a_coroutine_blames_no_node(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A mistake of the program's own is logged once, and reported of nobody."""
    clock = ManualClock()
    balancer = Balancer(NODES, clock=clock)
    plan = CheckPlan(balancer, CheckSettings(clock=clock, rng=random.Random(1)))
    run = _ThreadRun(plan, lambda _: coroutine_function(), clock, lambda _, __: None)
    assert plan.turn(clock()) == ([], [])
    clock.advance(1.0)
    begun, _ = plan.turn(clock())
    assert sorted(check.node for check in begun) == NODES
    with caplog.at_level(logging.ERROR):
        for check in begun:
            run._ask(check)
    run._take_in()
    gc.collect()
    assert "the probe returned <coroutine" in caplog.text
    assert len(caplog.records) == 1
    assert balancer.health is not None
    assert balancer.health.snapshot() == {}
    clock.advance(6.0)
    assert sorted(check.node for check in plan.turn(clock())[0]) == NODES


def test_an_async_probe_is_known_however_it_is_wrapped() -> None:
    """The asyncio checker takes partials and objects, and refuses what is plain."""
    balancer = Balancer(NODES)
    for probe in (functools.partial(coroutine_function), functools.partial(AsyncCallable())):
        AsyncHealthChecker(balancer, probe)
    wrong: Any
    for wrong in (plain, AsyncCallable, functools.partial(plain)):
        with pytest.raises(TypeError, match="must be a coroutine function"):
            AsyncHealthChecker(balancer, wrong)


class Array:
    """Has neither a truth nor an order, as an array of several numbers."""

    def __bool__(self) -> bool:
        raise ValueError("the truth value of an array is ambiguous")


def test_a_filter_must_tell_true_from_false() -> None:
    """What is neither is refused with node and filter; numbers count as they do in Python."""
    balancer: Balancer[str] = Balancer(NODES)
    with pytest.raises(TypeError, match=r"the filter .*, asked of node 'a', returned <.*neither"):
        balancer.pick(where=lambda _: Array())  # type: ignore[arg-type, return-value]
    answers: dict[str, Any] = {"a": 0, "b": "yes"}
    assert {balancer.pick(where=lambda node: answers[node]) for _ in range(8)} == {"b"}


@pytest.mark.parametrize("load", [None, "x", [1], 1j, object(), Array()])
def test_a_load_must_be_a_number(load: Any) -> None:
    """What is none is refused, with the name of the node and what was returned."""
    message = r"the load of node 'a' is .*; it must be a number"
    context = SelectionContext(exclude={0})
    asked: list[Callable[[], object]] = [
        lambda: LeastLoad[str](load=lambda _: load).select(["a"]),
        lambda: PowerOfTwoChoices[str](load=lambda _: load).select(["z", "a"]),
        lambda: PowerOfTwoChoices[str](load=lambda _: load).select(["z", "a", "y"], context),
        lambda: LeastLoad[Any]().select([Node(lambda: load)]),
        lambda: Balancer(["a"], LeastLoad(load=lambda _: load)).explain(),
        lambda: Balancer(["a"], LeastLoad(Measure(lambda _: load))).pick(),
    ]
    for each in asked:
        with pytest.raises(TypeError, match=message.replace("'a'", "'[azy]'")):
            each()
    with pytest.raises(TypeError, match=r"remaining\(\) of node 'a' returned .*must return a num"):
        MostAvailable[Any]().select([Node(lambda: load)])


@pytest.mark.parametrize("kind", [int, float, Decimal, Fraction, lambda n: True if n == 1 else n])
def test_loads_of_every_kind_of_number_compare(kind: Callable[[int], Any]) -> None:
    """The least is found among numbers of all kinds, mixed with floats, and a NaN loses."""
    loads: dict[str, Any] = {"a": 2.5, "b": kind(1), "c": 7, "d": math.nan}
    nodes = list(loads)
    rng = random.Random(5)
    assert LeastLoad[str](loads.__getitem__).select(nodes) == 1
    pairs = PowerOfTwoChoices[str](loads.__getitem__, rng)
    assert {pairs.select(["a", "b"]) for _ in range(20)} == {1}
    assert {pairs.select(["b", "d"]) for _ in range(20)} == {0}
    assert {pairs.select(["c", "a", "b"], SelectionContext(exclude={0})) for _ in range(20)} == {2}
    left = [Node(functools.partial(loads.__getitem__, name), name) for name in nodes]
    assert MostAvailable[Any]().select(left) == 2


EMPTY = SelectionContext()


class Viewer:
    """A strategy of one's own that knows views, and gives the answers it is told to."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    measures = ()

    def select(self, candidates: Sequence[str], context: SelectionContext = EMPTY) -> Any:
        return self.answer

    peek = select

    def prepare(self, nodes: NodeSet[str]) -> None: ...

    def facts(self, nodes: NodeSet[str]) -> dict[str, Sequence[float]]:
        return {}


@pytest.mark.parametrize("answer", [True, False, -1, 3, 1.0, "1", [0]])
@pytest.mark.parametrize("knows_views", [True, False])
def test_a_wrong_index_is_refused(answer: Any, knows_views: bool) -> None:  # noqa: FBT001 - pytest
    """A bool is no index, though Python takes it for one; nor is what lies outside."""
    strategy: Any = Viewer(answer) if knows_views else Strategy(lambda *_: answer)
    balancer = Balancer(["a", "b", "c"], strategy)
    text = repr(answer).replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(LoadwiseError, match=rf"\w+\.select returned {text}; it must return an ind"):
        balancer.pick()
    if knows_views:
        with pytest.raises(LoadwiseError, match=r"Viewer\.peek returned"):
            balancer.explain()


def test_a_strategy_that_knows_views_keeps_to_them() -> None:
    """An index that is ruled out or excluded would undo a filter, or be asked for without end."""
    quota = QuotaTracker()
    quota.mark_exhausted("a", 60.0)
    balancer: Balancer[str] = Balancer(["a", "b"], Viewer(0), quota=quota, where=lambda n: n != "a")
    with pytest.raises(LoadwiseError, match=r"Viewer\.select returned 0, which the view rules out"):
        balancer.acquire()
    balancer = Balancer(["a", "b"], Viewer(1))
    assert balancer.pick() == "b"
    assert balancer.explain().strategy == "Viewer"
    with pytest.raises(LoadwiseError, match=r"Viewer\.select returned 1, which is excluded"):
        balancer.acquire(exclude=["b"])


def test_a_lister_is_a_listener_no_more() -> None:
    """What cannot be called at all is refused as a listener."""
    listener: Any = 5
    with pytest.raises(TypeError, match="listener is 5; it must be a function of an id"):
        HealthTracker().subscribe(listener)


def test_a_plain_listener_is_called() -> None:
    """One that returns something else than None does no harm."""
    heard: list[Hashable] = []
    health = HealthTracker()

    def listener(*change: object) -> Any:
        heard.append(change)
        return len(heard)

    health.subscribe(listener)
    for _ in range(2):
        health.report_failure("a")
    assert heard == [("a", HealthStatus.HEALTHY, HealthStatus.DEGRADED)]
