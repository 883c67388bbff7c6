"""Which answers of a source are believed, and when: the rules, with a clock that is told the time.

Nothing runs in the background here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.discovery.support import Lines, ids, logged

from loadwise import (
    Balancer,
    Endpoint,
    NoNodeAvailable,
    RendezvousSubset,
    UnknownNode,
    WeightedRoundRobin,
)
from loadwise.discovery.keeper import Keeper
from loadwise.discovery.settings import WatchSettings
from loadwise.discovery.source import Found


def keeper(balancer: Balancer[Any], **options: Any) -> Keeper[Any]:
    """A keeper without a debounce, unless it is told one."""
    return Keeper(balancer, WatchSettings(**{"debounce": 0.0, **options}), "the source")


def found(*nodes: Any, draining: tuple[object, ...] = (), **complaints: str) -> Found[Any]:
    """An answer."""
    return Found(nodes, draining=frozenset(draining), complaints=complaints)


def told(kept: Keeper[Any], answer: Found[Any], now: float = 0.0) -> float | None:
    """Take an answer and act on it."""
    kept.offer(answer, now)
    return kept.turn(now)


def test_the_first_answer_replaces_a_balancers_own_nodes_at_once() -> None:
    """Without a debounce; who is in both keeps what is known of it."""
    balancer = Balancer(["a", "b"])
    balancer.acquire(exclude=["b"]).success()
    kept = keeper(balancer, debounce=60.0)
    assert [*balancer.nodes] == [*("a", "b")]
    assert told(kept, found("c", "a")) is None
    assert [*balancer.nodes] == [*("c", "a")]
    assert [each.picks for each in balancer.status()] == [0, 1]


def test_changes_that_come_together_are_one() -> None:
    """The last of them is applied, when the first is as old as the debounce."""
    balancer = Balancer[str]([])
    kept = keeper(balancer, debounce=0.5)
    told(kept, found("a"))
    assert told(kept, found("a", "b"), 10.0) == 0.5
    assert told(kept, found("a", "c"), 10.3) == pytest.approx(0.2)
    assert [*balancer.nodes] == [*("a",)]
    assert kept.turn(10.5) is None
    assert [*balancer.nodes] == [*("a", "c")]


def test_an_empty_answer_empties_a_fleet_only_if_it_may() -> None:
    """Else the nodes stay, and the log says so once for as long as that lasts."""
    balancer = Balancer(["own"])
    kept = keeper(balancer)
    with logged() as log:
        for _ in range(3):
            told(kept, found())
        assert [*balancer.nodes] == [*("own",)]
        told(kept, found("a", "b"))
        for _ in range(3):
            told(kept, found())
        assert [*balancer.nodes] == [*("a", "b")]
    assert len(log.having("it lists no nodes; what there is")) == 2
    assert log.lines[-1] == (
        "WARNING the source for balancer 'default': it lists no nodes; what there is, 2 nodes, "
        "stays as it is (allow_empty=True would let them go)"
    )
    kept = keeper(balancer, allow_empty=True)
    told(kept, found())
    assert [*balancer.nodes] == [*()]
    told(kept, found("c"))
    assert [*balancer.nodes] == [*("c",)]


def test_half_of_the_fleet_gone_at_once_is_logged() -> None:
    """And believed, unless it is to be held back; less than half is nothing special."""
    balancer = Balancer[str]([])
    kept = keeper(balancer)
    told(kept, found("a", "b", "c", "d", "e"))
    with logged() as log:
        told(kept, found("c", "d", "e"))
        assert log.lines == []
        told(kept, found("e"))
        told(kept, found("e"))
    assert [*balancer.nodes] == [*("e",)]
    assert log.lines == ["WARNING the source for balancer 'default': 2 of 3 nodes are gone at once"]


def test_half_of_the_fleet_is_held_back_for_a_while() -> None:
    """New nodes join at once, those that come back stay, and the others go when the time is over.

    A single one that goes meanwhile is gone at once.
    """
    balancer = Balancer[str]([])
    kept = keeper(balancer, hold_back=30.0)
    told(kept, found("a", "b", "c", "d"), 0.0)
    with logged() as log:
        assert told(kept, found("a", "n"), 100.0) == 30.0
        assert set(balancer.nodes) == {"a", "n", "b", "c", "d"}
        assert kept.status(100.0).held == 3
        assert told(kept, found("a", "b"), 110.0) == 20.0  # b is back, n is gone
        assert set(balancer.nodes) == {"a", "b", "c", "d"}
        assert kept.turn(129.9) == pytest.approx(0.1)
        assert set(balancer.nodes) == {"a", "b", "c", "d"}
        assert kept.turn(130.0) is None
    assert [*balancer.nodes] == [*("a", "b")]
    assert kept.status(130.0).held == 0
    assert [line.partition(": ")[2] for line in log.lines] == [
        "3 of 4 nodes are gone at once; they are kept for 30 s, unless they come back"
    ]


def test_nodes_that_are_about_to_end_are_drained() -> None:
    """Before they go; who comes back is resumed; who is new and ending is of no use."""
    balancer = Balancer[str]([])
    kept = keeper(balancer)
    told(kept, found("a", "b", "c"))
    lease = balancer.acquire(exclude=["b", "c"])
    told(kept, found("a", "b", "c", "new", draining=("a", "new")))
    assert [*balancer.nodes] == [*("a", "b", "c")]
    assert {balancer.pick() for _ in range(50)} == {"b", "c"}
    assert kept.status(0.0).draining == 1
    lease.success()
    told(kept, found("a", "b", "c", draining=("b",)))
    assert {balancer.pick() for _ in range(50)} == {"a", "c"}
    told(kept, found("a", "c"))
    assert ids(balancer) == {"a", "c"}
    assert kept.status(0.0).draining == 0


def test_all_nodes_about_to_end_is_no_answer() -> None:
    """A fleet that is drained whole would be as bad as an empty one."""
    balancer = Balancer[str]([])
    kept = keeper(balancer)
    told(kept, found("a", "b"))
    with logged() as log:
        told(kept, found("a", "b", draining=("a", "b")))
    assert balancer.pick() in {"a", "b"}
    assert len(log.having("all nodes that it lists are about to end; what there is, 2 nodes")) == 1


def test_a_drain_of_somebody_else_is_left_alone() -> None:
    """What an operator drains stays drained, whatever the source says of it."""
    balancer = Balancer[str]([])
    kept = keeper(balancer)
    told(kept, found("a", "b"))
    balancer.drain("a")
    told(kept, found("a", "b", "c"))
    told(kept, found("a", "b", "c", "d", "e"))
    assert {balancer.pick() for _ in range(50)} == {"b", "c", "d", "e"}


def test_rolling_ends_are_no_half_of_the_fleet() -> None:
    """Those that were drained first and are gone then were not lost at once."""
    balancer = Balancer[str]([])
    kept = keeper(balancer, hold_back=30.0)
    told(kept, found("a", "b", "c", "d"))
    told(kept, found("a", "b", "c", "d", draining=("a", "b", "c")))
    with logged() as log:
        told(kept, found("d", "e"))
    assert [*balancer.nodes] == [*("d", "e")]
    assert log.lines == []


def test_weights_zones_and_tags_are_passed_on() -> None:
    """Also when nothing but a weight has changed."""
    balancer = Balancer[Endpoint]([], WeightedRoundRobin())
    kept = keeper(balancer)
    told(kept, found(Endpoint("a", zone="z"), Endpoint("b", tags={"x": "y"})))
    told(kept, found(Endpoint("a", weight=3, zone="z"), Endpoint("b", tags={"x": "y"})))
    picked = [balancer.pick().id for _ in range(8)]
    assert (picked.count("a"), picked.count("b")) == (6, 2)
    assert [(node.zone, dict(node.tags)) for node in balancer.nodes] == [
        ("z", {}),
        (None, {"x": "y"}),
    ]


def test_an_answer_that_changes_nothing_is_nothing() -> None:
    """In whatever order: the membership is the same object as before."""
    balancer = Balancer[Endpoint]([])
    kept = keeper(balancer)
    told(kept, found(Endpoint("a"), Endpoint("b")))
    before = balancer.nodes
    told(kept, found(Endpoint("b"), Endpoint("a")))
    assert balancer.nodes is before


def test_one_node_more_or_less_is_added_or_removed() -> None:
    """All the others stay the objects that they were."""
    balancer = Balancer[Endpoint]([])
    kept = keeper(balancer)
    told(kept, found(Endpoint("a"), Endpoint("b")))
    a, b = balancer.nodes
    told(kept, found(Endpoint("c"), Endpoint("a"), Endpoint("b")))
    assert balancer.nodes[:2] == (a, b)
    assert balancer.nodes[0] is a
    told(kept, found(Endpoint("c"), Endpoint("b")))
    assert [node.id for node in balancer.nodes] == ["b", "c"]
    assert balancer.nodes[0] is b


def test_what_somebody_else_did_to_the_members_does_not_stop_it() -> None:
    """The source has the last word at its next change."""
    balancer = Balancer[str]([])
    kept = keeper(balancer)
    told(kept, found("a", "b"))
    balancer.remove("a")
    told(kept, found("b"))
    assert [*balancer.nodes] == [*("b",)]
    balancer.add("x")
    told(kept, found("b", "x"))
    assert [*balancer.nodes] == [*("b", "x")]
    balancer.remove("b")
    told(kept, found("b", "x", "y", draining=("b",)))
    assert ids(balancer) == {"b", "x", "y"}


def test_nodes_of_a_source_that_are_there_twice_are_one() -> None:
    """What came first is taken, and that is logged once."""
    balancer = Balancer[Endpoint]([])
    kept = keeper(balancer)
    with logged() as log:
        for _ in range(3):
            told(kept, found(Endpoint("a"), Endpoint("b"), Endpoint("a", weight=2), Endpoint("b")))
    assert [(node.id, node.weight) for node in balancer.nodes] == [("a", 1), ("b", 1)]
    assert [line.partition(": ")[2] for line in log.lines] == [
        "it lists 1 nodes again with other values, such as 'a'; what came first is taken"
    ]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Found(([],)), "TypeError: list has the id [], which is not hashable"),
        (Found(tuple(range(100_001))), "it lists more than 100,000 nodes, which is the most"),
        (Found((Endpoint("a"), "b")), "TypeError"),
    ],
)
def test_nodes_that_cannot_be_used_change_nothing(answer: Found[Any], text: str) -> None:
    """And are tried again after 10 seconds, because a function of the user's may be to blame."""
    balancer: Balancer[Any] = Balancer([Endpoint("own")], WeightedRoundRobin())
    kept = keeper(balancer)
    with logged() as log:
        assert told(kept, answer, 5.0) == 10.0
        assert kept.turn(15.0) == 10.0
    assert [node.id for node in balancer.nodes] == ["own"]
    assert len(log.lines) == 1
    assert text in log.lines[0]
    assert "they stay as they are" in log.lines[0]
    told(kept, found(Endpoint("a")), 16.0)
    assert [node.id for node in balancer.nodes] == ["a"]


