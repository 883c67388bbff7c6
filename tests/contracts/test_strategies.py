"""Every strategy and combinator keeps the one contract of `loadwise.testing`."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from threading import Lock
from typing import Any

from tests.strategies.support import Server, any_server, picks

from loadwise import (
    BoundedLoads,
    ConsistentHash,
    Endpoint,
    FallbackChain,
    Filtered,
    FnFilter,
    InFlight,
    JumpHash,
    LeastLoad,
    Maglev,
    MostAvailable,
    NodeSet,
    PeakEwma,
    PowerOfTwoChoices,
    Random,
    Rendezvous,
    RoundRobin,
    SelectionContext,
    Split,
    Sticky,
    Strategy,
    Tiers,
    WeightedRandom,
    WeightedRoundRobin,
    WithFallback,
    Zones,
    node_id,
)
from loadwise.llm import (
    CacheAware,
    DualMap,
    LMetric,
    PendingTokens,
    PrefixAffinity,
    PrefixIndex,
    Prompt,
    ScoredPrefix,
)
from loadwise.strategies import ViewStrategy
from loadwise.testing import StrategyContract

NOTHING = SelectionContext()


class TestRoundRobin(StrategyContract):
    def make(self) -> Strategy[Any]:
        return RoundRobin()


class TestRoundRobinFromARandomStart(StrategyContract):
    def make(self) -> Strategy[Any]:
        return RoundRobin(start=None)

    def test_plain_sequences_and_node_sets_choose_alike(self) -> None:
        """Instances begin at different places, so one instance is asked about all three forms."""
        strategy, nodes = self.make(), self.make_nodes(6)
        forms: tuple[Sequence[Any], ...] = (nodes, tuple(nodes), NodeSet(nodes))
        chosen = [picks(strategy, forms[turn % 3], 1)[0] for turn in range(60)]
        first = chosen[0]
        assert first is not None
        assert chosen == [(first + turn) % 6 for turn in range(60)]


class TestWeightedRoundRobinFromItsTable(StrategyContract):
    def make(self) -> Strategy[Any]:
        return WeightedRoundRobin()


class TestWeightedRoundRobinFromItsSchedule(StrategyContract):
    def make(self) -> Strategy[Any]:
        return WeightedRoundRobin()

    def make_nodes(self, count: int) -> list[Any]:
        return [Endpoint(f"node-{number}", weight=0.5 + number % 3) for number in range(count)]


class TestRandom(StrategyContract):
    def make(self) -> Strategy[Any]:
        return Random(rng=random.Random(1))


class TestWeightedRandom(StrategyContract):
    def make(self) -> Strategy[Any]:
        return WeightedRandom(rng=random.Random(2))


class TestLeastLoadOfAFunction(StrategyContract):
    def make(self) -> Strategy[Any]:
        return LeastLoad(load=lambda node: len(node.id), rng=random.Random(3))


class TestLeastLoadOfTheNodesOwnScore(StrategyContract):
    def make(self) -> Strategy[Any]:
        return LeastLoad(rng=random.Random(4))

    def make_nodes(self, count: int) -> list[Any]:
        return [Server(f"node-{number}", load=number % 2) for number in range(count)]


class TestLeastLoadOfInFlight(StrategyContract):
    def make(self) -> Strategy[Any]:
        return LeastLoad(load=InFlight(), rng=random.Random(5))


class TestPowerOfTwoChoicesOfAFunction(StrategyContract):
    def make(self) -> Strategy[Any]:
        return PowerOfTwoChoices(load=lambda node: node.weight, rng=random.Random(6))


class TestPowerOfTwoChoicesOfTheNodesOwnScore(StrategyContract):
    def make(self) -> Strategy[Any]:
        return PowerOfTwoChoices(rng=random.Random(7))

    def make_nodes(self, count: int) -> list[Any]:
        return [Server(f"node-{number}", load=number % 2) for number in range(count)]


class TestPowerOfTwoChoicesOfPeakEwma(StrategyContract):
    def make(self) -> Strategy[Any]:
        return PowerOfTwoChoices(load=PeakEwma(), rng=random.Random(8))


class TestConsistentHash(StrategyContract):
    def make(self) -> Strategy[Any]:
        return ConsistentHash()


class TestConsistentHashOfNginx(StrategyContract):
    def make(self) -> Strategy[Any]:
        return ConsistentHash(points="ketama")


class TestConsistentHashOfHaproxy(StrategyContract):
    def make(self) -> Strategy[Any]:
        return ConsistentHash(points="haproxy")


class TestMaglev(StrategyContract):
    def make(self) -> Strategy[Any]:
        return Maglev(table_size=1009)


class TestRendezvous(StrategyContract):
    def make(self) -> Strategy[Any]:
        return Rendezvous()


class TestRendezvousOfEqualNodes(StrategyContract):
    def make(self) -> Strategy[Any]:
        return Rendezvous()

    def make_nodes(self, count: int) -> list[Any]:
        return [Endpoint(f"node-{number}") for number in range(count)]


class TestJumpHash(StrategyContract):
    def make(self) -> Strategy[Any]:
        return JumpHash()


class TestJumpHashOfEqualNodes(StrategyContract):
    def make(self) -> Strategy[Any]:
        return JumpHash()

    def make_nodes(self, count: int) -> list[Any]:
        return [Endpoint(number) for number in range(count)]


class TestBoundedLoads(StrategyContract):
    def make(self) -> Strategy[Any]:
        return BoundedLoads(Maglev(table_size=1009), factor=1.5)


class PromptContract(StrategyContract):
    """The contract, with prompts that share their beginnings."""

    def _select(
        self,
        strategy: Strategy[Any],
        candidates: Sequence[Any],
        number: int = 0,
        exclude: set[int] | None = None,
    ) -> int | None:
        prompt = self.prompt(number)
        context = SelectionContext(None, frozenset(exclude or ()), prefix=prompt)
        index = strategy.select(candidates, context)
        if index is not None:
            assert prompt.tell_sent(node_id(candidates[index]), 0, number / 1000) is not None
        return index

    def test_peek_tells_the_next_choice(self) -> None:
        """Of prompts, each counted where it was sent."""
        strategy, nodes = self.make(), NodeSet(self.make_nodes(5))
        assert isinstance(strategy, ViewStrategy)
        for number in range(100):
            told = [
                strategy.peek(nodes, SelectionContext(prefix=self.prompt(number))) for _ in range(2)
            ]
            assert told == [self._select(strategy, nodes, number)] * 2

    @staticmethod
    def prompt(number: int) -> Prompt:
        """Return the prompt of request ``number``."""
        return Prompt(f"{number % 7:04d}" * (16 + number % 3 * 16))


class TestPrefixAffinity(PromptContract):
    def make(self) -> Strategy[Any]:
        return PrefixAffinity(PrefixIndex(block_chars=16), rng=random.Random(20))


class TestDualMap(PromptContract):
    def make(self) -> Strategy[Any]:
        return DualMap(64, rng=random.Random(21))


class TestLMetric(PromptContract):
    def make(self) -> Strategy[Any]:
        return LMetric(PrefixIndex(block_chars=16), rng=random.Random(22))


class TestCacheAware(PromptContract):
    def make(self) -> Strategy[Any]:
        return CacheAware(PrefixIndex(block_chars=16), rng=random.Random(23))


class TestScoredPrefix(PromptContract):
    def make(self) -> Strategy[Any]:
        return ScoredPrefix(PrefixIndex(block_chars=16), rng=random.Random(24))


class TestPrefixAffinityWithoutPrompts(StrategyContract):
    def make(self) -> Strategy[Any]:
        return PrefixAffinity(rng=random.Random(25))


class TestLeastLoadOfPendingTokens(StrategyContract):
    def make(self) -> Strategy[Any]:
        return LeastLoad(load=PendingTokens(), rng=random.Random(26))


class TestSticky(StrategyContract):
    def make(self) -> Strategy[Any]:
        return Sticky(Rendezvous())


class TestStickySessionsOfALoad(StrategyContract):
    def make(self) -> Strategy[Any]:
        return Sticky(LeastLoad(load=InFlight(), rng=random.Random(12)))

    def test_peek_tells_the_next_choice(self) -> None:
        """Of keys that have a node."""
        strategy, nodes = Sticky[Any](Random(rng=random.Random(13))), NodeSet(self.make_nodes(5))
        for number in range(50):
            context = SelectionContext(self.key(number))
            chosen = strategy.select(nodes, context)
            assert strategy.peek(nodes, context) == strategy.select(nodes, context) == chosen


class TestMostAvailable(StrategyContract):
    def make(self) -> Strategy[Any]:
        return MostAvailable(epsilon=1.0, rng=random.Random(9))

    def make_nodes(self, count: int) -> list[Any]:
        return [Server(f"node-{number}", left=number % 3) for number in range(count)]


class TestWithFallback(StrategyContract):
    def make(self) -> Strategy[Any]:
        return WithFallback(Filtered(RoundRobin(), first_half), Random(rng=random.Random(10)))


class TestFallbackChain(StrategyContract):
    def make(self) -> Strategy[Any]:
        return FallbackChain(
            [
                Filtered(WeightedRoundRobin(), first_half),
                Filtered(ConsistentHash(), ~FnFilter(first_half)),
                RoundRobin(),
            ]
        )


class TestFiltered(StrategyContract):
    def make(self) -> Strategy[Any]:
        return Filtered(PowerOfTwoChoices(load=InFlight(), rng=random.Random(11)), any_server)


def in_groups(count: int) -> list[Any]:
    """Return nodes of two priorities and three zones."""
    return [
        Endpoint(f"node-{number}", 1 + number % 3, "abc"[number % 3], number // 2 % 2)
        for number in range(count)
    ]


class TestTiers(StrategyContract):
    def make(self) -> Strategy[Any]:
        return Tiers(rng=random.Random(12))

    def make_nodes(self, count: int) -> list[Any]:
        return in_groups(count)


class TestZonesAroundALocalOne(StrategyContract):
    def make(self) -> Strategy[Any]:
        return Zones(ConsistentHash, local="a", rng=random.Random(13))

    def make_nodes(self, count: int) -> list[Any]:
        return in_groups(count)


class TestZonesByWeight(StrategyContract):
    def make(self) -> Strategy[Any]:
        return Zones(WeightedRoundRobin, weights={"a": 2, "b": 0.5}, rng=random.Random(14))

    def make_nodes(self, count: int) -> list[Any]:
        return in_groups(count)


class TestSplit(StrategyContract):
    def make(self) -> Strategy[Any]:
        return Split(
            {0: 95, 1: 5}, by=lambda node: node.priority, make=RoundRobin, rng=random.Random(15)
        )

    def make_nodes(self, count: int) -> list[Any]:
        return in_groups(count)


class TestZonesWithinTiers(StrategyContract):
    def make(self) -> Strategy[Any]:
        return Tiers(lambda: Zones(rng=random.Random(16)), rng=random.Random(17))

    def make_nodes(self, count: int) -> list[Any]:
        return in_groups(count)


class TestTiersOfOneOfTheUsersOwn(StrategyContract):
    def make(self) -> Strategy[Any]:
        return Tiers(FewestPicks, rng=random.Random(18))

    def make_nodes(self, count: int) -> list[Any]:
        return in_groups(count)


class TestTiersOfOneThatIgnoresExclusions(StrategyContract):
    def make(self) -> Strategy[Any]:
        return Tiers(AlwaysTheLast, rng=random.Random(19))

    def make_nodes(self, count: int) -> list[Any]:
        return in_groups(count)


class FewestPicks:
    """A strategy of the user's own: the candidate it chose least, by id; it knows no views."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.counts: Counter[object] = Counter()

    def select(self, candidates: Sequence[Any], context: SelectionContext = NOTHING) -> int | None:
        allowed = [i for i in range(len(candidates)) if not context.is_excluded(i)]
        with self.lock:
            best = min(allowed, key=lambda i: self.counts[candidates[i].id], default=None)
            if best is not None:
                self.counts[candidates[best].id] += 1
            return best


class AlwaysTheLast:
    """A strategy that has never heard of exclusions."""

    def select(self, candidates: Sequence[Any], context: SelectionContext = NOTHING) -> int | None:
        return len(candidates) - 1 if candidates else None


class TestOneOfTheUsersOwn(StrategyContract):
    def make(self) -> Strategy[Any]:
        return FewestPicks()


class TestOneOfTheUsersOwnFiltered(StrategyContract):
    def make(self) -> Strategy[Any]:
        return Filtered(FewestPicks(), any_server)


class TestOneThatIgnoresExclusionsFiltered(StrategyContract):
    def make(self) -> Strategy[Any]:
        return Filtered(AlwaysTheLast(), any_server)


class TestOneThatIgnoresExclusionsAsAFallback(StrategyContract):
    def make(self) -> Strategy[Any]:
        return WithFallback(Filtered(AlwaysTheLast(), first_half), AlwaysTheLast())


def first_half(node: Any) -> bool:
    """Accept the nodes numbered 0 to 2."""
    return str(node.id) < "node-3"
