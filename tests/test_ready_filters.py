"""Filters that know their nodes are immutable: what they accept, and how seldom they are asked."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.balancer.test_complexity import calls, instructions
from tests.compiled import COMPILED

from loadwise import (
    AllOf,
    AnyOf,
    Balancer,
    ConsecutiveFailurePolicy,
    Endpoint,
    Filter,
    Filtered,
    FnFilter,
    HealthTracker,
    InFlight,
    NodeSet,
    NoNodeAvailable,
    Not,
    PowerOfTwoChoices,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    RoundRobin,
    by_id,
    by_priority,
    by_tag,
    by_zone,
)
from loadwise._memo import MOST_KNOWN
from loadwise.strategies._load_plans import LoadPlan
from loadwise.testing import ManualClock

NODES = [
    Endpoint("a", zone="eu", tags={"gpu": "h100", "app.v": "2"}),
    Endpoint("b", zone="us", priority=1, tags={"gpu": "l4"}),
    Endpoint("c", priority=2, weight=3),
]


WRONG: list[Any] = [["eu", "us"], [], {}, "0"]


class Machine:
    """A node of a user's own that counts how often it is read."""

    reads = 0

    def __init__(self, number: int) -> None:
        self.id = number
        self.priority = number % 3

    @property
    def zone(self) -> str:
        Machine.reads += 1
        return "abcdefghij"[self.id % 10]

    @property
    def tags(self) -> dict[str, str]:
        Machine.reads += 1
        return {"half": "first" if self.id % 2 else "second"}


