"""Plain lists and sets of nodes: changes are noticed, turns are kept, memory is bounded."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.strategies.support import MAKERS, Server, picks, smooth_sequence

from loadwise import (
    ConsistentHash,
    Endpoint,
    InFlight,
    LeastLoad,
    MostAvailable,
    NodeSet,
    RoundRobin,
    SelectionContext,
    WeightedRandom,
    WeightedRoundRobin,
)
from loadwise.strategies import ViewStrategy
from loadwise.strategies._planned import Planned

Maker = Callable[[], ViewStrategy[Any]]

every_strategy = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)

PLANNED = {name: make for name, make in MAKERS.items() if isinstance(make(), Planned)}


@every_strategy
def test_a_weight_that_drops_to_zero_in_a_list_is_noticed(make: Maker) -> None:
    """A node drained in place is not picked again; restored in place it is."""
    strategy, nodes = make(), [Server("a"), Server("b"), Server("c")]
    assert set(picks(strategy, nodes, 60)) == {0, 1, 2}
    nodes[1].weight = 0
    assert set(picks(strategy, nodes, 60)) == {0, 2}
    nodes[1].weight = 1
    assert set(picks(strategy, nodes, 60)) == {0, 1, 2}


@every_strategy
def test_bad_lists_are_refused_however_often(make: Maker) -> None:
    """Duplicate ids, bad weights and unhashable ids are clear errors in plain lists, too."""
    strategy, nodes = make(), [Server("a"), Server("b")]
    context = SelectionContext("key")
    strategy.select(nodes, context)
    for _ in range(2):
        nodes[1].id = "a"
        with pytest.raises(ValueError, match="id 'a' stands at index 0 and again at index 1"):
            strategy.select(nodes, context)
        nodes[1].id = "b"
        nodes[1].weight = -3
        with pytest.raises(ValueError, match="node 'b' has the weight -3; it must be finite"):
            strategy.select(nodes, context)
        nodes[1].weight = 1
        assert strategy.select(nodes, context) in (0, 1)


@every_strategy
def test_an_unhashable_id_in_a_list_is_named(make: Maker) -> None:
    """The error says whose id it is and what to do, as that of NodeSet does."""
    nodes = [Server("a"), Server("b")]
    nodes[1].id = ["b"]  # type: ignore[assignment]  # the point of the test
    with pytest.raises(TypeError, match=r"Server has the id \['b'\], which is not hashable"):
        make().select(nodes, SelectionContext("key"))


@every_strategy
def test_an_exclude_index_out_of_range_is_an_error(make: Maker) -> None:
    """An exclude index that no candidate has is told, for the caller mixed something up."""
    nodes = NodeSet([Server("a"), Server("b")])
    for outside in (2, -1):
        with pytest.raises((IndexError, ValueError), match=f"{outside}"):
            make().select(nodes, SelectionContext("key", exclude={outside}))


@every_strategy
def test_an_id_in_exclude_is_an_error(make: Maker) -> None:
    """A context that excludes by id is told that it takes indices."""
    nodes = NodeSet([Server("a"), Server("b")])
    with pytest.raises(TypeError, match=r"exclude has 'a'.*takes indices"):
        make().select(nodes, SelectionContext("key", exclude={"a"}))  # type: ignore[arg-type]


def test_new_ids_in_a_list_are_noticed() -> None:
    """A key follows the ids as they are now: a renamed node is another node on the ring."""
    strategy = ConsistentHash[Server]()
    nodes = [Server(f"node-{number}") for number in range(5)]
    before = picks(strategy, nodes, 200)
    nodes[2].id = "renamed"
    after = picks(strategy, nodes, 200)
    assert after == picks(ConsistentHash(), NodeSet(nodes), 200) != before
    nodes[2].id = "node-2"
    assert picks(strategy, nodes, 200) == before


def test_a_nodeset_is_a_snapshot() -> None:
    """What is changed in a node after its NodeSet was made counts from the next NodeSet on."""
    strategy, server = RoundRobin[Server](), Server("a")
    nodes = NodeSet([server, Server("b")])
    server.weight = 0
    assert picks(strategy, nodes, 2) == [0, 1]
    assert picks(strategy, NodeSet(nodes), 2) == [1, 1]


@pytest.mark.parametrize("make", [LeastLoad, MostAvailable])
def test_lists_of_equal_content_are_read_afresh(
    make: type[LeastLoad[Server] | MostAvailable[Server]],
) -> None:
    """Two lists of the same ids, but of other objects, are judged by their own objects."""
    strategy = make()
    busy, free = Server("a", load=5, left=0), Server("a", load=1, left=9)
    other = Server("b", load=3, left=5)
    for _ in range(2):
        assert strategy.select([busy, other]) == 1
        assert strategy.select([free, other]) == 0
        assert strategy.select(NodeSet([busy, other])) == 1
        assert strategy.select(NodeSet([free, other])) == 0


@pytest.mark.parametrize("make", [WeightedRoundRobin, WeightedRandom])
@pytest.mark.parametrize("form", [list, NodeSet])
def test_what_a_node_lacks_is_noticed_whatever_came_before(
    make: type[WeightedRoundRobin[Any] | WeightedRandom[Any]], form: Callable[[Any], Any]
) -> None:
    """A node without a weight is an error even when a node of that id had weight 1 just before."""
    strategy = make()
    for _ in range(2):
        assert strategy.select(form([Endpoint("a"), Endpoint("b")])) in (0, 1)
        with pytest.raises(TypeError, match=rf"{make.__name__} needs `weight` .* node 'a'"):
            strategy.select(form(["a", "b"]))


def test_lists_and_sets_of_the_same_content_take_the_same_turns() -> None:
    """One instance asked in any form about the same nodes continues one sequence."""
    strategy = WeightedRoundRobin[Endpoint]()
    content = [("a", 5), ("b", 1), ("c", 1)]
    forms: list[Callable[[list[Endpoint]], Any]] = [list, NodeSet, tuple]
    chosen = [
        strategy.select(
            forms[turn % 3]([Endpoint(name, weight=weight) for name, weight in content])
        )
        for turn in range(21)
    ]
    assert chosen == [0, 0, 1, 0, 2, 0, 0] * 3


def test_fifty_lists_served_by_turns_keep_their_turns() -> None:
    """One strategy for 50 plain lists gives each of them its own uninterrupted sequence."""
    weighted, plain = WeightedRoundRobin[Endpoint](), RoundRobin[Endpoint]()
    lists = [
        [Endpoint(f"{number}-{i}", weight=1 + (number + i) % 4) for i in range(4)]
        for number in range(50)
    ]
    chosen: list[tuple[list[int | None], list[int | None]]] = [([], []) for _ in lists]
    for _ in range(20):
        for nodes, (by_weight, by_turn) in zip(lists, chosen, strict=True):
            by_weight.append(weighted.select(nodes))
            by_turn.append(plain.select(nodes))
    for nodes, (by_weight, by_turn) in zip(lists, chosen, strict=True):
        weights = [int(node.weight) for node in nodes]
        assert by_weight == smooth_sequence(weights, 20, range(4))
        first = by_turn[0]
        assert first is not None
        assert by_turn == [(first + turn) % 4 for turn in range(20)]


@pytest.mark.parametrize("form", [list, NodeSet])
def test_the_least_recently_used_is_forgotten_first(form: Callable[[Any], Any]) -> None:
    """Nodes that are asked about all the time keep their turns among any number of others."""
    strategy = WeightedRoundRobin[Endpoint]()
    regular = form([Endpoint("a", weight=5), Endpoint("b"), Endpoint("c")])
    chosen = []
    for number in range(210):
        chosen.append(strategy.select(form(list(regular))))
        strategy.select(form([Endpoint(f"{number}-a"), Endpoint(f"{number}-b")]))
    assert chosen == [0, 0, 1, 0, 2, 0, 0] * 30


def test_a_set_in_use_is_not_forgotten() -> None:
    """A NodeSet asked about all the time goes on when a node's health changes, and after that."""
    strategy = WeightedRoundRobin[Endpoint]()
    regular = NodeSet([Endpoint("a", weight=5), Endpoint("b"), Endpoint("c")])
    for number in range(71):
        strategy.select(regular)
        strategy.select(NodeSet([Endpoint(f"{number}-a"), Endpoint(f"{number}-b")]))
    assert picks(strategy, regular.without([2]), 6) == [0, 1, 0, 0, 0, 0]
    assert picks(strategy, regular, 6) == smooth_sequence([5, 1, 1], 77, range(3))[71:]


