"""Contract of all strategies, as tests to run against one of your own."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Thread
from typing import Any

from loadwise.context import SelectionContext
from loadwise.node_set import NodeSet
from loadwise.nodes import Endpoint
from loadwise.strategies import Strategy
from loadwise.strategies.adapter import Unforeseeable, Vetted, adapt
from loadwise.strategies.protocols import ViewStrategy

__all__ = ["StrategyContract"]

_THREADS = 8
_PICKS = 500


class StrategyContract:
    """Tests of what every strategy must do; subclass it, and define `make`.

    Override `make_nodes` if the strategy needs more of a node than an id and a weight, and `key`
    if it cares which keys it is given.

    Example:
        >>> from loadwise import RoundRobin
        >>> class TestMine(StrategyContract):
        ...     def make(self):
        ...         return RoundRobin()
        >>> TestMine().test_honours_exclusions()
    """

    def make(self) -> Strategy[Any]:  # a strategy may be for nodes of any type
        """Return a new strategy; two of them must choose alike, so seed what is random."""
        raise NotImplementedError(f"{type(self).__name__} must define make()")

    def make_nodes(self, count: int) -> list[Any]:
        """Return ``count`` nodes with distinct ids."""
        return [Endpoint(f"node-{number}", weight=1 + number % 3) for number in range(count)]

    def key(self, number: int) -> str:
        """Return the hash key of request ``number``."""
        return f"key-{number}"

    def test_nothing_to_choose_from(self) -> None:
        """Without candidates there is no choice."""
        assert self._select(self.make(), []) is None
        assert self._select(self.make(), NodeSet(())) is None

    def test_only_one_to_choose(self) -> None:
        """A single candidate is chosen."""
        assert self._select(self.make(), self.make_nodes(1)) == 0

    def test_returns_indices(self) -> None:
        """Every choice is an index into the candidates."""
        strategy, nodes = self.make(), self.make_nodes(7)
        for number in range(_PICKS):
            index = self._select(strategy, nodes, number)
            assert type(index) is int, f"{index!r} is not an int"
            assert 0 <= index < len(nodes), f"{index} is not an index into {len(nodes)} nodes"

    def test_plain_sequences_and_node_sets_choose_alike(self) -> None:
        """A list, a tuple and a NodeSet of the same nodes lead to the same picks."""
        nodes = self.make_nodes(6)
        picks: list[list[int | None]] = []
        for candidates in (nodes, tuple(nodes), NodeSet(nodes)):
            strategy = self.make()
            picks.append([self._select(strategy, candidates, i) for i in range(_PICKS)])
        assert picks[0] == picks[1] == picks[2]

    def test_honours_exclusions(self) -> None:
        """An excluded index is never chosen, whatever else is; without others there is none."""
        strategy, nodes = self.make(), NodeSet(self.make_nodes(5))
        for number in range(_PICKS):
            exclude = {number % 5, (number // 5) % 5, (number // 25) % 5}
            index = self._select(strategy, nodes, number, exclude)
            assert index is not None, f"nothing was chosen although only {exclude} are excluded"
            assert index not in exclude, f"{index} was chosen although it is excluded"
        assert self._select(strategy, nodes, 0, set(range(5))) is None

    def test_honours_views(self) -> None:
        """Candidates that a view rules out are never chosen; positions stay those of the whole."""
        adapted, nodes = adapt(self.make()), NodeSet(self.make_nodes(6))
        # What a balancer would raise for a wrong answer is what is to be found out here.
        strategy = adapted.wrapped if isinstance(adapted, Vetted) else adapted
        view = nodes.restrict([1, 4])
        assert {self._select(strategy, view, i) for i in range(_PICKS)} <= {1, 4}
        assert {self._select(strategy, view, i, {1}) for i in range(_PICKS)} == {4}
        assert self._select(strategy, nodes.restrict([]), 0) is None

    def test_notices_new_nodes_in_a_list(self) -> None:
        """A plain list may change between calls."""
        strategy, nodes = self.make(), self.make_nodes(8)
        few = nodes[:2]
        for number in range(50):
            assert self._select(strategy, few, number) in (0, 1)
        few[:] = nodes[2:3]
        assert self._select(strategy, few, 50) == 0
        few[:] = []
        assert self._select(strategy, few, 51) is None

    def test_peek_tells_the_next_choice(self) -> None:
        """The answer to a question about the next choice is true, where a strategy can be asked."""
        strategy, nodes = self.make(), NodeSet(self.make_nodes(5))
        if not isinstance(strategy, ViewStrategy):
            return
        for number in range(_PICKS):
            context = SelectionContext(hash_key=self.key(number), exclude={number % 5})
            try:
                told = strategy.peek(nodes, context)
            except Unforeseeable:  # it wraps one that cannot be asked
                return
            assert strategy.peek(nodes, context) == told, "peek changed something"
            assert strategy.select(nodes, context) == told

    def test_holds_under_threads(self) -> None:
        """Many threads at once get valid choices and no error."""
        strategy, nodes = self.make(), NodeSet(self.make_nodes(5))
        view = nodes.restrict([0, 2, 3])
        wrong: list[object] = []

        def work() -> None:
            try:
                for number in range(_PICKS):
                    candidates, allowed = (nodes, range(5)) if number % 2 else (view, (0, 2, 3))
                    index = self._select(adapted, candidates, number)
                    if index not in allowed:
                        wrong.append(index)
            except Exception as error:  # noqa: BLE001 - reported by the thread that started this
                wrong.append(error)

        adapted = adapt(strategy)
        threads = [Thread(target=work) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong, f"{len(wrong)} wrong choices or errors, the first: {wrong[0]!r}"

    def _select(
        self,
        strategy: Strategy[Any],
        candidates: Sequence[Any],
        number: int = 0,
        exclude: set[int] | None = None,
    ) -> int | None:
        context = SelectionContext(self.key(number), frozenset(exclude or ()))
        return strategy.select(candidates, context)