@pytest.mark.parametrize(
    ("accept", "accepted", "text"),
    [
        (by_zone("eu"), "a", "by_zone('eu')"),
        (by_zone("us", "eu"), "ab", "by_zone('us', 'eu')"),
        (by_zone(None), "c", "by_zone(None)"),
        (by_priority(0), "a", "by_priority(0)"),
        (by_priority(1, 2), "bc", "by_priority(1, 2)"),
        (by_tag(gpu="h100"), "a", "by_tag(gpu='h100')"),
        (by_tag(gpu="h100", more="x"), "", "by_tag(gpu='h100', more='x')"),
        (by_tag(**{"app.v": "2"}), "a", "by_tag(**{'app.v': '2'})"),
        (by_id("c", "z", "a"), "ac", "by_id('c', 'z', 'a')"),
        (by_id(NODES[1]), "b", "by_id('b')"),
        (~by_zone("eu"), "bc", "Not(by_zone('eu'))"),
        (by_zone("eu") | by_id("c"), "ac", "AnyOf(by_zone('eu'), by_id('c'))"),
        (by_tag(gpu="l4") & by_priority(1), "b", "AllOf(by_tag(gpu='l4'), by_priority(1))"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_they_accept(accept: Filter[Any], accepted: str, text: str) -> None:
    """Each accepts the nodes it names, asked one by one and as a view, and says what it is."""
    assert "".join(str(node.id) for node in NODES if accept(node)) == accepted
    view = accept.view(NodeSet(NODES))
    assert "".join(str(view.ids[i]) for i in view.eligible) == accepted
    assert repr(accept) == text
    assert accept.sources() == ()


@pytest.mark.parametrize(
    ("same", "others"),
    [
        ([by_zone("a", "b"), by_zone("b", "a")], [by_zone("a"), by_id("a", "b"), by_tag(a="b")]),
        ([by_tag(x="1", y="2"), by_tag(y="2", x="1")], [by_tag(x="2", y="1")]),
        ([by_priority(0), by_priority(0)], [by_priority(1), by_zone(0)]),
        (
            [by_zone("a") & ~by_id("x"), by_zone("a") & Not(by_id("x"))],
            [by_zone("a") | ~by_id("x"), AllOf(by_zone("a"), by_id("x"))],
        ),
    ],
)
def test_they_are_equal_by_value(same: list[Filter[Any]], others: list[Filter[Any]]) -> None:
    """Two that say the same are equal and hash alike; others differ."""
    assert same[0] == same[1]
    assert hash(same[0]) == hash(same[1])
    assert all(same[0] != other for other in others)


def test_other_filters_are_equal_by_identity() -> None:
    """Of functions nobody knows whether they say the same."""
    one, other = FnFilter(bool), FnFilter(bool)
    assert one == one  # noqa: PLR0124 - what is tested
    assert one != other
    assert (one & by_zone("a")) != (one & by_zone("a"))
    assert len({one, other}) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (by_zone, r"by_zone\(\) is given nothing; name at least one zone"),
        (by_tag, r"by_tag\(\) is given nothing; name at least one tag"),
        (by_priority, "name at least one priority"),
        (by_id, "name at least one id"),
        (lambda: by_zone(*WRONG[:1]), r"by_zone\(\) is given \['eu', 'us'\]; each zone must be"),
        (lambda: by_tag(gpu=WRONG[1]), "each tag must be hashable"),
        (lambda: by_id(WRONG[2]), "not hashable"),
        (lambda: by_priority(WRONG[3]), "a priority is '0'; it must be an int"),
        (lambda: by_priority(True), "a priority is True; it must be an int"),
    ],
)
def test_refuses_what_names_nothing(make: Callable[[], object], message: str) -> None:
    """Nothing, or what cannot be compared, is refused where it is given."""
    with pytest.raises(TypeError, match=message):
        make()


class Odd:
    """A node whose attributes are not what they should be."""

    def __init__(self) -> None:
        self.id = "odd"
        self.zone: list[str] = []
        self.tags = "gpu"


@pytest.mark.parametrize(
    ("accept", "node", "message"),
    [
        (
            by_zone("a"),
            "10.0.0.1",
            r"node '10.0.0.1' has no `zone`, which by_zone\('a'\) reads; give its class \(str\)",
        ),
        (by_priority(0), Odd(), r"node 'odd' has no `priority`, which by_priority\(0\) reads"),
        (by_tag(gpu="x"), Odd(), r"node 'odd' has the tags 'gpu', .* it must be a mapping"),
        (by_zone("a"), Odd(), r"node 'odd' has the zone \[\], .* it must be hashable"),
    ],
)
def test_nodes_without_the_attribute(accept: Filter[Any], node: object, message: str) -> None:
    """The error names node, attribute, filter and remedy, wherever the filter stands."""
    with pytest.raises(TypeError, match=message):
        Balancer([node], where=accept)
    with pytest.raises(TypeError, match=message):
        Balancer([node]).pick(where=accept)
    with pytest.raises(TypeError, match=message):
        Balancer([node], Filtered(RoundRobin(), accept)).pick()


def test_a_member_that_cannot_be_read_is_not_added() -> None:
    """With the filter on the balancer, `add` refuses it and changes nothing."""
    balancer: Balancer[Any] = Balancer([Endpoint("a", zone="a")], where=by_zone("a"))
    with pytest.raises(TypeError, match="node 'b' has no `zone`"):
        balancer.add("b")
    assert [node.id for node in balancer.nodes] == ["a"]


@pytest.mark.parametrize(
    ("where", "wanted", "text"),
    [
        ("request", None, r"of 3 nodes 3 filtered by by_zone\('x'\)$"),
        ("balancer", None, r"of 3 nodes 3 filtered by by_zone\('x'\)$"),
        ("both", by_zone("us"), r"3 filtered by by_zone\('eu'\) and by_zone\('us'\)$"),
    ],
)
def test_the_error_names_the_filter(where: str, wanted: Filter[Any] | None, text: str) -> None:
    """Where nothing matches, the message says what was asked for, and pickles so."""
    nowhere = by_zone("x")
    balancer = {
        "request": Balancer(NODES),
        "balancer": Balancer(NODES, where=nowhere),
        "both": Balancer(NODES, where=by_zone("eu")),
    }[where]
    with pytest.raises(NoNodeAvailable, match=text) as caught:
        balancer.acquire(where=nowhere if where == "request" else wanted)
    assert dict(caught.value.reasons) == {"filtered": 3}


def test_a_filter_that_admits_somebody_is_not_blamed() -> None:
    """Only those are named that filtered anybody out."""
    balancer = Balancer(NODES, where=by_id("a", "b", "c"))
    with pytest.raises(NoNodeAvailable, match=r"1 excluded$|filtered by by_zone\('eu'\)") as caught:
        balancer.pick(where=by_zone("eu"), exclude=["a"])
    assert "by_id" not in str(caught.value)


FRESH: dict[str, Callable[[], Filter[Any]]] = {
    "zone": lambda: by_zone("a"),
    "tag": lambda: by_tag(half="first"),
    "and": lambda: by_zone("a", "b") & by_tag(half="first"),
    "or": lambda: by_zone("a") | by_zone("b"),
    "not": lambda: ~by_zone("c"),
    "nested": lambda: AllOf(Not(AnyOf(by_zone("c"), by_id(4))), by_tag(half="second")),
}


@pytest.mark.parametrize("make", FRESH.values(), ids=FRESH.keys())
def test_nodes_are_read_once_per_membership(make: Callable[[], Filter[Any]]) -> None:
    """However many requests, health changes and equal filters there are."""
    health = HealthTracker(ConsecutiveFailurePolicy(1, 1))
    nodes = [Machine(number) for number in range(100)]
    balancer = Balancer(nodes, health=health)
    Machine.reads = 0
    chosen = {balancer.pick(where=make()) for _ in range(50)}
    once = Machine.reads
    assert 100 <= once <= 300, "each of its parts reads a node at most once"
    health.report_failure(10)
    for _ in range(50):
        with balancer.acquire(where=make()) as lease:
            assert lease.node.id != 10
    assert Machine.reads == once
    accept = make()
    assert all(accept(node) for node in chosen)
    Machine.reads = 0
    balancer.add(Machine(100))
    balancer.acquire(where=make()).success()
    assert Machine.reads > 0, "another membership"


@pytest.mark.skipif(COMPILED, reason="compiled code executes no bytecode")
@pytest.mark.parametrize("place", ["request", "refused", "quota"])
@pytest.mark.parametrize("make", FRESH.values(), ids=FRESH.keys())
def test_a_request_costs_the_same_for_any_fleet(
    make: Callable[[], Filter[Any]], place: str
) -> None:
    """After the first, a filter made anew for each request costs no more on a large fleet."""
    found = []
    for size in (50, 5_000):
        quota = QuotaTracker(ManualClock()) if place == "quota" else None
        if quota is not None:
            for number in range(size):
                quota.register(number, QuotaConfig([QuotaDimension("tpm", 1000, default_cost=0)]))
            for number in range(size):
                if number % 50 > 1:
                    quota.record_usage(number, {"tpm": 995})
        two = PowerOfTwoChoices[Any](load=InFlight(), rng=random.Random(1))
        balancer = Balancer([Machine(number) for number in range(size)], two, quota=quota)

        def request(balancer: Balancer[Any] = balancer) -> None:
            where = make() & by_zone("z") if place == "refused" else make()
            try:
                balancer.acquire(
                    where=where, cost={"tpm": 10} if place == "quota" else None
                ).cancel()
            except NoNodeAvailable:
                assert place == "refused"

        for _ in range(8 if place == "quota" else 3):
            request()
        gc.collect()
        gc.disable()
        try:
            found.append(min(instructions(request) for _ in range(10)))
        finally:
            gc.enable()
    assert 0 < found[1] <= found[0] + 200, "a few more where a draw decides"


def test_the_strategy_keeps_its_plan_when_one_node_changes() -> None:
    """The filtered set of 10,000 nodes is patched: no plan is made anew, no node read again."""
    health = HealthTracker(ConsecutiveFailurePolicy(1, 1))
    balancer = Balancer(
        [Machine(number) for number in range(10_000)],
        PowerOfTwoChoices(load=InFlight()),
        health=health,
    )
    for number in (20, 30):
        health.report_failure(number)
    balancer.acquire(where=by_zone("a")).success()
    Machine.reads = 0

    def change() -> None:
        health.report_failure(10)
        assert balancer.pick(where=by_zone("a")).id % 10 == 0
        health.report_success(10)
        balancer.acquire(where=by_zone("a")).success()

    made = (
        calls(change, lambda frame: frame.f_code is LoadPlan.__init__.__code__)
        if not COMPILED
        else 0
    )
    assert made == 0
    assert Machine.reads == 0


def test_filters_of_many_kinds_take_a_bounded_room() -> None:
    """A thousand different filters leave no more than a few behind, and all are right."""
    nodes = NodeSet([Machine(number) for number in range(50)])
    for number in range(1000):
        accept = by_zone("a", f"other-{number}")
        assert accept.view(nodes).eligible == (0, 10, 20, 30, 40)
        assert by_id(number).view(nodes).eligible == ((number,) if number < 50 else ())
    assert len(nodes.membership.rejected._known) <= MOST_KNOWN
    assert nodes._views is not None
    assert len(nodes._views._known) <= MOST_KNOWN


def test_what_is_remembered_keeps_no_left_node_alive() -> None:
    """A node that was removed is gone with the next pick, though filters and balancer live on."""
    held = by_zone("a", "b")
    joint = held & by_tag(half="first")
    balancer = Balancer([Machine(number) for number in range(20)])
    for _ in range(5):
        balancer.acquire(where=held).success()
        balancer.acquire(where=joint).success()
        balancer.acquire(where=by_zone("b")).success()
    gone = weakref.ref(balancer.nodes[1])
    balancer.remove(1)
    balancer.acquire(where=held).success()
    assert gone() is None, "without any help of the garbage collector"


@pytest.mark.parametrize("filtered", [False, True])
def test_they_follow_the_balancer(filtered: bool) -> None:  # noqa: FBT001 - from pytest
    """Members come, go and change their zone; the filter sees the present ones."""
    where = by_zone("eu")
    balancer: Balancer[Endpoint] = (
        Balancer([], Filtered(RoundRobin(), where)) if filtered else Balancer([], where=where)
    )
    with pytest.raises(NoNodeAvailable):
        balancer.pick()
    balancer.add(Endpoint("a", zone="eu"))
    balancer.add(Endpoint("b", zone="us"))
    assert {balancer.pick().id for _ in range(4)} == {"a"}
    balancer.add(Endpoint("c", zone="eu"))
    assert {balancer.pick().id for _ in range(40)} == {"a", "c"}
    balancer.drain("a")
    assert {balancer.pick().id for _ in range(4)} == {"c"}
    balancer.replace([Endpoint("a", zone="us"), Endpoint("b", zone="eu")])
    assert {balancer.pick().id for _ in range(4)} == {"b"}


leaves = st.one_of(
    st.builds(by_zone, st.sampled_from("abc")),
    st.builds(by_priority, st.integers(0, 2)),
    st.builds(by_id, st.integers(0, 7), st.integers(0, 7)),
    st.builds(lambda half: by_tag(half=half), st.sampled_from(["first", "second"])),
)
filters = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        st.builds(Not, inner),
    ),
    max_leaves=6,
)