def test_a_strategy_that_refuses_a_node_loses_nothing() -> None:
    """A thousand nodes, of which the last is wrong: none of them joins."""
    balancer: Balancer[Any] = Balancer([Endpoint("own")], WeightedRoundRobin())
    kept = keeper(balancer)
    told(kept, found(*[Endpoint(i) for i in range(1_000)], "no weight"))
    assert [node.id for node in balancer.nodes] == ["own"]


def test_the_status_tells_why_an_answer_is_not_used() -> None:
    """Until one is."""
    kept = keeper(Balancer[Any](["a"]))
    told(kept, found())
    assert "it lists no nodes" in str(kept.status(0.0).error)
    told(kept, found("b"), 1.0)
    assert kept.status(1.0).error is None
    told(kept, found({"id": "c"}), 2.0)
    assert "cannot be used" in str(kept.status(2.0).error)
    told(kept, found("b"), 3.0)
    assert kept.status(3.0).error is None


def test_failures_are_logged_once_until_it_answers_again() -> None:
    """With how many there were; the state can be asked for."""
    balancer = Balancer(["own"])
    kept = keeper(balancer)
    with logged() as log:
        for _ in range(4):
            kept.failed(OSError("no route\x1b[2J\n to host"))
        assert kept.status(7.0).failures == 4
        assert kept.status(7.0).age is None
        assert "no route" in str(kept.status(7.0).error)
        told(kept, found("a"), 10.0)
        told(kept, found("a"), 11.0)
    assert log.lines == [
        (
            "WARNING the source for balancer 'default': OSError: no route\\x1b[2J\\n to host; what "
            "there is, 1 node, stays as it is, and it is asked again within 10 s"
        ),
        "INFO the source for balancer 'default': it answers again, after 4 errors",
    ]
    status = kept.status(12.0)
    assert (status.error, status.failures, status.age, status.nodes) == (None, 0, 1.0, 1)


