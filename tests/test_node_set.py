"""NodeSet: a snapshot, its views, and what it refuses."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies.support import Server

from loadwise import Endpoint, NodeSet, RoundRobin
from loadwise._membership import Membership


def test_it_is_a_sequence_of_the_nodes() -> None:
    """Length, indexing, slices, iteration, membership and search are those of a sequence."""
    nodes = NodeSet(iter("abcd"))
    assert isinstance(nodes, Sequence)
    assert (len(nodes), nodes[1], nodes[-1], nodes[1:3]) == (4, "b", "d", ("b", "c"))
    assert list(nodes) == ["a", "b", "c", "d"] == list(reversed(nodes))[::-1]
    assert "c" in nodes
    assert nodes.index("c") == 2
    assert not NodeSet(())
    with pytest.raises(IndexError):
        nodes[4]


def test_ids_and_weights_by_index() -> None:
    """Ids and weights are in index order; a node without a weight counts 1; 0 is not eligible."""
    nodes: NodeSet[object] = NodeSet([Endpoint("a", weight=2.5), "b", Endpoint("c", weight=0)])
    assert nodes.ids == ("a", "b", "c")
    assert nodes.weights == (2.5, 1, 0)
    assert nodes.eligible == (0, 1)
    assert bytes(nodes.mask) == b"\x01\x01\x00"
    assert (nodes.index_of("c"), nodes.index_of("z")) == (2, None)


def test_it_is_a_snapshot() -> None:
    """Later changes of the list or of the nodes do not reach it."""
    server = Server("a", weight=3)
    source = [server, Server("b")]
    nodes = NodeSet(source)
    source.clear()
    server.id, server.weight = "z", 0
    assert nodes.ids == ("a", "b")
    assert nodes.weights == (3, 1)
    assert nodes[0] is server


def test_a_view_keeps_positions() -> None:
    """A restricted set has the same length, indexing and ids; only who may be chosen differs."""
    nodes = NodeSet(list("abcde"))
    view = nodes.restrict([4, 1, 1])
    assert view.eligible == (1, 4)
    assert (len(view), view[0], view.ids, view.index_of("e")) == (5, "a", nodes.ids, 4)
    assert nodes.eligible == (0, 1, 2, 3, 4)
    assert view.restrict([]).eligible == ()


@given(
    weights=st.lists(st.integers(0, 2), max_size=12),
    cuts=st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 11))), max_size=4),
)
def test_views_of_views(weights: list[int], cuts: list[tuple[bool, set[int]]]) -> None:
    """What was cut stays cut, however views are nested; the mask tells the same as the indices."""
    nodes = view = NodeSet(Endpoint(i, weight=weight) for i, weight in enumerate(weights))
    expected = {i for i, weight in enumerate(weights) if weight}
    for keep, drawn in cuts:
        indices = {i for i in drawn if i < len(weights)}
        view = view.restrict(indices) if keep else view.without(indices)
        expected = expected & indices if keep else expected - indices
    assert view.eligible == tuple(sorted(expected))
    assert [i for i, allowed in enumerate(view.mask) if allowed] == sorted(expected)
    assert view.membership is nodes.membership


@pytest.mark.parametrize("index", [3, -1, 10**9])
@pytest.mark.parametrize("method", ["restrict", "without"])
def test_indices_out_of_range(method: str, index: int) -> None:
    """A view of an index that no node has is refused, by either method."""
    with pytest.raises(IndexError, match=f"index {index} is not in a NodeSet of 3 nodes"):
        getattr(NodeSet(list("abc")), method)([0, index])


def test_an_index_is_an_int() -> None:
    """An id where an index is due is refused."""
    with pytest.raises(TypeError):
        NodeSet(list("abc")).restrict(["a"])  # type: ignore[list-item]  # the point of the test


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (["a", "b", "a"], "id 'a' stands at index 0 and again at index 2"),
        ([Endpoint("a"), "a"], "id 'a' stands at index 0 and again at index 1"),
        ([Server("x"), Server("x", weight=2)], "id 'x' stands at index 0 and again at index 1"),
        ([1, 1.0], "id 1 stands at index 0 and again at index 1"),
    ],
)
def test_duplicate_ids(nodes: list[Any], message: str) -> None:
    """Two nodes of one id are refused, with the id and both places."""
    with pytest.raises(ValueError, match=message):
        NodeSet(nodes)


def test_one_address_instead_of_a_list() -> None:
    """An address without a list around it is named as such, not by its letters."""
    message = "the nodes are '10.0.0.1:8080', whose every character or byte would be a node; give"
    with pytest.raises(TypeError, match=re.escape(message)):
        NodeSet("10.0.0.1:8080")


@pytest.mark.parametrize("weight", [-1, -0.5, math.nan, math.inf])
def test_bad_weights(weight: float) -> None:
    """The weights of nodes of the user's own are checked, too."""
    with pytest.raises(ValueError, match=f"node 'b' has the weight {weight!r}; it must be finite"):
        NodeSet([Server("a"), Server("b", weight=weight)])


