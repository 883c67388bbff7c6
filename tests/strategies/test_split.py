"""Split: shares by group that hold, and what happens where a group has nobody."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.balancer.panicking import kill, picked, sicken, tracker_of
from tests.strategies.support import picks

from loadwise import Balancer, Endpoint, NodeSet, RoundRobin, Split
from loadwise.testing import ManualClock


def version(node: Endpoint) -> str:
    """Return the group of a node: its id up to the dash."""
    return str(node.id).partition("-")[0]


def canary(shares: dict[Any, float] | None = None) -> Split[Endpoint]:
    """Return a split of 95 to 5, or another."""
    return Split(shares or {"stable": 95, "canary": 5}, by=version, rng=random.Random(4))


def nodes(**sizes: int) -> list[Endpoint]:
    """Return groups of these sizes."""
    return [Endpoint(f"{name}-{i}") for name, size in sizes.items() for i in range(size)]


def test_shares_hold_whatever_is_down() -> None:
    """95 to 5 with 8 and 3 nodes, with one of each left, and with one group left."""
    split, fleet = canary(), NodeSet(nodes(stable=8, canary=3))
    assert split.shares(fleet) == {"stable": 95.0, "canary": 5.0}
    assert split.shares(fleet.restrict([7, 8])) == {"stable": 95.0, "canary": 5.0}
    assert split.shares(fleet.restrict([7])) == {"stable": 100.0, "canary": 0.0}
    assert split.shares(fleet.restrict([8, 9])) == {"stable": 0.0, "canary": 100.0}
    assert split.shares(fleet.restrict([])) == {"stable": 95.0, "canary": 5.0}


def test_what_a_group_that_is_down_would_get_goes_to_the_rest_in_proportion() -> None:
    """Of 60, 30 and 10 the last two stay as 3 to 1."""
    split, fleet = canary({"a": 60, "b": 30, "c": 10}), NodeSet(nodes(a=2, b=2, c=2))
    assert split.shares(fleet.without([0, 1])) == pytest.approx({"a": 0.0, "b": 75.0, "c": 25.0})


def test_a_group_may_be_deployed_later() -> None:
    """Nobody has to be in the canary yet; the first that comes gets its share."""
    split = canary()
    balancer = Balancer(nodes(stable=2), split, clock=ManualClock())
    assert split.shares(nodes(stable=2)) == {"stable": 100.0, "canary": 0.0}
    assert picked(balancer) == {"stable-0", "stable-1"}
    balancer.add(Endpoint("canary-0"))
    counts = Counter(version(balancer.pick()) for _ in range(20_000))
    # Within 5 standard deviations of the binomial distribution: an error of 6e-7.
    assert abs(counts["canary"] - 1000) < 5 * math.sqrt(20_000 * 0.05 * 0.95)
    balancer.remove("canary-0")
    assert picked(balancer) == {"stable-0", "stable-1"}


def test_shares_are_by_group_not_by_node() -> None:
    """Half of 20,000 picks go to one node, half to the nine others."""
    split = canary({"big": 1, "small": 1})
    fleet = NodeSet(nodes(big=1, small=9))
    counts = Counter(index == 0 for index in picks(split, fleet, 20_000))
    assert abs(counts[True] - 10_000) < 5 * math.sqrt(20_000 * 0.25)


def test_who_finds_nobody_in_the_group_goes_to_another() -> None:
    """An excluded canary, or one that is full, refuses no request."""
    split = canary({"stable": 1, "canary": 1})
    balancer = Balancer(nodes(stable=1, canary=1), split, max_in_flight=1, clock=ManualClock())
    assert picked(balancer, exclude=["canary-0"]) == {"stable-0"}
    with balancer.acquire() as one, balancer.acquire() as other:
        assert {one.node.id, other.node.id} == {"stable-0", "canary-0"}


def test_share_zero_is_for_emergencies() -> None:
    """A group switched off gets a request only where no other has a candidate, and no probe."""
    split = canary({"stable": 100, "canary": 0})
    balancer = Balancer(nodes(stable=1, canary=2), split, clock=ManualClock())
    kill(balancer, "canary-0", "canary-1")
    clock = tracker_of(balancer).clock
    assert isinstance(clock, ManualClock)
    clock.advance(60.0)
    assert picked(balancer) == {"stable-0"}
    assert split.shares(nodes(canary=2)) == {"stable": 0.0, "canary": 100.0}


def test_a_group_that_is_down_is_probed() -> None:
    """Else nobody would find out that the canary is back."""
    balancer = Balancer(nodes(stable=3, canary=1), canary(), clock=ManualClock())
    kill(balancer, "canary-0")
    assert picked(balancer) == {"stable-0", "stable-1", "stable-2"}
    clock = tracker_of(balancer).clock
    assert isinstance(clock, ManualClock)
    clock.advance(60.0)
    with balancer.acquire() as probe:
        assert probe.node.id == "canary-0"


def test_in_panic_the_ailing_of_a_group_are_counted_on_where_nobody_is_available() -> None:
    """With all ailing the shares are those that were given; with all dead as well."""
    split = canary()
    balancer = Balancer(nodes(stable=2, canary=1), split, clock=ManualClock())
    sicken(balancer, "stable-0", "stable-1", "canary-0")
    assert balancer.panic is not None
    view = balancer._fleet.refreshed().nodes
    assert split.shares(view) == {"stable": 95.0, "canary": 5.0}
    assert picked(balancer, 500) == {"stable-0", "stable-1", "canary-0"}


def test_groups_may_be_of_any_kind() -> None:
    """Bools and None are as good as words; explain shows the share."""
    split: Split[Endpoint] = Split(
        {True: 1, None: 3}, lambda node: True if node.priority else None, RoundRobin
    )
    balancer = Balancer([Endpoint("a"), Endpoint("b", priority=1)], split, clock=ManualClock())
    assert balancer.explain().seen == {"a": {"share": 75.0}, "b": {"share": 25.0}}


def test_groups_without_a_share() -> None:
    """A node in such a group is refused when it is given, with the group and the remedy."""
    with pytest.raises(
        ValueError,
        match=r"by puts node 'beta-0' into the group 'beta', which has no share; give it one \(0 "
        r"for none\), or one of 'stable', 'canary'",
    ):
        Balancer(nodes(stable=1, beta=1), canary())
    balancer = Balancer(nodes(stable=1), canary(), clock=ManualClock())
    with pytest.raises(ValueError, match="'beta-0'"):
        balancer.add(Endpoint("beta-0"))
    assert picked(balancer) == {"stable-0"}, "nothing has changed"
    with pytest.raises(TypeError, match=r"into the group \['x'\]; a group must be hashable"):
        Split[Endpoint]({"a": 1}, by=lambda _: ["x"]).shares(nodes(a=1))  # type: ignore[arg-type,return-value]


class Deceiver:
    """Asks for a group in a way of which nobody can see that it is to be awaited."""

    def group(self, node: object) -> Any:
        return later(node)


async def later(_: object) -> str:
    """Return a group that has to be waited for."""
    return "a"


def test_bad_arguments() -> None:
    """Each is refused at construction, with the value and the remedy."""
    wrong: list[tuple[Any, Any, type[Exception], str]] = [
        ({}, version, ValueError, r"shares is \{\}, of which nobody is given anything; name at"),
        ({"a": 0}, version, ValueError, r"shares is \{'a': 0\}, of which nobody"),
        ({"a": -5}, version, ValueError, r"shares\['a'\] is -5; it must be a finite number, at"),
        ({"a": math.nan}, version, ValueError, r"shares\['a'\] is nan"),
        ({"a": True}, version, TypeError, r"shares\['a'\] is True; it must be a number"),
        (["a"], version, TypeError, r"shares is \['a'\]; give a mapping"),
        ({"a": 1}, "zone", TypeError, r"by is 'zone'; give a function of a node that returns its"),
        ({"a": 1}, later, TypeError, r"by is <function later .*, which is to be awaited"),
    ]
    for shares, by, kind, match in wrong:
        with pytest.raises(kind, match=match):
            Split(shares, by=by)
    with pytest.raises(TypeError, match=r"by, asked of node 'a-0', returned .* to be awaited"):
        Split[Endpoint]({"a": 1}, by=Deceiver().group).shares(nodes(a=1))


@given(
    shares=st.dictionaries(st.sampled_from("abc"), st.floats(0.0, 1e308), min_size=1),
    sizes=st.dictionaries(st.sampled_from("abc"), st.integers(1, 4)),
    out=st.sets(st.integers(0, 11)),
)
def test_shares_sum_to_100(shares: dict[str, float], sizes: dict[str, int], out: set[int]) -> None:
    """Whatever is down, shares are not negative and 100 in all, as long as there are nodes."""
    sizes = {name: size for name, size in sizes.items() if name in shares}
    if not any(shares.values()):
        return
    fleet = NodeSet(nodes(**sizes))
    found = canary(shares).shares(fleet.without(i for i in out if i < len(fleet)))
    assert list(found) == list(shares)
    assert all(share >= 0 for share in found.values())
    assert sum(found.values()) == pytest.approx(100.0 if sizes else 0.0)
