"""No node is ever given more requests at once than its limit, and no slot is lost."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from itertools import count
from threading import Barrier, Lock, Thread
from typing import Any

import pytest
from tests.balancer.interrupting import strike_at
from tests.balancer.test_complexity import instructions
from tests.compiled import COMPILED

from loadwise import (
    Balancer,
    ConsistentHash,
    Endpoint,
    FallbackChain,
    Filtered,
    FnFilter,
    InFlight,
    Lease,
    LeastLoad,
    NoNodeAvailable,
    Outcome,
    PeakEwma,
    PowerOfTwoChoices,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    Random,
    RoundRobin,
    SelectionContext,
    Strategy,
    WeightedRandom,
    WeightedRoundRobin,
    WithFallback,
)
from loadwise.context import EMPTY
from loadwise.testing import ManualClock

FEW, MANY = 10, 500

_given: list[Lease[Any]] = []


@pytest.fixture(autouse=True)
def _end_what_is_held() -> Iterator[None]:
    yield
    while _given:
        _given.pop().cancel()


class Numbered(int):
    """A node that is its own id, and has a weight."""

    weight = 2


def numbered(size: int) -> list[Numbered]:
    """Return nodes from 0 on."""
    return [Numbered(number) for number in range(size)]


class Last:
    """A strategy of a user's own that knows nothing of views."""

    def select(self, candidates: Sequence[Any], context: SelectionContext = EMPTY) -> int | None:
        del context
        return len(candidates) - 1 if candidates else None


STRATEGIES: list[Callable[[], Strategy[Any]]] = [
    RoundRobin,
    WeightedRoundRobin,
    lambda: Random(rng=random.Random(1)),
    lambda: WeightedRandom(rng=random.Random(2)),
    lambda: PowerOfTwoChoices(load=InFlight(), rng=random.Random(3)),
    lambda: PowerOfTwoChoices(load=PeakEwma(), rng=random.Random(4)),
    lambda: LeastLoad(load=InFlight(), rng=random.Random(5)),
    lambda: LeastLoad(load=lambda node: -node, rng=random.Random(6)),
    lambda: ConsistentHash(virtual_nodes=8),
    lambda: WithFallback(ConsistentHash(virtual_nodes=8), RoundRobin()),
    lambda: FallbackChain([LeastLoad(load=InFlight()), RoundRobin()]),
    Last,
]
each_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


def taken(balancer: Balancer[Any], **keywords: Any) -> Lease[Any]:
    """Return a lease that ends with the test at the latest."""
    _given.append(balancer.acquire(**keywords))
    return _given[-1]


def fill(balancer: Balancer[Any], *, but: Hashable = None) -> list[Lease[Any]]:
    """Take every slot there is, but for those of one node."""
    held: list[Lease[Any]] = []
    exclude = () if but is None else (but,)
    while True:
        try:
            held.append(taken(balancer, hash_key=len(held), exclude=exclude))
        except NoNodeAvailable:
            return held


@each_strategy
@pytest.mark.parametrize("size", [1, 5, 40])
def test_all_slots_can_be_taken_and_no_more(
    strategy: Callable[[], Strategy[Any]], size: int
) -> None:
    """Whatever the strategy prefers, requests are refused only once every node is full."""
    balancer = Balancer(numbered(size), strategy(), max_in_flight=3)
    for _ in range(3):
        held = fill(balancer)
        assert len(held) == 3 * size
        assert [status.in_flight for status in balancer.status()] == [3] * size
        with pytest.raises(NoNodeAvailable) as refused:
            balancer.acquire(hash_key=1)
        assert refused.value.reasons == {"full": size}
        assert refused.value.reason == "full"
        for lease in held:
            lease.success()
    assert [status.in_flight for status in balancer.status()] == [0] * size


@each_strategy
def test_the_only_node_with_room_is_found(strategy: Callable[[], Strategy[Any]]) -> None:
    """Wherever it is, and however often it changes."""
    balancer = Balancer(numbered(30), strategy(), max_in_flight=1)
    held = {lease.node: lease for lease in fill(balancer)}
    for node in [*range(30), *random.Random(1).choices(range(30), k=60)]:
        held[node].success()
        held[node] = taken(balancer, hash_key=node)
        assert held[node].node == node
    for lease in held.values():
        lease.success()


