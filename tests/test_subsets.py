"""Subsets: who is in them, how little changes, and what a balancer makes of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.balancer.test_forked_balancer import in_child
from tests.compiled import wrong_type

from loadwise import (
    Aperture,
    Balancer,
    Endpoint,
    NodeSet,
    RendezvousSubset,
    RoundRobin,
    SlowStart,
    UnknownNode,
    WeightedRoundRobin,
)
from loadwise.testing import ManualClock

LETTERS = [Endpoint(each) for each in "abcdefgh"]


def test_published_apertures() -> None:
    """The rings are Finagle's.

    Source: DeterministicApertureTest and RingTest of Finagle's balancers.
    """
    first = Aperture(client=0, clients=12, size=12)([*range(24)])
    assert first.ids == tuple(range(12))
    assert first.weights == (1,) * 12
    second = Aperture(client=1, clients=4, size=12)
    assert second.width(18) == 0.75
    mine = second([*range(18)])
    assert mine.ids == tuple(range(4, 18))
    assert mine.weights == (0.5, *(1,) * 13)
    assert sum(mine.weights) == 0.75 * 18


@given(servers=st.integers(1, 60), clients=st.integers(1, 40), size=st.integers(1, 70))
def test_an_aperture_burdens_all_servers_alike(servers: int, clients: int, size: int) -> None:
    """Over all clients each server has the same weight, and each client no fewer than ``size``."""
    load = Counter[int]()
    shares = Counter[int]()
    for client in range(clients):
        rule = Aperture(client, clients, size)
        mine = rule([*range(servers)])
        total = sum(mine.weights)
        assert len(mine) >= min(size, servers)
        assert total == pytest.approx(rule.width(servers) * servers)
        for identity, weight in zip(mine.membership.nodes, mine.weights, strict=True):
            load[identity] += weight  # type: ignore[assignment]
            shares[identity] += weight / total  # type: ignore[assignment]
    assert len(load) == servers
    assert max(load.values()) == pytest.approx(min(load.values()))
    assert max(shares.values()) == pytest.approx(min(shares.values()))


def test_own_weights_count_in_an_aperture() -> None:
    """A node at an edge has a part of its own weight; whole weights stay whole elsewhere."""
    nodes = [Endpoint(number, weight=4) for number in range(18)]
    assert Aperture(client=1, clients=4, size=12)(nodes).weights == (2.0, *(4,) * 13)


IDS = st.lists(st.one_of(st.integers(), st.text()), unique_by=str, min_size=1, max_size=40)


@given(ids=IDS, size=st.integers(1, 20), client=st.text(), position=st.integers(0, 39))
def test_a_server_more_or_less_changes_one_at_most(
    ids: list[Any], size: int, client: str, position: int
) -> None:
    """Of ``size`` nodes at most one is another, whoever comes or goes; the order stays."""
    rule = RendezvousSubset(client, size)
    gone = ids[position % len(ids)]
    fewer = [identity for identity in ids if identity != gone]
    more, less = rule(ids).ids, rule(fewer).ids
    assert len(more) == min(size, len(ids))
    assert len({*more} - {*less}) <= 1
    assert len({*less} - {*more}) <= (gone in more)
    assert [*more] == [identity for identity in ids if identity in more]


def test_clients_are_spread() -> None:
    """Each of 50 servers has 120 of 500 clients, within five standard deviations of a draw."""
    servers = [f"s{number}" for number in range(50)]
    found = Counter(
        identity for client in range(500) for identity in RendezvousSubset(client, 12)(servers).ids
    )
    assert len(found) == 50
    assert all(abs(number - 120) < 5 * (500 * 0.24 * 0.76) ** 0.5 for number in found.values())


def some(nodes: Sequence[Endpoint]) -> NodeSet[Endpoint]:
    """Return the first three by name."""
    return NodeSet(sorted(nodes, key=lambda node: str(node.id))[:3])


def ids(balancer: Balancer[Endpoint]) -> str:
    """Return the members' ids."""
    return "".join(str(node.id) for node in balancer.nodes)


def test_a_balancer_sees_its_subset_alone() -> None:
    """Picks, status and membership are of the subset; all nodes are remembered beside."""
    balancer = Balancer(LETTERS[1:], RoundRobin(), subset=some)
    assert ids(balancer) == "bcd"
    assert balancer.all_nodes == tuple(LETTERS[1:])
    assert {balancer.pick().id for _ in range(9)} == {*"bcd"}
    assert [status.id for status in balancer.status()] == [*"bcd"]
    assert "b" in balancer
    assert "h" not in balancer
    assert Balancer(LETTERS).all_nodes == tuple(LETTERS)