@given(accept=filters, views=st.lists(st.sets(st.integers(0, 7)), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_views_are_those_of_a_plain_function(accept: Filter[Any], views: list[set[int]]) -> None:
    """Whatever is combined and whichever view it is asked of, once and again."""
    nodes = NodeSet([Machine(number) for number in range(8)])
    asked = FnFilter(accept.__call__)
    for gone in views:
        for candidates in (nodes.without(gone), nodes.restrict(gone).marked(gone)):
            expected = asked.view(candidates)
            for _ in range(2):
                view = accept.view(candidates)
                assert (view.eligible, view.mask) == (expected.eligible, expected.mask)
                assert view.ailing == expected.ailing
            assert accept.view(candidates) is view


def test_threads_agree() -> None:
    """Eight threads that ask with many filters at once get right views alone."""
    nodes = NodeSet([Machine(number) for number in range(30)])
    wrong: list[object] = []

    def look(offset: int) -> None:
        try:
            for number in range(300):
                index = (number + offset) % 40
                view = by_id(index).view(nodes)
                if view.eligible != ((index,) if index < 30 else ()):
                    wrong.append((index, view.eligible))
                if by_zone("a", index).view(nodes).eligible != (0, 10, 20):
                    wrong.append(index)
        except Exception as error:  # noqa: BLE001 - reported by the thread that started this
            wrong.append(error)

    threads = [Thread(target=look, args=(offset,)) for offset in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