def test_complaints_of_a_source_are_logged_when_they_begin() -> None:
    """Not again with every answer, but again after an answer without them."""
    kept = keeper(Balancer[str]([]))
    with logged() as log:
        for _ in range(3):
            told(kept, found("a", dropped="one record has no port\x07"))
        told(kept, found("a"))
        told(kept, found("a", dropped="two records have no port"))
    assert [line.partition(": ")[2] for line in log.lines] == [
        "one record has no port\\x07",
        "two records have no port",
    ]


def test_a_subset_is_chosen_of_all_nodes() -> None:
    """The fleet that is kept is what the subset is chosen from."""
    balancer = Balancer[str]([], subset=RendezvousSubset("client", size=3))
    kept = keeper(balancer)
    told(kept, found(*"abcdefgh"))
    assert len(balancer.nodes) == 3
    told(kept, found(*"abcdefgh", "i"))
    assert set(balancer.all_nodes) == set("abcdefghi")
    told(kept, found(*"abcdefghi", draining=("a",)))
    assert len(balancer.nodes) == 3


answers = st.lists(
    st.tuples(
        st.sets(st.sampled_from("abcdefgh")),
        st.sets(st.sampled_from("abcdefgh")),
        st.floats(0.0, 40.0),
    ),
    max_size=12,
)