def test_who_comes_or_goes_changes_the_subset() -> None:
    """``add``, ``remove`` and ``replace`` are about all nodes; who leaves ends its leases well."""
    balancer = Balancer(LETTERS[1:], RoundRobin(), subset=some, max_in_flight=2)
    lease = balancer.acquire(exclude={"b", "c"})
    balancer.add(LETTERS[0])
    assert ids(balancer) == "abc"
    assert lease.node.id == "d"
    assert lease.success()
    balancer.remove("b")
    assert ids(balancer) == "acd"
    assert [status.in_flight for status in balancer.status()] == [0, 0, 0]
    balancer.remove("h")
    assert ids(balancer) == "acd"
    balancer.replace(LETTERS[4:])
    assert ids(balancer) == "efg"
    with pytest.raises(UnknownNode, match="'a'"):
        balancer.remove("a")
    with pytest.raises(ValueError, match="id 'h' stands at index 3"):
        balancer.add(LETTERS[7])
    balancer.replace(())
    assert (ids(balancer), balancer.all_nodes) == ("", ())


def test_what_does_not_touch_the_subset_touches_nothing() -> None:
    """While the subset is the same, so are view and turns."""
    balancer = Balancer(LETTERS[:4], RoundRobin(), subset=some)
    balancer.pick()
    view = balancer._fleet.view
    balancer.add(LETTERS[6])
    balancer.remove("d")
    assert balancer._fleet.view is view
    assert balancer.pick().id == "b"


def test_a_drain_holds_outside_the_subset() -> None:
    """A node that is drained stays so when it is out of the subset for a while."""
    balancer = Balancer(LETTERS[1:], subset=some)
    balancer.drain("d")
    balancer.drain("h")
    balancer.add(LETTERS[0])
    balancer.remove("a")
    assert [status.drained for status in balancer.status()] == [False, False, True]
    balancer.resume("d")
    assert not any(status.drained for status in balancer.status())
    balancer.replace(LETTERS[5:])
    assert [status.drained for status in balancer.status()] == [False, False, True]
    with pytest.raises(UnknownNode):
        balancer.drain("a")


def test_drained_nodes_outside_the_subset_leave_nothing_behind() -> None:
    """However many drained nodes come and go beside the subset, its fleet remembers none."""
    balancer = Balancer(LETTERS, subset=some)
    balancer.drain("b")
    for number in range(40):
        balancer.add(Endpoint(f"x{number}"))
        balancer.drain(f"x{number}")
        balancer.remove("a")
        balancer.add(LETTERS[0])
        balancer.remove(f"x{number}")
    assert ids(balancer) == "abc"
    assert balancer._fleet._draining == {"b"}


def test_weights_of_an_aperture_count() -> None:
    """Fractional edges are weights: half a node has half as many requests."""
    nodes = [Endpoint(number) for number in range(18)]
    balancer = Balancer(nodes, WeightedRoundRobin(), subset=Aperture(client=1, clients=4, size=12))
    found = Counter(balancer.pick().id for _ in range(270))
    assert found == {4: 10, **dict.fromkeys(range(5, 18), 20)}


def test_who_comes_into_the_subset_starts_slowly() -> None:
    """A node that comes into the subset is new to this client."""
    clock = ManualClock()
    balancer = Balancer(LETTERS[:5], subset=some, slow_start=SlowStart(), clock=clock)
    clock.advance(5.0)
    balancer.remove("a")
    assert [status.slow_start for status in balancer.status()] == [None, None, 0.1]