def test_a_weight_that_is_no_number() -> None:
    """A weight of another type is refused by name."""
    server = Server("b")
    server.weight = "heavy"  # type: ignore[assignment]  # the point of the test
    with pytest.raises(TypeError, match="node 'b' has the weight 'heavy'; it must be an int"):
        NodeSet([Server("a"), server])


@pytest.mark.parametrize("node", [["a"], {"host": "a"}, {1, 2}])
def test_unhashable_ids(node: object) -> None:
    """A node that is no key and has no id is refused with a remedy."""
    with pytest.raises(TypeError, match="which is not hashable; give the node a hashable `id`"):
        NodeSet(["a", node])


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (NodeSet(()), "<NodeSet of 0: ; 0 eligible>"),
        (NodeSet(list("ab")).restrict([1]), "<NodeSet of 2: 'a', 'b'; 1 eligible>"),
        (NodeSet(range(1000)), "<NodeSet of 1000: 0, 1, 2, ... 997 more; 1000 eligible>"),
    ],
)
def test_its_repr_stays_short(nodes: NodeSet[object], expected: str) -> None:
    """The repr shows size, first ids and how many may be chosen, however many there are."""
    assert repr(nodes) == expected


def test_sets_are_known_by_identity() -> None:
    """Two sets of the same nodes are two snapshots: unequal, and separate keys."""
    one, other = NodeSet(list("ab")), NodeSet(list("ab"))
    assert one != other
    assert len({one, other, one}) == 2


@pytest.mark.parametrize("way", ["pickle", "copy", "deepcopy"])
def test_a_view_travels(way: str) -> None:
    """Pickled and copied views have the same nodes, and the same may be chosen."""
    view = NodeSet([Endpoint("a", 2, tags={"k": "v"}), Endpoint("b"), Endpoint("c")]).without([1])
    ways: dict[str, Callable[[NodeSet[Endpoint]], NodeSet[Endpoint]]] = {
        "pickle": lambda nodes: pickle.loads(pickle.dumps(nodes)),  # noqa: S301 - our own bytes
        "copy": copy.copy,
        "deepcopy": copy.deepcopy,
    }
    twin = ways[way](view)
    assert twin is not view
    assert list(twin) == list(view)
    assert (twin.eligible, twin.weights, twin.index_of("c")) == ((0, 2), (2, 1, 1), 2)
    strategy = RoundRobin[Endpoint]()
    assert [strategy.select(twin) for _ in range(3)] == [0, 2, 0]


def facts(nodes: NodeSet[Any]) -> dict[str, object]:
    """Return all that a set tells, with types, for 1 is not 1.0 to every rule."""
    membership = nodes.membership
    return {
        "nodes": list(nodes),
        "ids": nodes.ids,
        "weights": [(type(weight), weight) for weight in nodes.weights],
        "content": membership.content,
        "hash": hash(membership.content),
        "unweighted": membership.unweighted,
        "idle": membership.idle,
        "tally": membership.tally,
        "whole": membership.eligible,
        "eligible": nodes.eligible,
        "mask": nodes.mask,
        "ailing": nodes.ailing,
        "well": nodes.well.eligible,
        "found": [nodes.index_of(identity) for identity in nodes.ids],
        "index": membership.index,
        "repr": repr(nodes),
    }


WEIGHTS = st.sampled_from([0, 1, 1, 1, 2, 1.0, 2.5, None])


def node_of(number: int, weight: float | None) -> object:
    """Return a node of that weight, or a mere id."""
    return number if weight is None else Server(str(number), weight=weight)