@settings(max_examples=50)
@given(answers, st.none() | st.just(30.0), st.booleans())
def test_whatever_a_source_says_the_members_follow_from_it(
    answers: list[tuple[set[str], set[str], float]],
    hold_back: float | None,
    allow_empty: bool,  # noqa: FBT001 - hypothesis fills it in
) -> None:
    """No node is picked that is neither listed nor held, none is lost, and none is made up."""
    balancer = Balancer[str]([])
    kept = keeper(balancer, hold_back=hold_back, allow_empty=allow_empty)
    now, believed, wanted = 0.0, set[str](), set[str]()
    for nodes, draining, later in answers:
        now += later
        ending = draining & nodes
        with logged():  # and not shown, for speed
            told(kept, found(*sorted(nodes), draining=tuple(ending)), now)
        if nodes - ending or allow_empty:
            believed, wanted = nodes, nodes - ending
        members = ids(balancer)
        assert wanted <= members
        if hold_back is None:
            assert members <= believed
        try:
            picked = {balancer.pick() for _ in range(30)}
        except NoNodeAvailable:
            assert allow_empty or not wanted
        else:
            assert picked <= members
            if nodes - ending:
                assert not picked & ending
    assert kept.turn(now + 31.0) is None
    assert wanted <= ids(balancer) <= believed


def restored(path: Path, balancer: Balancer[Any], name: str = "the source") -> Lines:
    """What is logged when a fleet begins with a cache file."""
    kept = Keeper(balancer, WatchSettings(cache=path), name)
    with logged() as log:
        kept.begin()
    assert kept.status(0.0).from_cache is bool(not log.lines and balancer.nodes)
    return log


