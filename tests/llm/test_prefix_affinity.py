"""Where prefix affinity sends prompts, and requests without one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.compiled import wrong_type

from loadwise import Balancer, Endpoint, Lease, NodeSet, Tiers, by_id
from loadwise.context import SelectionContext
from loadwise.llm import PendingTokens, PrefixAffinity, PrefixIndex
from loadwise.outcome import Outcome
from loadwise.testing import ManualClock

NODES = [f"gpu-{number}" for number in range(8)]


def affinity(**options: Any) -> PrefixAffinity[Any]:
    """Return the strategy with blocks of 4 characters, a token each, and a fixed seed."""
    return PrefixAffinity(PrefixIndex(block_chars=4), rng=Random(7), **options)


def fleet(*nodes: Any, **options: Any) -> Balancer[Any]:
    """Return a balancer of such nodes with such a strategy."""
    return Balancer(nodes or NODES, affinity(), clock=ManualClock(), **options)


def text(name: str, tokens: int) -> str:
    """Return a text of so many tokens that begins as all of its name do."""
    return f"{name:<4}" * tokens


def warm(balancer: Balancer[Any], prompt: str, node: object) -> None:
    """Have a node answer a prompt."""
    where = by_id(node)
    with balancer.acquire(prompt=prompt, where=where) as lease:
        lease.first_byte()


@contextmanager
def busy(balancer: Balancer[Any], prompt: str, node: object) -> Generator[Lease[Any], None, None]:
    """Have a node work through a prompt."""
    with balancer.acquire(prompt=prompt, where=by_id(node)) as lease:
        yield lease


def test_a_prompt_goes_where_it_is_cached() -> None:
    """Each conversation goes on where it began, wherever that was."""
    balancer = fleet()
    homes: dict[str, Any] = {}
    for name in "abcdefghijkl":
        with balancer.acquire(prompt=text(name, 100)) as lease:
            lease.first_byte()
            homes[name] = lease.node
    assert len(set(homes.values())) == 8
    for name, home in homes.items():
        with balancer.acquire(prompt=text(name, 130)) as lease:
            assert lease.node == home


@given(
    pending=st.lists(st.integers(0, 40), min_size=2, max_size=6),
    cached=st.lists(st.integers(0, 12), min_size=6, max_size=6),
    weight=st.sampled_from([0.0, 1.0, 3.0]),
)
@settings(max_examples=40, deadline=None)
def test_it_goes_where_pending_and_new_are_least(
    pending: list[int], cached: list[int], weight: float
) -> None:
    """Among busy nodes the cost is exactly ``pending + weight * new``, by a plain count."""
    nodes = list(range(len(pending)))
    balancer: Balancer[int] = Balancer(nodes, affinity(new_weight=weight), clock=ManualClock())
    for node in nodes:
        warm(balancer, text("q", cached[node]), node)
    leases = [
        balancer.acquire(prompt=text(f"n{node}", tokens + 1), where=by_id(node))
        for node, tokens in enumerate(pending)
    ]
    costs = [pending[node] + 1 + weight * (12 - cached[node]) for node in nodes]
    with balancer.acquire(prompt=text("q", 12)) as lease:
        assert costs[lease.node] == min(costs)
    for lease in leases:
        lease.success()


def test_a_long_wait_outweighs_a_warm_cache() -> None:
    """A prompt leaves the node that has it once the wait there is worth more than computing it."""
    balancer = fleet("a", "b")
    warm(balancer, text("q", 100), "a")
    with busy(balancer, text("x", 299), "a"):
        assert balancer.explain(prompt=text("q", 100)).choice == "a"
    with busy(balancer, text("y", 301), "a"):
        assert balancer.explain(prompt=text("q", 100)).choice == "b"


def test_a_miss_never_waits_while_a_node_is_idle() -> None:
    """A prompt that nobody has goes to an idle node, whatever the others have of it."""
    balancer = fleet("a", "b", "c")
    with busy(balancer, text("x", 50), "a"), busy(balancer, text("y", 1), "b"):
        for _ in range(20):
            with balancer.acquire(prompt=text("new", 10)) as lease:
                lease.first_byte()
                assert lease.node == "c"


def test_a_short_prefix_that_all_share_does_not_pin() -> None:
    """With a tenth of each prompt shared, idle nodes take turns by their last new work."""
    balancer = fleet()
    shared = text("sys", 10)
    nodes: list[Any] = []
    for number in range(80):
        with balancer.acquire(prompt=shared + text(f"{number:04d}", 90)) as lease:
            lease.first_byte()
            nodes.append(lease.node)
    assert set(Counter(nodes).values()) == {10}


def test_a_hot_prompt_does_not_pin() -> None:
    """One prompt, cached and never ending, fills no node beyond twice the mean and 16."""
    balancer = fleet()
    leases: list[Lease[Any]] = []
    for count in range(1, 401):
        lease = balancer.acquire(prompt=text("hot", 200))
        lease.first_byte()
        leases.append(lease)
        most = max(status.in_flight for status in balancer.status())
        assert most <= 2 * count / 8 + 17
    held = Counter(lease.node for lease in leases)
    assert len(held) >= 4
    # Others keep their place meanwhile: there is no switch for all.
    cold = next(node for node in NODES if node not in held or held[node] < 20)
    warm(balancer, text("own", 100), cold)
    assert balancer.explain(prompt=text("own", 100)).choice == cold
    for lease in leases:
        lease.success()


def test_under_load_a_hot_prefix_is_computed_on_more_nodes() -> None:
    """Where a prefix makes up most of all prompts, its copies grow with the load."""
    balancer = fleet()
    shared = text("sys", 90)
    leases = [balancer.acquire(prompt=shared + text(f"{n:04d}", 60)) for n in range(64)]
    assert min(Counter(lease.node for lease in leases).values()) >= 4
    assert len({lease.node for lease in leases}) == 8
    for lease in leases:
        lease.success()


@pytest.mark.parametrize(("writing", "home"), [(8, "a"), (40, "b")])
def test_work_counts_more_where_many_answers_wait_for_it(writing: int, home: str) -> None:
    """A node that writes many answers is left sooner, for each new token delays them."""
    balancer = fleet("a", "b")
    warm(balancer, text("q", 50), "a")
    leases = [
        balancer.acquire(prompt=text(f"{node}{number}", 1), where=by_id(node))
        for node, count in (("a", writing), ("b", writing // 4))
        for number in range(count)
    ]
    for lease in leases:
        lease.first_byte()
    # Without those answers "a" costs 120 + 3 * 50, and "b" 1 + 3 * 100.
    with (
        busy(balancer, text("x", 120), "a"),
        busy(balancer, text("y", 1), "b"),
        balancer.acquire(prompt=text("q", 100)) as lease,
    ):
        assert lease.node == home
    for lease in leases:
        lease.success()


def test_without_a_prompt_the_fewest_pending_tokens_count() -> None:
    """Then the fewest in flight; idle nodes are drawn at random."""
    balancer = fleet("a", "b", "c")
    with busy(balancer, text("x", 5), "a"), balancer.acquire(where=by_id("b")):
        assert {balancer.pick() for _ in range(20)} == {"c"}
    assert {balancer.pick() for _ in range(60)} == {"a", "b", "c"}


def test_pending_ends_with_the_first_byte_or_the_lease() -> None:
    """Whatever ends a prefill, its tokens are uncounted once."""
    strategy = affinity()
    balancer: Balancer[str] = Balancer(["a"], strategy, clock=ManualClock())

    def pending() -> float:
        return strategy.facts(["a"])["pending"][0]

    ends: list[Callable[[Lease[str]], object]] = [
        lambda lease: lease.first_byte(),
        lambda lease: lease.success(),
        lambda lease: lease.failure("broken"),
        lambda lease: lease.rate_limited(),
        lambda lease: lease.cancel(),
        lambda lease: lease.call_off(),
    ]
    for number, end in enumerate(ends):
        balancer.lift("a")
        lease = balancer.acquire(prompt=text(f"{number}", 10))
        assert pending() == 10
        end(lease)
        assert pending() == 0
        lease.first_byte()
        lease.success()
        assert pending() == 0


def test_what_is_cached_is_not_pending_but_for_one_token() -> None:
    """The last token of a prompt is computed in any case, and shows that the node is busy."""
    balancer = fleet("a")
    warm(balancer, text("q", 10), "a")
    with busy(balancer, text("q", 10), "a"):
        explained = balancer.explain(prompt=text("q", 10))
        assert explained.seen["a"] == {"pending": 1.0, "blocks": 10.0}


def test_exclusions_drains_filters_and_health_hold() -> None:
    """A prompt goes nowhere that it may not, and is not pinned to where it may not."""
    balancer = fleet("a", "b", "c")
    prompt = text("q", 100)
    warm(balancer, prompt, "a")
    assert balancer.pick(prompt=prompt, exclude=["a"]) in {"b", "c"}
    assert balancer.pick(prompt=prompt, where=by_id("b")) == "b"
    balancer.drain("a")
    assert balancer.pick(prompt=prompt) != "a"
    balancer.resume("a")
    for _ in range(3):
        balancer.report("a", Outcome.FAILURE)
    assert balancer.pick(prompt=prompt) != "a"


def test_who_is_dead_or_left_has_nothing_cached() -> None:
    """A node that comes back after a crash, or joins again, is taken for cold."""
    strategy = affinity()
    balancer: Balancer[str] = Balancer(["a", "b"], strategy, clock=ManualClock())
    prompt = text("q", 10)
    warm(balancer, prompt, "a")
    warm(balancer, prompt, "b")
    for _ in range(3):
        balancer.report("a", Outcome.FAILURE, reason="connection refused")
    assert strategy.index.match(prompt) == {"b": 10}
    balancer.remove("b")
    assert strategy.index.match(prompt) == {}


def test_a_full_node_passes_its_prompt_on() -> None:
    """Where the warm node is full, the next best is given the prompt, and counted for it."""
    strategy = affinity()
    balancer: Balancer[str] = Balancer(["a", "b"], strategy, clock=ManualClock(), max_in_flight=1)
    prompt = text("q", 10)
    warm(balancer, prompt, "a")
    with balancer.acquire(prompt=prompt) as one, balancer.acquire(prompt=prompt) as other:
        assert (one.node, other.node) == ("a", "b")
        assert strategy.facts(["a", "b"])["pending"] == [1.0, 10.0]
    assert strategy.index.match(prompt) == {"a": 10, "b": 10}


def test_weights_are_speeds() -> None:
    """A node of weight 3 bears three times the tokens."""
    nodes = [Endpoint("a", weight=3), Endpoint("b", weight=1)]
    balancer: Balancer[Endpoint] = Balancer(nodes, affinity(), clock=ManualClock())
    leases = [balancer.acquire(prompt=text(f"{n:04d}", 10)) for n in range(80)]
    assert Counter(lease.node.id for lease in leases)["a"] == pytest.approx(60, abs=2)
    for lease in leases:
        lease.success()


def test_it_can_be_foretold() -> None:
    """A look ahead agrees with the pick that follows, and changes nothing."""
    strategy = affinity()
    balancer: Balancer[str] = Balancer(NODES, strategy, clock=ManualClock())
    leases: list[Lease[Any]] = []
    for number in range(60):
        prompt = text("ab"[number % 2], number % 7 + 1)
        foretold = [balancer.explain(prompt=prompt).choice for _ in range(2)]
        lease = balancer.acquire(prompt=prompt)
        assert foretold == [lease.node] * 2
        leases.append(lease)
    for lease in leases:
        lease.success()


def test_tiers_share_their_measure() -> None:
    """Inside tiers prompts are counted and kept, too."""
    balancer: Balancer[Endpoint] = Balancer(
        [Endpoint("a", priority=0), Endpoint("b", priority=0), Endpoint("c", priority=1)],
        Tiers(_sharing(PendingTokens())),
        clock=ManualClock(),
    )
    prompt = text("q", 50)
    with balancer.acquire(prompt=prompt) as lease:
        first = lease.node
    assert balancer.pick(prompt=prompt + "more") == first


def _sharing(measure: PendingTokens) -> Callable[[], PrefixAffinity[Any]]:
    def make() -> PrefixAffinity[Any]:
        strategy = affinity()
        strategy.share_measures([measure])
        return strategy

    return make


def test_attempts_hash_a_prompt_once_and_go_elsewhere() -> None:
    """A retry goes to another node, and the prompt is known at both from then on."""
    strategy = affinity()
    balancer: Balancer[str] = Balancer(["a", "b"], strategy, clock=ManualClock())
    tried: list[str] = []

    def ask(node: str) -> str:
        tried.append(node)
        if len(tried) == 1:
            raise ConnectionError("refused")
        return node

    prompt = text("q", 20)
    assert balancer.call(ask, prompt=prompt) == tried[1]
    assert strategy.index.match(prompt) == {"a": 20, "b": 20}
    assert strategy.facts(["a", "b"])["pending"] == [0.0, 0.0]


def test_alone_it_goes_by_an_index_that_is_kept_by_hand() -> None:
    """Without a balancer the caller says what was sent where."""
    index = PrefixIndex(block_chars=4)
    strategy: PrefixAffinity[str] = PrefixAffinity(index)
    index.insert(text("q", 9), "b")
    context = SelectionContext(prefix=text("q", 10))
    nodes = NodeSet(["a", "b", "c"])
    assert strategy.select(nodes, context) == strategy.peek(nodes, context) == 1
    assert strategy.select(["c", "b"], context) == 1


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: affinity(new_weight=-1), ValueError, "new_weight is -1"),
        (lambda: affinity(new_weight=float("nan")), ValueError, "new_weight"),
        (lambda: PrefixAffinity({"a": 1}), TypeError, "it must be a PrefixIndex"),  # type: ignore[arg-type]
        (lambda: Balancer(["a"]).acquire(prompt=["hi"]), TypeError, "join the texts"),  # type: ignore[arg-type]
        (lambda: SelectionContext(prefix=3), TypeError, "prompt is 3"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_named(
    make: Callable[[], object], error: type[Exception], says: str
) -> None:
    """What is wrong is said at once, whatever the strategy."""
    with pytest.raises(error, match=wrong_type(says)):
        make()


def test_no_text_shows() -> None:
    """A context with a prompt, and an index, can be logged."""
    context = SelectionContext(prefix="a secret" * 100)
    assert "secret" not in repr(context)
    assert "<Prompt of 800 characters>" in repr(context)
