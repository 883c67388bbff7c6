"""What all strategies that choose a group first have in common: who makes and keeps what."""

from __future__ import annotations

import gc
import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any
from weakref import ref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.balancer.panicking import kill, picked, tracker_of
from tests.balancer.test_complexity import calls, instructions
from tests.compiled import COMPILED
from tests.strategies.support import picks

from loadwise import (
    Balancer,
    BoundedLoads,
    ConsistentHash,
    Endpoint,
    FallbackChain,
    Filtered,
    InFlight,
    LeastLoad,
    LoadwiseError,
    NodeSet,
    PeakEwma,
    PowerOfTwoChoices,
    Random,
    RoundRobin,
    SelectionContext,
    Split,
    Sticky,
    Tiers,
    WeightedRoundRobin,
    Zones,
    by_zone,
)
from loadwise._membership import Membership, Owner
from loadwise.load import LoadMeasure
from loadwise.strategies._grouped import Grouped
from loadwise.strategies._ring import Ring
from loadwise.testing import ManualClock

Make = Callable[[], Any]
KINDS: dict[str, Callable[[Make], Grouped[Any]]] = {
    "Tiers": lambda make: Tiers(make, rng=random.Random(1)),
    "Zones": lambda make: Zones(make, rng=random.Random(1)),
    "Split": lambda make: Split(
        dict.fromkeys("abc", 1), lambda node: node.zone, make, rng=random.Random(1)
    ),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def nodes(count: int = 6) -> list[Endpoint]:
    """Return nodes in three zones and three tiers: 0 and 3 are in the first of both."""
    return [
        Endpoint(f"n{number}", zone="abc"[number % 3], priority=number % 3)
        for number in range(count)
    ]


class Making:
    """Makes round robins, and counts them."""

    def __init__(self) -> None:
        self.made: list[ref[RoundRobin[Any]]] = []

    def __call__(self) -> RoundRobin[Any]:
        strategy: RoundRobin[Any] = RoundRobin()
        self.made.append(ref(strategy))
        return strategy

    @property
    def alive(self) -> int:
        """Number of those that somebody still has."""
        gc.collect()
        return sum(each() is not None for each in self.made)


@every_kind
def test_one_strategy_for_each_group(kind: Callable[[Make], Grouped[Any]]) -> None:
    """Each group has its own, kept through changes, and made anew when the group has been gone."""
    make = Making()
    balancer = Balancer(nodes(), kind(make), clock=ManualClock())
    assert len(make.made) == 3
    picked(balancer)
    balancer.remove("n0")
    balancer.replace(nodes(9))
    kill(balancer, "n1")
    picked(balancer)
    assert len(make.made) == 3
    for name in ("n0", "n3", "n6"):
        balancer.remove(name)
    picked(balancer)
    assert (len(make.made), make.alive) == (3, 2)
    balancer.add(nodes()[0])
    picked(balancer)
    assert (len(make.made), make.alive) == (4, 3)


@every_kind
def test_lists_keep_their_strategies(kind: Callable[[Make], Grouped[Any]]) -> None:
    """Turns go on from one plain list to the next, also where a node has come or gone."""
    make = Making()
    strategy = kind(make)
    for count in (6, 7, 6):
        picks(strategy, nodes(count), 20)
    assert len(make.made) == 3
    few = nodes()[0::3]
    assert picks(strategy, few, 3) in ([0, 1, 0], [1, 0, 1])


def test_a_strategy_that_is_shared_by_balancers() -> None:
    """Each has its groups, and what leaves one balancer stays in the other."""
    make = Making()
    tiers: Tiers[Endpoint] = Tiers(make, rng=random.Random(1))
    one = Balancer(nodes(), tiers, clock=ManualClock())
    other = Balancer(nodes()[:2], tiers, clock=ManualClock())
    for _ in range(3):
        assert picked(one) == {"n0", "n3"}
        assert picked(other) == {"n0"}
    other.replace(nodes()[1:2])
    assert picked(one) == {"n0", "n3"}
    assert picked(other) == {"n1"}
    assert len(make.made) == 3


@pytest.mark.skipif(COMPILED, reason="compiled code is not seen to call")
def test_health_of_one_group_builds_nothing_in_the_others() -> None:
    """A node that goes down and comes back has the strategy of its own group look again.

    No ring is built, and no other group's strategy is even asked for another set of nodes.
    """
    asked: list[tuple[int, int]] = []

    class Watched(ConsistentHash[Any]):
        def select(self, candidates: Sequence[Any], context: Any = None) -> int | None:
            asked.append((id(self), id(candidates)))
            return super().select(candidates, context)

        def peek(self, candidates: Sequence[Any], context: Any = None) -> int | None:
            return super().peek(candidates, context)

    split = Split(dict.fromkeys("abc", 1), lambda node: node.zone, Watched, rng=random.Random(1))
    fleet = nodes(60)
    balancer = Balancer(fleet, split, clock=ManualClock())
    kill(balancer, "n1", "n2")
    balancer.drain("n5")

    def request() -> None:
        for number in range(50):
            balancer.pick(hash_key=str(number))

    def flip() -> None:
        request()
        kill(balancer, "n0")
        request()
        tracker_of(balancer).remove("n0")
        request()

    built = calls(flip, lambda frame: frame.f_code is Ring.__init__.__code__)
    assert built == 0
    sets: dict[int, set[int]] = {}
    for strategy, candidates in asked:
        sets.setdefault(strategy, set()).add(candidates)
    assert sorted(map(len, sets.values())) == [1, 1, 2]
    asked.clear()
    fleet[0] = Endpoint("new", zone="a")
    built = calls(
        lambda: balancer.replace(fleet), lambda frame: frame.f_code is Ring.__init__.__code__
    )
    assert built == 1, "the ring of the group that has changed, and no other"
    request()
    strangers = [pair for pair in asked if pair[1] not in sets[pair[0]]]
    assert len({strategy for strategy, _ in strangers}) == 1, "the others see the sets they saw"


@every_kind
@settings(max_examples=40, deadline=None)
@given(changes=st.lists(st.integers(0, 99) | st.sets(st.integers(0, 9)), max_size=12))
def test_layouts_are_those_that_would_be_made_at_once(
    kind: Callable[[Make], Grouped[Any]], changes: list[int | set[int]]
) -> None:
    """Through members that come and go, and views, groups are as if all had come together."""
    strategy = kind(lambda: PowerOfTwoChoices[Any](InFlight()))
    membership: Membership[Any] = NodeSet(nodes()).membership
    membership.owner = Owner()
    for number, change in enumerate(changes, 6):
        view = NodeSet.of_membership(membership)
        if isinstance(change, set):
            view = view.without(i for i in change if i < len(view))
        elif change % 2 and membership.nodes:
            membership = membership.parted(change % len(membership.nodes))
            view = NodeSet.of_membership(membership)
        else:
            zone = change % 3
            node = Endpoint(f"n{number}", zone="abc"[zone], priority=zone)
            membership = membership.joined(node)
            view = NodeSet.of_membership(membership)
        strategy.prepare(view)
        plan, alone = strategy._resolve(view), NodeSet(membership.nodes)
        anew = kind(lambda: PowerOfTwoChoices[Any](InFlight()))._resolve(alone)
        assert plan.layout.number == anew.layout.number
        for mine, others in zip(plan.layout.groups, anew.layout.groups, strict=True):
            assert (mine.key, mine.indices) == (others.key, others.indices)
            assert mine.whole.ids == others.whole.ids == tuple(alone.ids[i] for i in mine.indices)
            assert mine.whole.weights == others.whole.weights
        eligible = [
            group.indices[i]
            for group, seen in zip(plan.layout.groups, plan.views, strict=True)
            for i in seen.eligible
        ]
        assert sorted(eligible) == list(view.eligible)


@pytest.mark.skipif(COMPILED, reason="compiled code executes no bytecode")
def test_full_nodes_cost_the_same_however_many_are_down() -> None:
    """A request that meets full nodes is shown the few with room; nobody looks at the rest."""

    def cost(size: int) -> int:
        fleet = [Endpoint(f"n{number}", priority=number % 2) for number in range(size)]
        tiers: Tiers[Endpoint] = Tiers(lambda: Random(random.Random(1)), rng=random.Random(1))
        balancer = Balancer(fleet, tiers, max_in_flight=1, clock=ManualClock())
        kill(balancer, *[f"n{number}" for number in range(size // 5)])
        leases = [balancer.acquire() for _ in range(size - size // 5 - 2)]

        def request() -> None:
            balancer.acquire().success()

        for _ in range(10):
            request()
        found = min(instructions(request) for _ in range(10))
        for lease in leases:
            lease.success()
        return found

    assert cost(1000) <= 1.2 * cost(100)


def test_measures_are_shared_by_all_groups() -> None:
    """What `make` creates for each is fed once, by the balancer, and read by all."""
    measures: list[InFlight] = []

    def make() -> LeastLoad[Endpoint]:
        measures.append(InFlight())
        return LeastLoad(measures[-1], random.Random(1))

    tiers: Tiers[Endpoint] = Tiers(lambda: Zones(make, weights={"a": 1}), rng=random.Random(1))
    assert tiers.measures == (measures[0],)
    fleet = [Endpoint(f"n{i}", zone="ab"[i % 2], priority=i // 4) for i in range(8)]
    balancer = Balancer(fleet, tiers, clock=ManualClock())
    leases = [balancer.acquire() for _ in range(40)]
    loads = {slot.id: len(slot.in_flight) for slot in balancer._fleet.view.slots}
    assert sum(loads.values()) == 40
    assert abs(loads["n0"] - loads["n2"]) <= 1, "the less loaded one of its zone"
    assert abs(loads["n1"] - loads["n3"]) <= 1
    kill(balancer, "n0", "n1", "n2", "n3")
    leases += [balancer.acquire() for _ in range(40)]
    loads = {slot.id: len(slot.in_flight) for slot in balancer._fleet.view.slots}
    assert abs(loads["n4"] - loads["n6"]) <= 1, "made later, and yet fed"
    assert abs(loads["n5"] - loads["n7"]) <= 1
    assert all(slot.others == () for slot in balancer._fleet.view.slots), "each is counted once"
    for lease in leases:
        lease.success()


@pytest.mark.parametrize(
    "make",
    [
        lambda: PowerOfTwoChoices[Any](PeakEwma()),
        lambda: Filtered(PowerOfTwoChoices(PeakEwma()), by_zone("a", "b", "c")),
        lambda: FallbackChain[Any]([RoundRobin(), LeastLoad(PeakEwma()), LeastLoad(InFlight())]),
        lambda: Tiers[Any](lambda: LeastLoad[Any](PeakEwma())),
        PowerOfTwoChoices,
        lambda: Zones(PowerOfTwoChoices),
    ],
)
def test_measures_are_shared_however_deep(make: Make) -> None:
    """Combinations within a group hand them on."""
    tiers: Tiers[Endpoint] = Tiers(make, rng=random.Random(1))
    before = tiers.measures
    balancer = Balancer(nodes(), tiers, clock=ManualClock())
    picked(balancer)
    assert tiers.measures == before
    plan = tiers._resolve(balancer._fleet.view.nodes)
    for group in plan.layout.groups:
        found: Sequence[LoadMeasure] = group.inner.strategy.measures
        assert all(one is other for one, other in zip(found, before, strict=True))


class WithAMeasure(RoundRobin[Any]):
    """A strategy of the user's own that brings a measure."""

    def __init__(self, measure: LoadMeasure) -> None:
        super().__init__()
        self.mine = measure

    @property
    def measures(self) -> tuple[LoadMeasure, ...]:
        return (self.mine,)


class Unforthcoming:
    """The same, and it knows no views."""

    def __init__(self, measure: LoadMeasure) -> None:
        self.measures = (measure,)

    def select(self, candidates: Sequence[Any], context: Any = None) -> int | None:
        return 0 if candidates else None


@pytest.mark.parametrize("strategy", [WithAMeasure, Unforthcoming])
def test_a_measure_that_nobody_would_feed_is_refused(strategy: Callable[[Any], Any]) -> None:
    """A strategy of the user's own cannot be given another: the error says what to do."""
    name = strategy.__name__ if isinstance(strategy, type) else ""
    with pytest.raises(TypeError, match=rf"make returned a {name} with load measures of its own"):
        Balancer(nodes(), Tiers(lambda: strategy(InFlight())))
    measure = InFlight()
    balancer = Balancer(nodes(), Tiers(lambda: strategy(measure)), clock=ManualClock())
    assert picked(balancer) <= {"n0", "n3"}
    kinds: Iterator[LoadMeasure] = iter([InFlight(), PeakEwma(), PeakEwma()])
    with pytest.raises(TypeError, match=r"LeastLoad with load measures of its own \(PeakEwma\)"):
        Balancer(nodes(), Tiers(lambda: LeastLoad(next(kinds))))


@pytest.mark.parametrize("inner", [Sticky(RoundRobin[Any]()), BoundedLoads(ConsistentHash[Any]())])
def test_who_counts_over_all_nodes_is_refused_at_once(inner: Any) -> None:
    """Not when a node of a second group comes; the error says what to do."""
    with pytest.raises(TypeError, match=r"cannot choose within a group; .* Sticky\(Tiers\(\)\)"):
        Tiers(lambda: inner)
    balancer = Balancer(nodes(), Sticky(Tiers(RoundRobin)))
    assert len({balancer.pick(hash_key="key") for _ in range(9)}) == 1


async def waits() -> RoundRobin[Any]:
    """Return a strategy that has to be waited for."""
    return RoundRobin()


def _called(function: Callable[[], object]) -> object:
    return function()


def test_makers_that_make_nothing() -> None:
    """What `make` cannot be is refused at construction, with the remedy."""
    wrong: list[tuple[Any, str]] = [
        (RoundRobin(), r"make is <.*RoundRobin.*>; it must make strategies: each group needs one"),
        (7, r"make is 7; it must make strategies: give a class, such as RoundRobin, or a func"),
        (waits, r"make is <function waits .*>, which is to be awaited; a pick cannot wait"),
        (partial(_called, waits), r"make returned <coroutine .*, which is to be awaited"),
        (lambda: RoundRobin, r"strategy is the class RoundRobin; give an instance"),
        (lambda: "p2c", r"strategy is 'p2c'; it needs a method select"),
    ]
    for make, match in wrong:
        with pytest.raises(TypeError, match=match):
            Tiers(make)
    with pytest.raises(TypeError, match=r"rng is 7; it must be a random.Random"):
        Zones(rng=7)  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(TypeError, match="WeightedRoundRobin needs `weight`"):
        Balancer(["a"], Split({1: 1}, lambda _: 1, WeightedRoundRobin))


class Forbidden(RoundRobin[Any]):
    """A strategy of the user's own that heeds no view."""

    def select(self, candidates: Sequence[Any], context: Any = None) -> int | None:
        return 0

    def peek(self, candidates: Sequence[Any], context: Any = None) -> int | None:
        return 0


def test_a_groups_strategy_cannot_undo_a_filter() -> None:
    """What it returns is looked at as everywhere."""
    tiers: Tiers[Endpoint] = Tiers(Forbidden)
    assert tiers.select(nodes()) == 0
    with pytest.raises(LoadwiseError, match=r"Forbidden.select returned 0, which the view rules"):
        tiers.select(NodeSet(nodes()).restrict([3]))


def test_hash_keys_stay_within_their_group() -> None:
    """A key keeps its node in each tier, whatever goes down in another."""
    tiers: Tiers[Endpoint] = Tiers(ConsistentHash, rng=random.Random(1))
    balancer = Balancer(nodes(60), tiers, clock=ManualClock())
    keys = [f"user-{number}" for number in range(200)]
    home = [balancer.pick(hash_key=key).id for key in keys]
    kill(balancer, "n1", "n4")
    assert [balancer.pick(hash_key=key).id for key in keys] == home


def test_excluded_that_are_nobody_are_refused() -> None:
    """An index that no candidate has is an error, as with every strategy."""
    with pytest.raises(LoadwiseError, match="exclude has the index 9, but there are 6 candidates"):
        Tiers[Endpoint]().select(nodes(), SelectionContext(exclude={9}))


def test_nested_shares_multiply() -> None:
    """The share shown is what a node's zone gets of all requests, not of its tier's."""
    tiers: Tiers[Endpoint] = Tiers(lambda: Zones(Random, weights={"a": 3, "b": 1}))
    fleet = [Endpoint(f"n{i}", zone="ab"[i % 2], priority=i // 4) for i in range(8)]
    balancer = Balancer(fleet, tiers, clock=ManualClock())
    kill(balancer, "n0", "n1")
    seen = {name: facts["share"] for name, facts in balancer.explain().seen.items()}
    assert seen == pytest.approx(
        {"n2": 52.5, "n3": 17.5, "n4": 22.5, "n5": 7.5, "n6": 22.5, "n7": 7.5}
    )


def test_nested_strategies_count_what_is_down_in_their_group() -> None:
    """A zone that is half down in tier 0 is no worse in tier 1, and ejected nodes stay known."""
    zones: list[Zones[Endpoint]] = []

    def make() -> Zones[Endpoint]:
        zones.append(Zones(RoundRobin, local="a"))
        return zones[-1]

    fleet = [Endpoint(f"n{i}", zone="aab"[i % 3], priority=i // 6) for i in range(12)]
    tiers: Tiers[Endpoint] = Tiers(make, rng=random.Random(1))
    balancer = Balancer(fleet, tiers, clock=ManualClock())
    kill(balancer, "n0", "n1")
    balancer._quota_source.mark_exhausted("n3", 60.0)
    view = balancer._fleet.refreshed().nodes
    first, second = tiers._resolve(view).views
    assert zones[0].shares(first) == pytest.approx({"a": 70.0, "b": 30.0})
    assert zones[1].shares(second) == {"a": 100.0, "b": 0.0}


def test_plans_before_are_let_go() -> None:
    """After 300 changes of who may be chosen there are no more sets than after 30, or a few.

    Other tests of the process may have left some that are collected at their own time.
    """
    tiers: Tiers[Endpoint] = Tiers()
    fleet = NodeSet(nodes())

    def change(times: int) -> int:
        for number in range(times):
            tiers.select(fleet.without([number % 6]))
        gc.collect()
        return sum(isinstance(thing, NodeSet) for thing in gc.get_objects())

    after_few = change(30)
    assert change(300) < after_few + 20


def test_what_a_balancer_tells_of_its_nodes() -> None:
    """The view says who is down and who is no member, through filters and copies; see NodeSet."""
    clock = ManualClock()
    fleet = [*nodes(), Endpoint("idle", weight=0)]
    balancer = Balancer(fleet, where=~by_zone("c"), clock=clock)
    balancer.drain("n3")
    kill(balancer, "n0")
    view = balancer._fleet.refreshed().nodes
    for seen in (view, view.without([1]), view.restrict([1]), view.only([1]), view.marked([0])):
        assert seen.standing is not None
        assert seen.standing.down == {0}
        assert dict(seen.standing.outside) == {
            2: "filtered",
            5: "filtered",
            3: "drained",
            6: "drained",
        }
    copied = pickle.loads(pickle.dumps(view))  # noqa: S301 - made here
    assert copied.standing == view.standing
    assert NodeSet(fleet).standing is None
    tracker_of(balancer).remove("n0")
    assert Balancer(nodes())._fleet.refreshed().nodes.standing == (frozenset(), {}, frozenset())