@given(
    first=st.lists(WEIGHTS, max_size=6),
    changes=st.lists(st.tuples(st.integers(0, 9), WEIGHTS), max_size=25),
    gone=st.sets(st.integers(0, 40)),
    more=st.sets(st.integers(0, 40)),
    ailing=st.sets(st.integers(0, 40)),
)
def test_a_set_made_from_another_is_as_one_made_anew(
    first: list[float | None],
    changes: list[tuple[int, float | None]],
    gone: set[int],
    more: set[int],
    ailing: set[int],
) -> None:
    """Nodes join and leave one by one, some are ruled out: every attribute is as if built at once.

    Views are compared with such as were restricted to the rest, which is worked out another way.
    """
    kept = [node_of(number, weight) for number, weight in enumerate(first)]
    membership: Membership[Any] = NodeSet(kept).membership
    for number, (draw, weight) in enumerate(changes, len(first)):
        before = membership
        if kept and draw % 2:
            index = draw % len(kept)
            del kept[index]
            membership = membership.parted(index)
            assert membership.before == (before, index)
        else:
            kept.append(node_of(number, weight))
            membership = membership.joined(kept[-1])
            assert membership.before == (before, None)
    nodes, anew = NodeSet.of_membership(membership), NodeSet(kept)
    assert facts(nodes) == facts(anew)
    gone, more = ({i for i in drawn if i < len(kept)} for drawn in (gone, more))
    marks = {i for i in ailing if i < len(kept)} - gone
    view = nodes.without(gone).marked(marks)
    rest = anew.restrict(set(range(len(kept))) - gone).marked(marks)
    assert facts(view) == facts(rest)
    assert facts(view.without(more)) == facts(rest.without(more))
    assert nodes.index_of("nobody") is None


def test_nodes_that_stay_are_not_read_again() -> None:
    """Who joined with a weight has it until all are read again, whatever others do."""
    servers = [Server("a"), Server("b"), Server("c")]
    membership: Membership[Any] = NodeSet(servers).membership
    servers[1].weight, servers[1].id = 9, "z"
    membership = membership.joined(Server("d")).parted(0)
    assert (membership.ids, membership.weights) == (("b", "c", "d"), (1, 1, 1))


@pytest.mark.parametrize("left", [0, 1])
def test_an_id_that_joins_twice(left: int) -> None:
    """The second is refused as at construction, with both places, also after others have left."""
    membership: Membership[Any] = NodeSet(list("abcd")).membership
    for _ in range(left):
        membership = membership.parted(0)
    message = f"id 'c' stands at index {2 - left} and again at index {4 - left}"
    with pytest.raises(ValueError, match=message):
        membership.joined(Server("c"))
    with pytest.raises(TypeError, match="which is not hashable"):
        membership.joined([])
    with pytest.raises(ValueError, match="node 'e' has the weight -1"):
        membership.joined(Server("e", weight=-1))


@pytest.mark.parametrize("way", [pickle.dumps, copy.deepcopy])
def test_a_set_made_from_another_travels(way: Callable[[object], Any]) -> None:
    """Pickled and copied it is the same, though it knows the one that it was made from."""
    membership = NodeSet(list("abc")).membership
    view = NodeSet.of_membership(membership.joined("d").parted(1)).without([0])
    hash(view.membership.content)
    sent = way(view)
    twin = pickle.loads(sent) if isinstance(sent, bytes) else sent  # noqa: S301 - our own bytes
    assert facts(twin) == facts(view)
    assert twin.membership.before is None


def test_what_a_set_was_made_from_goes_when_nobody_uses_it() -> None:
    """After 1,000 changes there are no more memberships than after one."""

    def alive() -> int:
        gc.collect()
        return sum(type(thing) is Membership for thing in gc.get_objects())

    membership: Membership[Any] = NodeSet(range(10)).membership
    before = alive()
    for number in range(10, 1010):
        membership = membership.joined(number).parted(0)
    assert alive() == before
    assert membership.before is None
    assert membership.ids == tuple(range(1000, 1010))


def test_differences_of_views() -> None:
    """Views of the same nodes tell in what few indices they differ; others do not."""
    nodes = NodeSet(range(200))
    one, other = nodes.without([3, 5]), nodes.without([5, 7])
    assert other.since(one) == ([7], [3])
    assert other.since(nodes)[0] in ([5, 7], [7, 5])  # type: ignore[index]
    assert nodes.since(other.without([])) == ([], nodes.since(other)[1])  # type: ignore[index]
    assert nodes.without(range(100)).since(nodes) is None, "too many to be worth it"
    assert nodes.without(range(100)).since(nodes.without(range(1, 101))) == ([0], [100])
    assert nodes.restrict([1]).since(nodes) is None
    assert NodeSet(range(200)).since(nodes) is None
