"""Sticky sessions: what a key's node survives, when it gets another, and what is kept."""

from __future__ import annotations

import json
import math
from collections import Counter
from threading import Barrier, Thread
from typing import Any

import pytest
from tests.compiled import wrong_type

from loadwise import (
    Balancer,
    BoundedLoads,
    ConsistentHash,
    Endpoint,
    InMemoryStore,
    LeastLoad,
    MissingHashKey,
    NodeSet,
    NoNodeAvailable,
    PeakEwma,
    Random,
    RoundRobin,
    SelectionContext,
    Sticky,
    UnknownNode,
)
from loadwise.strategies.sticky import SavedPin
from loadwise.testing import ManualClock

NAMES = ["a", "b", "c", "d"]


def fleet(
    clock: ManualClock | None = None, ttl: float = 3600.0, **options: Any
) -> tuple[Balancer[str], Sticky[str]]:
    """Return a balancer of four nodes that takes turns with new keys, and its sessions."""
    sticky = Sticky[str](RoundRobin(), ttl)
    balancer = Balancer(NAMES, sticky, clock=clock or ManualClock(), **options)
    return balancer, sticky


def fail(balancer: Balancer[Any], node: object) -> None:
    """Have a node be found down."""
    assert balancer.health is not None
    for _ in range(3):
        balancer.health.report_failure(node)


def test_a_key_keeps_the_node_that_it_was_first_given() -> None:
    """Whatever others are given meanwhile, also when members join or change places."""
    balancer, sticky = fleet()
    homes = {f"key-{number}": balancer.pick(hash_key=f"key-{number}") for number in range(40)}
    assert Counter(homes.values()) == dict.fromkeys(NAMES, 10)
    balancer.add("e")
    assert {key: balancer.pick(hash_key=key) for key in homes} == homes
    balancer.replace(["f", *reversed(NAMES)])
    assert {key: balancer.pick(hash_key=key) for key in homes} == homes
    assert {key: sticky.pinned(key) for key in homes} == homes
    assert balancer.explain(hash_key="key-3").choice == homes["key-3"]


@pytest.mark.parametrize("loss", ["left", "drained", "down", "weight 0"])
def test_a_key_whose_node_is_lost_gets_another_for_good(loss: str) -> None:
    """It stays there when the first is back."""
    sticky = Sticky[Endpoint](RoundRobin())
    nodes = [Endpoint(name) for name in NAMES]
    balancer = Balancer(nodes, sticky, clock=ManualClock())
    home = balancer.pick(hash_key="key").id
    if loss == "left":
        balancer.remove(home)
    elif loss == "drained":
        balancer.drain(home)
    elif loss == "down":
        fail(balancer, home)
    else:
        balancer.replace([Endpoint(name, weight=int(name != home)) for name in NAMES])
    foreseen = balancer.explain(hash_key="key").choice
    second = balancer.pick(hash_key="key").id
    assert second == foreseen != home
    assert sticky.pinned("key") == second
    balancer.replace(nodes)
    balancer.resume(home)
    assert balancer.health is not None
    balancer.health.remove(home)
    assert {balancer.pick(hash_key="key").id for _ in range(8)} == {second}


@pytest.mark.parametrize("obstacle", ["excluded", "filtered", "cooldown", "full", "where"])
def test_what_passes_sends_one_request_elsewhere(obstacle: str) -> None:
    """Exclusions, filters, cooldowns and limits move no key."""
    admitted = set(NAMES)
    clock = ManualClock()
    options: dict[str, Any] = {"max_in_flight": 1}
    if obstacle == "filtered":
        options = {"where": admitted.__contains__}
    balancer, sticky = fleet(clock, **options)
    home = balancer.pick(hash_key="key")
    if obstacle == "excluded":
        other = balancer.pick(hash_key="key", exclude={home})
    elif obstacle == "where":
        other = balancer.pick(hash_key="key", where=lambda node: node != home)
    elif obstacle == "full":
        with balancer.acquire(hash_key="key") as lease:
            assert lease.node == home
            other = balancer.pick(hash_key="key")
    elif obstacle == "cooldown":
        balancer.acquire(hash_key="key").rate_limited(5.0)
        other = balancer.pick(hash_key="key")
        clock.advance(5.0)
    else:
        admitted.discard(home)
        other = balancer.pick(hash_key="key")
        admitted.add(home)
    assert other != home
    assert sticky.pinned("key") == home
    assert balancer.pick(hash_key="key") == home


