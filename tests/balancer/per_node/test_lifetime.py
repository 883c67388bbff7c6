"""One object for each node: made once, and closed once nobody uses it and its node is gone."""

from __future__ import annotations

import gc
import logging
import warnings
import weakref
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from tests.balancer.per_node.support import SECONDS, WRONG, Maker, Thing, lease_of

from loadwise import (
    Balancer,
    Endpoint,
    InFlight,
    LeastLoad,
    LoadwiseError,
    NoopCollector,
    PerNode,
)
from loadwise.testing import ManualClock


def test_each_node_has_its_own(balancer: Balancer[str]) -> None:
    """The object is made at the first use, and the same ever after."""
    make = Maker()
    per_node = PerNode(make, close=Thing.close)
    for _ in range(3):
        for node in "ab":
            with lease_of(balancer, node) as lease:
                assert per_node(lease) is per_node(lease)
                assert per_node(lease).node == node
    assert [thing.node for thing in make.made] == ["a", "b"]
    assert make.closed == [0, 0]


@pytest.mark.parametrize("order", ["lease first", "removal first"])
@pytest.mark.parametrize("way", ["remove", "replace"])
def test_it_is_closed_once_both_are_gone(balancer: Balancer[str], way: str, order: str) -> None:
    """When its node has left and the last lease has ended, in either order, and only then."""
    make = Maker()
    per_node = PerNode(make, close=Thing.close)
    leases = [lease_of(balancer) for _ in range(3)]
    per_node(leases[0])
    per_node(leases[1])
    later = lease_of(balancer)

    def leave() -> None:
        if way == "remove":
            balancer.remove("a")
        else:
            balancer.replace(["b", "c"])

    ends: list[Callable[[], object]] = [
        leases[2].success,
        leases[0].failure,
        leases[1].rate_limited,
        later.cancel,
    ]
    deeds = [*ends, leave] if order == "lease first" else [leave, *ends]
    for deed in deeds[:-1]:
        deed()
        assert make.closed == [0], "somebody may use it still"
    deeds[-1]()
    assert make.closed == [1]
    balancer.replace(["b"])
    assert make.closed == [1]
    assert [status.in_flight for status in balancer.status()] == [0]


def test_a_node_that_comes_back_is_another_one(balancer: Balancer[str]) -> None:
    """Removed and added again under the same id, while old leases are open, it has a new object."""
    make = Maker()
    per_node = PerNode(make, close=Thing.close)
    old = lease_of(balancer)
    first = per_node(old)
    balancer.remove("a")
    balancer.add("a")
    new = lease_of(balancer)
    assert per_node(new) is not first
    assert per_node(old) is first
    old.success()
    assert make.closed == [1, 0]
    new.success()
    assert make.closed == [1, 0]
    with lease_of(balancer) as lease:
        assert per_node(lease) is make.made[1]


def test_a_node_that_replace_keeps_keeps_its_object() -> None:
    """By its id, whatever else has changed."""
    make = Maker()
    per_node = PerNode(make, close=Thing.close)
    balancer = Balancer([Endpoint("a"), Endpoint("b")])
    with lease_of(balancer) as lease:
        kept = per_node(lease)
    balancer.replace([Endpoint("a", weight=5)])
    with lease_of(balancer) as lease:
        assert per_node(lease) is kept


def test_a_lease_that_never_asked_counts(balancer: Balancer[str]) -> None:
    """The last lease is the last, whether or not it was interested, and whenever it began."""
    make = Maker()
    per_node = PerNode(make, close=Thing.close)
    before, asking = lease_of(balancer), lease_of(balancer)
    per_node(asking)
    after = lease_of(balancer)
    balancer.remove("a")
    asking.success()
    after.success()
    assert make.closed == [0]
    before.success()
    assert make.closed == [1]


def test_a_dropped_lease_holds_nothing(balancer: Balancer[str]) -> None:
    """A lease that is dropped without a word is one that ended, as of the next request."""
    make = Maker()
    per_node = PerNode(make, close=Thing.close)
    lease = lease_of(balancer)
    per_node(lease)
    balancer.remove("a")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del lease
        gc.collect()
    balancer.pick()
    assert make.closed == [1]


def test_an_ended_lease_is_refused(balancer: Balancer[str]) -> None:
    """What it would be given might be closed, so it is told to ask before."""
    per_node = PerNode(Maker())
    lease = lease_of(balancer)
    per_node(lease)
    lease.success()
    with pytest.raises(LoadwiseError, match="the lease on 'a' has ended; ask for the object while"):
        per_node(lease)
    balancer.remove("a")
    assert per_node._stock.entries == {}


def test_a_make_that_raises_is_tried_again(balancer: Balancer[str]) -> None:
    """Its error reaches the caller; the next lease has another go."""
    make = Maker(errors=2)
    per_node = PerNode(make, close=Thing.close)
    for _ in range(2):
        with pytest.raises(ConnectionError, match="a refused"), lease_of(balancer) as lease:
            per_node(lease)
    with lease_of(balancer) as lease:
        assert per_node(lease) is make.made[0]