def test_a_key_whose_owner_is_full_goes_where_it_would_without_that_owner() -> None:
    """Affinity is lost for as long as it must be, and to one other node only."""
    balancer = Balancer(range(50), ConsistentHash(virtual_nodes=16), max_in_flight=1)
    free = Balancer(range(50), ConsistentHash(virtual_nodes=16))
    for key in range(40):
        expected: list[int] = []
        held: list[Lease[int]] = []
        for _ in range(20):
            expected.append(free.pick(hash_key=key, exclude=expected))
            held.append(taken(balancer, hash_key=key))
        assert [lease.node for lease in held] == expected
        for lease in held:
            lease.success()


@pytest.mark.parametrize("kept", [1, 3, 20])
def test_a_chain_asks_its_later_strategies_only_when_the_first_ones_nodes_are_full(
    kept: int,
) -> None:
    """The first tier is used up before the second, however large the two are."""
    few: FnFilter[int] = FnFilter(lambda node: node < kept)
    first: Strategy[int] = Filtered(RoundRobin(), few)
    balancer = Balancer(range(200), WithFallback(first, RoundRobin()), max_in_flight=2)
    held = [taken(balancer) for _ in range(2 * kept + 5)]
    assert {lease.node for lease in held[: 2 * kept]} == set(range(kept))
    assert not {lease.node for lease in held[2 * kept :]} & set(range(kept))
    held[kept].success()
    assert taken(balancer).node == held[kept].node


@pytest.mark.parametrize("limit", [1, 3])
def test_no_limit_is_exceeded_by_threads(limit: int) -> None:
    """Eight threads count for themselves how many hold a node."""
    balancer = Balancer(range(3), max_in_flight=limit)
    holding = [0, 0, 0]
    most = [0, 0, 0]
    lock = Lock()
    start = Barrier(8)
    granted = count()

    def work() -> None:
        start.wait()
        for _ in range(1500):
            try:
                lease = balancer.acquire()
            except NoNodeAvailable:
                continue
            next(granted)
            with lock:
                holding[lease.node] += 1
                most[lease.node] = max(most[lease.node], holding[lease.node])
            with lock:
                holding[lease.node] -= 1
            lease.success()

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert max(most) <= limit
    assert next(granted) > 0
    assert len(fill(balancer)) == 3 * limit


def test_limits_by_node() -> None:
    """A function is asked once per node when it joins, and may say that there is none."""
    asked: list[str] = []

    def limit(node: str) -> int | None:
        asked.append(node)
        return {"a": 1, "b": 2}.get(node)

    balancer = Balancer(["a", "b", "c"], RoundRobin(), max_in_flight=limit)
    held = [taken(balancer) for _ in range(12)]
    assert sorted(lease.node for lease in held) == ["a", "b", "b"] + ["c"] * 9
    balancer.add("d")
    assert asked == ["a", "b", "c", "d"]
    assert [status.limit for status in balancer.status()] == [1, 2, None, None]


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (0, ValueError, "max_in_flight is 0; it must be at least 1"),
        (-3, ValueError, "max_in_flight is -3; it must be at least 1"),
        (2**21, ValueError, "max_in_flight is 2097152; it must be at most 1048576"),
        (1.5, TypeError, "max_in_flight is 1.5; it must be an int"),
        (True, TypeError, "max_in_flight is True; it must be an int"),
        ("2", TypeError, "max_in_flight is '2'; it must be an int"),
        (lambda _: 0, ValueError, "max_in_flight of node 'a' is 0; it must be at least 1"),
        (lambda _: "x", TypeError, "max_in_flight of node 'a' is 'x'; it must be an int"),
    ],
)
def test_wrong_limits(wrong: Any, error: type[Exception], message: str) -> None:
    """They are refused at construction, by value and node."""
    with pytest.raises(error, match=message.replace("(", r"\(")):
        Balancer(["a"], max_in_flight=wrong)


def test_a_limit_that_would_have_to_be_awaited_is_refused() -> None:
    """Its coroutine is no number."""

    async def limit(node: str) -> int:
        return len(node)

    with pytest.raises(TypeError, match="max_in_flight"):
        Balancer(["a"], max_in_flight=limit)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="max_in_flight"):
        Balancer(["a"], max_in_flight=partial(limit))  # type: ignore[arg-type]

    class Hidden:
        def __call__(self, node: str) -> Any:
            return limit(node)

    with pytest.raises(TypeError, match="max_in_flight of node 'a'"):
        Balancer(["a"], max_in_flight=Hidden())