def test_where_all_are_down_keys_stay() -> None:
    """In the last resort a key's own node is as good as any; one that is well is better."""
    balancer, sticky = fleet(panic_threshold=0.5)
    home = balancer.pick(hash_key="key")
    for name in NAMES:
        fail(balancer, name)
    assert balancer.explain(hash_key="key").choice == home
    assert {balancer.pick(hash_key="key") for _ in range(8)} == {home}
    assert balancer.health is not None
    well = next(name for name in NAMES if name != home)
    balancer.health.remove(well)
    while balancer.pick(hash_key="key") != well:
        assert sticky.pinned("key") == home
    assert sticky.pinned("key") == well


def test_the_ttl_runs_from_the_last_use_on_the_balancers_clock() -> None:
    """A key in use keeps its node for ever; one that is not is given another after the ttl."""
    clock = ManualClock()
    balancer, sticky = fleet(clock, ttl=60.0)
    home = balancer.pick(hash_key="key")
    for _ in range(10):
        clock.advance(59.0)
        assert balancer.pick(hash_key="key") == home
    clock.advance(59.9)
    assert sticky.pinned("key") == home
    clock.advance(0.1)
    assert sticky.pinned("key") is None
    assert balancer.pick(hash_key="key") != home


def test_balancers_that_share_sessions_have_one_clock() -> None:
    """Another clock would count other seconds."""
    sticky = Sticky[str](Random())
    Balancer(NAMES, sticky, clock=ManualClock())
    with pytest.raises(ValueError, match="give all of them the same clock"):
        Balancer(NAMES, sticky, clock=ManualClock(5.0))


def test_keys_that_are_too_many_or_lapsed_are_dropped() -> None:
    """The least recently used goes first, and what is kept stays within its bound."""
    clock = ManualClock()
    sticky = Sticky[str](RoundRobin(), ttl=10.0, max_keys=100)
    balancer = Balancer(NAMES, sticky, clock=clock)
    for number in range(1000):
        balancer.pick(hash_key=f"key-{number}")
        balancer.pick(hash_key="key-0")
    assert len(sticky.snapshot()) == 100
    assert sticky.pinned("key-0") is not None
    assert sticky.pinned("key-900") is None
    clock.advance(10.0)
    for number in range(60):
        balancer.pick(hash_key=f"new-{number}")
    assert len(sticky._pins) == 60, "two that lapsed go for each that comes"


def test_a_key_can_be_pinned_by_hand() -> None:
    """To a member only, or to anybody while there are none; the nearest id is named."""
    sticky = Sticky[str](ConsistentHash())
    sticky.pin("early", "b")
    balancer = Balancer(["node-a", "b"], sticky)
    assert balancer.pick(hash_key="early") == "b"
    sticky.pin("key", "node-a")
    assert [balancer.pick(hash_key="key") for _ in range(3)] == ["node-a"] * 3
    with pytest.raises(UnknownNode, match="Sticky has no node with id 'node-b'; did you mean 'nod"):
        sticky.pin("key", "node-b")
    for key, error in ((None, (MissingHashKey, TypeError)), (1.5, TypeError), (True, TypeError)):
        wrong: Any = key
        with pytest.raises(error):
            sticky.pin(wrong, "b")
        with pytest.raises(error):
            sticky.pinned(wrong)