def test_a_cache_file_keeps_the_last_good_answer(tmp_path: Path) -> None:
    """Over a restart, with everything that an endpoint says; the next answer has the last word."""
    path = tmp_path / "cache.json"
    nodes = (Endpoint("a:80", weight=2.5, zone="z", priority=1, tags={"x": "y"}), Endpoint("b:80"))
    kept = keeper(Balancer[Endpoint]([]), cache=path)
    kept.begin()
    told(kept, found(*nodes, Endpoint("c:80")))
    told(kept, found(*nodes))
    told(kept, found())
    kept.failed(OSError())
    balancer = Balancer[Endpoint]([])
    assert restored(path, balancer).lines == []
    assert balancer.nodes == nodes
    assert [each.name for each in tmp_path.iterdir()] == ["cache.json"]
    other = Balancer[Endpoint]([])
    restored(path, other, "another source")
    assert other.nodes == ()


def test_texts_are_texts_again_after_a_restart(tmp_path: Path) -> None:
    """As they came from the source."""
    path = tmp_path / "cache.json"
    told(keeper(Balancer[str]([]), cache=path), found("a:80", "b:80"))
    balancer = Balancer[str]([])
    restored(path, balancer)
    assert [*balancer.nodes] == [*("a:80", "b:80")]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "holds no nodes"),
        ('{"source": "the source", "nodes": [{"id": 3}]}', "nodes[0].id is 3"),
        ('{"source": "the source", "nodes": 3}', "nodes is 3"),
    ],
)
def test_a_cache_file_of_any_content_does_no_harm(tmp_path: Path, content: str, text: str) -> None:
    """The balancer keeps its own nodes, and the log says what is wrong."""
    path = tmp_path / "cache.json"
    path.write_text(content)
    balancer = Balancer(["own"])
    (line,) = restored(path, balancer).lines
    assert text in line
    assert [*balancer.nodes] == [*("own",)]


def test_a_cache_file_that_cannot_be_written_is_logged_once(tmp_path: Path) -> None:
    """Be it for the folder or for the nodes; not with every change. The fleet is kept."""
    balancer = Balancer[Any]([])
    for cache, nodes in ((tmp_path / "no" / "c.json", "ab"), (tmp_path / "c.json", (1, 2))):
        kept = keeper(balancer, cache=cache)
        with logged() as log:
            told(kept, found(*nodes, 0))
            told(kept, found(*nodes, 0))
            told(kept, found(*nodes))
        assert balancer.nodes == tuple(nodes)
        assert len(log.having("the cache file cannot be written")) == 1


def test_drains_of_unknown_nodes_do_no_harm() -> None:
    """A node that somebody removed just before it was to be drained."""
    balancer = Balancer[str]([])
    kept = keeper(balancer)
    told(kept, found("a", "b", "c"))
    balancer.remove("a")
    told(kept, found("a", "b", "c", draining=("a",)))
    with pytest.raises(UnknownNode):
        balancer.drain("x")
    assert {balancer.pick() for _ in range(20)} == {"b", "c"}


def test_the_same_answer_once_more_is_but_a_sign_of_life() -> None:
    """It keeps the age low, and takes back no complaint; after an error it is an answer."""
    balancer = Balancer[str]([])
    kept = keeper(balancer)
    answer, empty = found("a"), found()
    told(kept, answer)
    balancer.replace(["b"])
    assert told(kept, answer, 7.0) is None
    assert kept.status(9.0).age == 2.0
    with logged() as log:
        for now in (10.0, 20.0):
            told(kept, empty, now)
            assert "it lists no nodes" in str(kept.status(now).error)
        kept.failed(OSError("no route"))
        told(kept, empty, 30.0)
    assert kept.status(30.0).failures == 0
    assert len(log.having("it lists no nodes")) == 1


def test_reasons_that_are_new_every_time_do_not_fill_the_log() -> None:
    """Of one outage a few are told."""
    kept = keeper(Balancer(["own"]))
    with logged() as log:
        for count in range(100):
            kept.failed(OSError(f"refused by {count} after {count / 7:.3f} s"))
            kept.failed(OSError(f"timed out after {count / 7:.3f} s"))
    assert len(log.lines) == 5
    assert len(log.having("timed out after 0.000 s")) == 1
    assert kept.status(0.0).error == "OSError: timed out after 14.143 s"