def test_a_wrong_limit_of_a_newcomer_changes_nothing() -> None:
    """All of a change is made, or nothing."""
    balancer = Balancer(["a"], max_in_flight=lambda node: 1 if node == "a" else 0)
    with pytest.raises(ValueError, match="node 'b'"):
        balancer.add("b")
    with pytest.raises(ValueError, match="node 'b'"):
        balancer.replace(["a", "b"])
    assert balancer.nodes == ("a",)


def test_a_limit_changes_with_its_node() -> None:
    """Lowered, it waits for requests beyond it; raised, it admits more at once."""

    def of(limit: int | None) -> list[Endpoint]:
        return [Endpoint("a", tags={} if limit is None else {"limit": str(limit)})]

    def limit_of(node: Endpoint) -> int | None:
        return int(node.tags["limit"]) if "limit" in node.tags else None

    balancer = Balancer(of(3), max_in_flight=limit_of)
    held = fill(balancer)
    assert len(held) == 3
    balancer.replace(of(1))
    for lease in held[:2]:
        lease.success()
        assert not fill(balancer)
    held[2].success()
    held = fill(balancer)
    assert len(held) == 1
    balancer.replace(of(4))
    held += fill(balancer)
    assert len(held) == 4
    balancer.replace(of(2))
    balancer.replace(of(3))
    held.pop().success()
    assert not fill(balancer)
    held.pop().success()
    held += fill(balancer)
    assert len(held) == 3
    balancer.replace(of(None))
    more = [taken(balancer) for _ in range(10)]
    balancer.replace(of(2))
    # Those without a limit are not counted against it.
    assert len(fill(balancer)) == 2
    for lease in (*held, *more):
        lease.success()
    assert not fill(balancer)


@pytest.mark.parametrize("comes_back", ["add", "replace"])
def test_a_node_that_comes_back_is_as_full_as_it_was(comes_back: str) -> None:
    """Requests that it was given before it left are still in flight."""
    balancer = Balancer(["a", "b"], max_in_flight=2)
    held = [lease for lease in fill(balancer) if lease.node == "a"]
    balancer.remove("a")
    if comes_back == "add":
        balancer.add("a")
    else:
        balancer.replace(["b", "a"])
    assert not fill(balancer)
    held[0].success()
    assert [lease.node for lease in fill(balancer)] == ["a"]


def test_a_mere_pick_passes_over_full_nodes_and_takes_no_slot() -> None:
    """Nobody would give it back."""
    balancer = Balancer(["a", "b"], max_in_flight=1)
    lease = taken(balancer, exclude=["b"])
    assert {balancer.pick() for _ in range(20)} == {"b"}
    held = taken(balancer)
    with pytest.raises(NoNodeAvailable, match="2 full"):
        balancer.pick()
    lease.success()
    held.success()


def test_reasons_are_counted_apart() -> None:
    """Excluded, down, drained, without quota and full."""
    clock = ManualClock()
    quota = QuotaTracker(clock)
    quota.register("poor", QuotaConfig([QuotaDimension("rpm", limit=1, window=60.0)]))
    nodes = ["poor", "out", "drained", "down", "full-1", "full-2"]
    balancer = Balancer(nodes, quota=quota, max_in_flight=1, clock=clock)
    for _ in range(3):
        balancer.report("down", Outcome.FAILURE)
    balancer.drain("drained")
    quota.record_usage("poor", {"rpm": 1})
    held = fill(balancer, but="out")
    with pytest.raises(NoNodeAvailable) as refused:
        balancer.acquire(exclude=["out"])
    assert refused.value.reasons == {
        "full": 2,
        "excluded": 1,
        "drained": 1,
        "unhealthy": 1,
        "quota": 1,
    }
    for lease in held:
        lease.success()


def test_a_request_refused_for_quota_keeps_no_slot() -> None:
    """Of what was granted on the way to a refusal, everything is given back."""
    quota = QuotaTracker()
    quota.register("a", QuotaConfig([QuotaDimension("tpm", limit=10, window=60.0)]))
    balancer = Balancer(["a"], quota=quota, max_in_flight=1)
    for _ in range(5):
        with pytest.raises(NoNodeAvailable, match="quota"):
            balancer.acquire(cost={"tpm": 11})
    assert balancer.acquire(cost={"tpm": 10}).success()