def test_requests_without_a_key_are_the_inner_strategys() -> None:
    """They are given nodes and pin nothing."""
    balancer, sticky = fleet()
    assert [balancer.pick() for _ in range(4)] == NAMES
    assert sticky.snapshot() == []
    with pytest.raises(MissingHashKey, match="ConsistentHash"):
        Sticky[str](ConsistentHash()).select(NAMES)


def test_owners_are_the_node_and_then_the_order_of_the_hash() -> None:
    """Asking pins nothing; the strategy inside must have an order."""
    nodes = NodeSet(NAMES)
    sticky, inner = Sticky[str](ConsistentHash()), ConsistentHash[str]()
    assert sticky.owner(nodes, "key") == inner.owner(nodes, "key")
    assert sticky.owners(nodes, "key", 9) == inner.owners(nodes, "key", 9)
    assert sticky.pinned("key") is None
    last = inner.owners(nodes, "key", 9)[-1]
    sticky.pin("key", nodes[last])
    assert sticky.owner(nodes, "key") == last
    assert sticky.owners(nodes, "key", 3) == [last, *inner.owners(nodes, "key", 2)]
    assert sticky.owners(nodes, "key", 0) == sticky.owners(NodeSet([]), "key", 2) == []
    with pytest.raises(TypeError, match=r"owners\(\) needs an order .* but inner is Random"):
        Sticky[str](Random()).owners(nodes, "key", 2)


def test_what_it_is_asked_without_a_balancer() -> None:
    """Of lists and sets of no balancer, who has left or weighs nothing is lost; views pass."""
    sticky = Sticky[Endpoint](RoundRobin())
    nodes = [Endpoint(name) for name in NAMES]
    context = SelectionContext("key")
    assert sticky.select(nodes, context) == 0
    assert sticky.select(nodes[::-1], context) == 3
    view = NodeSet(nodes).without([0])
    assert sticky.select(view, context) != 0
    assert sticky.select(NodeSet(nodes), context) == 0
    with pytest.raises(IndexError, match="exclude has the index 9"):
        sticky.select(nodes, SelectionContext("key", exclude={9}))
    assert sticky.select(nodes[:0], context) is None
    moved = sticky.select(nodes[1:], context)
    assert moved is not None
    assert sticky.pinned("key") == nodes[1:][moved].id


def test_loads_inside_are_fed() -> None:
    """The balancer feeds the measures of the strategy inside, and the clock comes along."""
    clock = ManualClock()
    for inner in (BoundedLoads[str](ConsistentHash()), LeastLoad[str](PeakEwma())):
        sticky = Sticky[str](inner, ttl=5.0)
        balancer = Balancer(NAMES, sticky, clock=clock)
        leases = [balancer.acquire(hash_key=str(number)) for number in range(20)]
        assert sum(status.in_flight for status in balancer.status()) == 20
        seen = balancer.explain(hash_key="0").seen
        assert sum(each["pins"] for each in seen.values()) == 20
        clock.advance(5.0)
        assert sticky.pinned("0") is None
        for lease in leases:
            lease.success()


def test_pins_survive_a_restart() -> None:
    """What is saved is plain, and restored with the time that each was idle."""
    clock = ManualClock()
    balancer, sticky = fleet(clock, ttl=60.0)
    homes = {f"key-{number}": balancer.pick(hash_key=f"key-{number}") for number in range(6)}
    clock.advance(30.0)
    balancer.pick(hash_key="key-0")
    store = InMemoryStore[str, str]()
    store.put("sessions", json.dumps(sticky.snapshot()))

    clock = ManualClock(1000.0)
    balancer, sticky = fleet(clock, ttl=60.0)
    sticky.pin("key-5", "d")
    sticky.restore(json.loads(store.get("sessions") or ""))
    assert [pin.key for pin in sticky.snapshot()][-2:] == ["key-0", "key-5"]
    assert sticky.pinned("key-5") == "d", "who has a node by now keeps it"
    assert balancer.pick(hash_key="key-2") == homes["key-2"]
    clock.advance(30.0)
    assert [sticky.pinned(f"key-{number}") for number in range(5)] == [
        homes["key-0"],
        None,
        homes["key-2"],
        None,
        None,
    ]