@pytest.mark.parametrize("make", PLANNED.values(), ids=PLANNED)
def test_thousands_of_lists_do_not_pile_up(make: Maker) -> None:
    """After 600 distinct lists no more is kept than after the first hundred."""
    strategy = make()
    assert isinstance(strategy, Planned)
    context = SelectionContext("key")
    for number in range(600):
        strategy.select([Server(f"{number}-a"), Server(f"{number}-b")], context)
    gc.collect()
    assert len(strategy._known) <= strategy.kept
    assert len(strategy._plans) <= strategy.kept + 1


def test_rings_are_kept_by_size() -> None:
    """Rings of millions of points are not kept by the dozen; the last one always is."""
    strategy = ConsistentHash[str](virtual_nodes=2000)
    strategy.kept_size = 5000  # type: ignore[misc]  # smaller rings than those of the class
    for number in range(20):
        strategy.select(NodeSet([f"{number}"]), SelectionContext("key"))
    assert len(strategy._known) == 2
    strategy.select(NodeSet(["a", "b", "c"]), SelectionContext("key"))
    assert len(strategy._known) == 1


@every_strategy
def test_sets_and_nodes_that_are_gone_are_forgotten(make: Maker) -> None:
    """A strategy holds on to no NodeSet but the last, nor to the nodes of one."""
    strategy = make()
    gone: Counter[str] = Counter()

    def use(nodes: NodeSet[Server] | list[Server]) -> None:
        for node in nodes:
            weakref.finalize(node, gone.update, ["node"])
        picks(strategy, nodes, 3)
        if isinstance(nodes, NodeSet):
            weakref.finalize(nodes, gone.update, ["set"])
            strategy.peek(nodes.without([1]), SelectionContext("key"))

    for number in range(10):
        use(NodeSet([Server(f"{number}-a"), Server(f"{number}-b")]))
        use([Server(f"{number}-c"), Server(f"{number}-d")])
    picks(strategy, NodeSet([Server("last")]), 1)
    gc.collect()
    assert gone == {"set": 10, "node": 40}


def test_cells_of_forgotten_nodes_are_freed() -> None:
    """A measure keeps an entry for a node only as long as someone reads or feeds it."""
    measure = InFlight()
    strategy = LeastLoad[str](load=measure)
    for number in range(400):
        strategy.select([f"{number}-a", f"{number}-b"])
    gc.collect()
    assert len(measure._cells) <= 2 * strategy.kept


@every_strategy
def test_peeking_at_other_nodes_changes_nothing(make: Maker) -> None:
    """A look at some nodes does not settle what is chosen of them later, nor of any others."""
    asked, unasked = make(), make()
    nodes, others = (NodeSet(Server(f"{name}-{i}") for i in range(5)) for name in "ab")
    context = SelectionContext("key")
    chosen = [picks(asked, nodes, 3)]
    asked.peek(others, context)
    chosen += [picks(asked, nodes, 3), picks(asked, others, 3)]
    assert chosen == [picks(unasked, candidates, 3) for candidates in (nodes, nodes, others)]