def test_explanations_name_full_nodes() -> None:
    """They are ineligible, and change nothing."""
    balancer = Balancer(["a", "b"], RoundRobin(), max_in_flight=1)
    lease = taken(balancer)
    told = balancer.explain()
    assert told.ineligible == {lease.node: "full"}
    assert told.eligible == tuple({"a", "b"} - {lease.node})
    assert fill(balancer)
    told = balancer.explain()
    assert (told.eligible, told.choice, told.foreseeable) == ((), None, True)
    assert "has nothing to choose" in str(told)


@pytest.mark.parametrize("end", ["success", "failure", "rate_limited", "cancel", "call_off", "del"])
def test_every_end_gives_the_slot_back_once(end: str) -> None:
    """Whatever is said afterwards."""
    balancer = Balancer(["a"], max_in_flight=1, panic_threshold=0.0)
    for _ in range(2):
        lease: Lease[str] | None = balancer.acquire()
        assert lease is not None
        if end == "del":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                del lease
                gc.collect()
                lease = None
        elif end == "rate_limited":
            lease.rate_limited(0.0)
            lease.success()
        else:
            getattr(lease, end)()
            lease.success()
        held = fill(balancer)
        assert len(held) == 1
        held[0].success()


@each_strategy
def test_ctrl_c_loses_no_slot(strategy: Callable[[], Strategy[Any]]) -> None:
    """Wherever it strikes: in the search for a node, in the lease, at its end."""
    balancer = Balancer(numbered(12), strategy(), max_in_flight=1)
    held = [taken(balancer, hash_key=key) for key in range(9)]

    def work() -> None:
        with balancer.acquire(hash_key=3), balancer.acquire(hash_key=4):
            pass

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        place = 0
        gc.disable()  # what it calls is none of this
        try:
            while strike_at(place, work):
                place += 1
                more = fill(balancer)
                assert len(more) == 3, place
                for lease in more:
                    lease.success()
                assert place < 5000
        finally:
            gc.enable()
    for lease in held:
        lease.success()
    assert len(fill(balancer)) == 12


@pytest.mark.skipif(COMPILED, reason="instructions are counted in the interpreter")
@pytest.mark.parametrize(
    "strategy",
    [
        lambda: PowerOfTwoChoices(load=InFlight(), rng=random.Random(1)),
        RoundRobin,
        lambda: WeightedRandom(rng=random.Random(1)),
        lambda: ConsistentHash(virtual_nodes=4),
    ],
)
@pytest.mark.parametrize("situation", ["one free", "none free", "flips"])
def test_full_nodes_cost_the_same_in_any_fleet(
    strategy: Callable[[], Strategy[Any]], situation: str
) -> None:
    """All but one full, all full, and a node that fills and empties by turns."""
    counted: list[float] = []
    for size in (FEW, MANY):
        balancer = Balancer(numbered(size), strategy(), max_in_flight=1)
        held = {lease.node: lease for lease in fill(balancer)}
        if situation == "one free":
            held.pop(size // 2).success()

        def work(balancer: Balancer[int] = balancer, held: dict[int, Lease[int]] = held) -> None:
            for key in range(20):
                if situation == "flips":
                    held.pop(key * 7 % FEW).success()
                try:
                    lease = balancer.acquire(hash_key=key)
                except NoNodeAvailable:
                    continue
                if situation == "flips":
                    held[lease.node] = lease
                    _given.append(lease)
                else:
                    lease.success()

        work()
        counted.append(instructions(work))
    assert counted[1] <= 2 * counted[0]


def test_a_forked_childs_slots_are_all_free() -> None:
    """What the parent has in flight is not the child's."""
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork on this system")
    balancer = Balancer(["a", "b"], max_in_flight=2)
    held = fill(balancer)
    child = os.fork()
    if not child:
        code = 1
        try:
            mine = fill(balancer)
            held[0].success()
            code = 0 if len(mine) == 4 and not fill(balancer) else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert not fill(balancer)
    for lease in held:
        lease.success()
    assert len(fill(balancer)) == 4


def test_tasks_share_the_limit() -> None:
    """A hundred tasks on two slots, one after another, never three at once."""
    balancer = Balancer(["a"], max_in_flight=2)
    most = 0

    async def work() -> None:
        nonlocal most
        async with balancer.acquire_async(timeout=None):
            [status] = balancer.status()
            most = max(most, status.in_flight)
            await asyncio.sleep(0)

    async def all_of_them() -> None:
        await asyncio.gather(*[work() for _ in range(100)])

    asyncio.run(all_of_them())
    assert most == 2