def test_a_restart_keeps_to_the_bounds() -> None:
    """The most recently used come back, lapsed ones do not, and bad values are named."""
    sticky = Sticky[str](Random(), ttl=60.0, max_keys=3)
    sticky.restore([(f"key-{number}", "a", 10.0 * number) for number in (9, 3, 1, 4, 2)])
    assert [pin.key for pin in sticky.snapshot()] == ["key-3", "key-2", "key-1"]
    assert all(isinstance(pin, SavedPin) for pin in sticky.snapshot())
    for idle in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="for key 'key-8'; it must be"):
            sticky.restore([("key-8", "a", idle)])


def test_a_node_that_never_came_back_is_given_up() -> None:
    """A pin that was restored may name nobody."""
    sticky = Sticky[str](RoundRobin())
    sticky.restore([("key", "gone", 0.0)])
    balancer = Balancer(NAMES, sticky)
    assert balancer.pick(hash_key="key") in NAMES
    assert sticky.pinned("key") in NAMES


def test_threads_agree_on_the_node_of_a_new_key(restless: None) -> None:
    """All who bring a key at once are given the same node."""
    balancer, _ = fleet()
    start = Barrier(4)
    seen: list[list[str]] = [[] for _ in range(4)]

    def work(mine: list[str]) -> None:
        start.wait(60)
        mine += [balancer.pick(hash_key=f"key-{number}") for number in range(500)]

    threads = [Thread(target=work, args=(mine,), daemon=True) for mine in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen[0] == seen[1] == seen[2] == seen[3]
    assert len(seen[0]) == 500


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"ttl": 0.0}, ValueError, r"ttl is 0\.0; it must be finite and above 0, in seconds"),
        ({"ttl": math.inf}, ValueError, "ttl is inf"),
        ({"ttl": "1h"}, TypeError, wrong_type("ttl is '1h'; it must be a number")),
        ({"max_keys": 0}, ValueError, "max_keys is 0; it must be at least 1"),
        ({"inner": Random}, TypeError, "strategy is the class Random; give an instance"),
        ({"inner": None}, TypeError, "strategy is None"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    """At construction, by name."""
    given: dict[str, Any] = {"inner": Random(), **arguments}
    with pytest.raises(error, match=message):
        Sticky[str](**given)


def test_nobody_left_is_an_error_as_ever() -> None:
    """The error says why; the key keeps its node."""
    balancer, sticky = fleet(panic_threshold=None)
    home = balancer.pick(hash_key="key")
    with pytest.raises(NoNodeAvailable, match="4 excluded"):
        balancer.pick(hash_key="key", exclude=NAMES)
    assert sticky.pinned("key") == home


@pytest.mark.parametrize(
    ("pins", "kind", "message"),
    [
        ([["key", ["host", 1], 0.0]], TypeError, r"node of key 'key' is \['host', 1\], .* a tuple"),
        ([["key", "a"]], ValueError, r"a pin is \['key', 'a'\]; it must have a key, the id"),
        (["key"], TypeError, "a pin is 'key'; it must have a key, the id"),
        ([3], TypeError, "a pin is 3; it must have a key, the id"),
        ([["key", "a", "b"]], TypeError, "idle is 'b'; it must be a number"),
    ],
)
def test_what_cannot_be_restored_is_refused_at_once(
    pins: Any, kind: type[Exception], message: str
) -> None:
    """Not at the first request with that key, and nothing is restored."""
    sessions = Sticky(RoundRobin[Any]())
    with pytest.raises(kind, match=message):
        sessions.restore([["other", "a", 0.0], *pins])
    assert sessions.snapshot() == []