def test_threads_that_add_at_once_lose_nobody() -> None:
    """Whoever is slower chooses anew: in the end all are known, and the subset is of all."""
    balancer = Balancer(LETTERS[7:], subset=some)

    def add(thread: int) -> None:
        for number in range(20):
            balancer.add(Endpoint(f"{thread}-{number:02}"))

    threads = [Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert len(balancer.all_nodes) == 81
    assert ids(balancer) == "0-000-010-02"


def test_a_change_amid_the_choice_is_seen() -> None:
    """A function that takes so long that another thread changes the nodes is asked again."""
    asked: list[int] = []

    def slow(nodes: Sequence[Endpoint]) -> NodeSet[Endpoint]:
        asked.append(len(nodes))
        if asked == [4, 5]:
            other = Thread(target=balancer.remove, args=("b",))
            other.start()
            other.join(30.0)
        return some(nodes)

    balancer = Balancer(LETTERS[1:5], subset=slow)
    balancer.add(LETTERS[0])
    assert asked == [4, 5, 3, 4]
    assert ids(balancer) == "acd"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_goes_on_by_itself() -> None:
    """The child knows all nodes and how long each has been there, and changes its own alone."""
    clock = ManualClock()
    balancer = Balancer(LETTERS[:5], subset=some, slow_start=SlowStart(), clock=clock)
    clock.advance(5.0)
    balancer.remove("a")
    clock.advance(30.0)

    def work() -> tuple[str, list[float | None]]:
        balancer.remove("b")
        return ids(balancer), [status.slow_start for status in balancer.status()]

    assert in_child(work) == ("cde", [None, 0.5, 0.1])
    assert ids(balancer) == "bcd"


def test_one_set_may_serve_several_balancers() -> None:
    """A function may return the same set again and again: each balancer makes one of its own."""
    kept = NodeSet(LETTERS[:3])
    one, other = (Balancer(LETTERS, RoundRobin(), subset=lambda _: kept) for _ in range(2))
    assert (one.pick().id, other.pick().id, one.pick().id) == ("a", "a", "b")
    view = Balancer(LETTERS, subset=lambda nodes: NodeSet(nodes).restrict([1, 6]))
    assert ids(view) == "bg"


def all_of(nodes: Sequence[Endpoint]) -> Sequence[Endpoint]:
    """Return no NodeSet."""
    return nodes[:2]


def a_stranger(_: Sequence[Endpoint]) -> NodeSet[Endpoint]:
    """Return a node that was not given."""
    return NodeSet([Endpoint("z")])


def nobody(_: Sequence[Endpoint]) -> NodeSet[Endpoint]:
    """Return none."""
    return NodeSet(())


@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        (all_of, TypeError, "subset returned .*; it must return a NodeSet"),
        (a_stranger, ValueError, "the node 'z', which is none of the 8"),
        (nobody, ValueError, "returned no node of the 8 nodes of balancer 'x'"),
    ],
)
def test_bad_subsets_are_refused_and_nothing_is_half_done(
    rule: Any, error: type[Exception], message: str
) -> None:
    """What a function returns is checked at construction, and when nodes change."""
    with pytest.raises(error, match=message):
        Balancer(LETTERS, subset=rule, name="x")
    rules: list[Any] = [some]

    def latest(nodes: Sequence[Endpoint]) -> NodeSet[Endpoint]:
        return rules[-1](nodes)  # type: ignore[no-any-return]  # or whatever it returns

    balancer = Balancer(LETTERS[:4], subset=latest, name="x")
    rules.append(rule)
    with pytest.raises(error, match=message):
        balancer.replace(LETTERS)
    assert (ids(balancer), len(balancer.all_nodes)) == ("abc", 4)


def test_what_the_strategy_refuses_changes_nothing() -> None:
    """Members without what the strategy needs are refused, and all nodes stay those there were."""
    balancer: Balancer[Any] = Balancer(
        LETTERS, WeightedRoundRobin(), subset=RendezvousSubset("me", 3)
    )
    before = balancer.nodes
    with pytest.raises(TypeError, match="weight"):
        balancer.replace(["x", "y"])
    assert (balancer.nodes, balancer.all_nodes) == (before, tuple(LETTERS))
    balancer.add(Endpoint("i"))
    assert len(balancer.all_nodes) == 9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Aperture(4, 4), "client is 4 of 4 clients; they are numbered from 0 to 3"),
        (lambda: Aperture(-1, 4), "client is -1 of 4 clients"),
        (lambda: Aperture(0, 0), "clients is 0"),
        (lambda: Aperture(0, 4, 0), "size is 0"),
        (lambda: RendezvousSubset("a", 0), "size is 0"),
    ],
)
def test_numbers_out_of_range_are_refused(make: Any, message: str) -> None:
    """Each is named with its value."""
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_subset_is_refused() -> None:
    """A class in the place of its instance, a number, a client that has no hash."""
    with pytest.raises(TypeError, match=r"subset is .*RendezvousSubset.*; give a function"):
        Balancer(LETTERS, subset=RendezvousSubset)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=wrong_type(r"subset is 12; give a function of all nodes")):
        Balancer(LETTERS, subset=12)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not hashable"):
        RendezvousSubset([])  # type: ignore[arg-type]
    assert repr(Aperture(1, 2)) == "Aperture(client=1, clients=2, size=12)"
    assert repr(RendezvousSubset("a")) == "RendezvousSubset('a', size=12)"