def test_a_close_that_raises_is_logged(
    balancer: Balancer[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The request and the removal know nothing of it; the log does, and others are closed."""
    make = Maker()

    def broken(thing: Thing) -> None:
        thing.close()
        raise OSError("still busy")

    failing, sound = PerNode(make, close=broken), PerNode(make, close=Thing.close)
    with caplog.at_level(logging.ERROR, "loadwise"), lease_of(balancer) as lease:
        failing(lease)
        sound(lease)
        balancer.remove("a")
    assert make.closed == [1, 1]
    assert [record.getMessage() for record in caplog.records] == [
        "closing the object of node 'a' failed"
    ]
    assert "still busy" in caplog.text


def test_a_close_may_change_the_balancer(balancer: Balancer[str]) -> None:
    """It runs outside of all locks."""
    added: list[str] = []

    def close(thing: Thing) -> None:
        added.append("z")
        balancer.add("z")

    per_node = PerNode(Maker(), close=close)
    with lease_of(balancer) as lease:
        per_node(lease)
    worker = Thread(target=balancer.remove, args=("a",), daemon=True)
    worker.start()
    worker.join(SECONDS)
    assert balancer.nodes == ("b", "z")


def test_the_latency_is_without_the_closing() -> None:
    """The lease has been reported by then."""
    clock = ManualClock()
    seen: list[float | None] = []

    class Metrics(NoopCollector):
        def on_outcome(self, node_id: Any, outcome: Any, latency: float | None) -> None:
            seen.append(latency)

    balancer = Balancer(["a", "b"], clock=clock, metrics=Metrics())
    per_node = PerNode(Maker(), close=lambda _thing: clock.advance(5.0))
    lease = lease_of(balancer)
    per_node(lease)
    balancer.remove("a")
    clock.advance(1.0)
    assert lease.success()
    assert (seen, clock.now) == ([1.0], 6.0)


def test_all_are_closed_at_shutdown(balancer: Balancer[str]) -> None:
    """By `with` or `close`, whoever uses them; afterwards there are none to be had."""
    make = Maker()
    with PerNode(make, close=Thing.close) as per_node:
        lease, other = lease_of(balancer), lease_of(balancer, "b")
        per_node(lease)
        per_node(other)
    assert make.closed == [1, 1]
    per_node.close()
    with pytest.raises(LoadwiseError, match="this PerNode has been closed"):
        per_node(lease)
    lease.success()
    other.success()
    balancer.replace([])
    assert make.closed == [1, 1]


def test_it_keeps_no_balancer_alive() -> None:
    """A balancer that is dropped is gone, and its objects are closed at the next use."""
    make = Maker()
    per_node = PerNode(make, close=Thing.close)
    balancer: Any = Balancer(["a"])
    with balancer.acquire() as lease:
        per_node(lease)
    del lease
    gone = weakref.ref(balancer)
    del balancer
    gc.collect()
    assert gone() is None
    other = Balancer(["b"])
    with other.acquire() as lease:
        per_node(lease)
    assert make.closed == [1, 0]


def test_two_of_them_and_two_balancers_do_not_mix() -> None:
    """Each `PerNode` has an object for each member of each balancer."""
    make = Maker()
    one, two = PerNode(make, close=Thing.close), PerNode(make, close=Thing.close)
    shared = InFlight()
    balancers = [Balancer(["a"], LeastLoad(load=shared)) for _ in range(2)]
    leases = [balancer.acquire() for balancer in balancers]
    things = {per_node(lease) for per_node in (one, two) for lease in leases}
    assert len(things) == 4
    balancers[0].remove("a")
    leases[0].success()
    # They are counted together, so nobody knew that it was the last of its node's. It is closed
    # at the next use once nobody refers to it.
    del leases[0]
    one(leases[0])
    two(leases[0])
    assert sorted(make.closed) == [0, 0, 1, 1]
    one.close()
    assert sorted(make.closed) == [0, 1, 1, 1]
    leases[0].success()


@pytest.mark.parametrize(
    ("deed", "message"),
    [
        (lambda: PerNode(*WRONG[0]), "make is None; it must be a function of a node"),
        (lambda: PerNode(*WRONG[1]), "close is 'close'; it must be a function"),
    ],
)
def test_refuses_what_cannot_be_called(deed: Callable[[], object], message: str) -> None:
    """Where it is given."""
    with pytest.raises(TypeError, match=message):
        deed()


def test_a_node_is_no_lease() -> None:
    """Who gives the node is told what to give."""
    wrong: Any = "a"
    with pytest.raises(TypeError, match="lease is 'a'; give the lease, whose node it is about"):
        PerNode(Thing)(wrong)
