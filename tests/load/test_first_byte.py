"""Measures of a user's own that are told when answers begin."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import pytest
from tests.balancer.interrupting import strike_at
from tests.compiled import COMPILED

from loadwise import (
    Balancer,
    Clock,
    FallbackChain,
    InFlight,
    LeastLoad,
    Outcome,
    PeakEwma,
    PerNode,
    Strategy,
)
from loadwise.llm import PrefixAffinity, PrefixIndex
from loadwise.load import Cell
from loadwise.testing import ManualClock

PROMPT = "A prompt of forty characters, as counted."
assert len(PROMPT) == 41


class Told:
    """A measure that writes down what it is told."""

    def __init__(self) -> None:
        self.cells: dict[Hashable, Cell] = {}
        self.told: list[tuple[Cell, float, float]] = []
        self.ended: list[Cell] = []

    def cell(self, node_id: Hashable) -> Cell:
        return self.cells.setdefault(node_id, Cell())

    def load(self, cell: Cell) -> float:
        return len(cell)

    def observe(self, cell: Cell, latency: float, outcome: Outcome, now: float) -> None:
        self.ended.append(cell)

    def use_clock(self, clock: Clock) -> None:
        """Nothing to time."""

    def first_byte(self, cell: Cell, tokens: float, now: float) -> None:
        self.told.append((cell, tokens, now))


def alone(measure: Told) -> Strategy[str]:
    """Return a strategy that feeds the measure alone."""
    return LeastLoad(load=measure)


def behind_one_that_counts(measure: Told) -> Strategy[str]:
    """Return a strategy that feeds another measure before."""
    return FallbackChain([LeastLoad[str](load=InFlight()), LeastLoad(load=measure)])


def among_those_that_age(measure: Told) -> Strategy[str]:
    """Return a strategy that feeds measures that go by first bytes themselves."""
    return FallbackChain(
        [LeastLoad(load=PeakEwma()), LeastLoad(load=measure), LeastLoad[str](load=PeakEwma(1.0))]
    )


@pytest.mark.parametrize("make", [alone, behind_one_that_counts, among_those_that_age])
class TestToldOfFirstBytes:
    """Whatever stands beside it, a measure is told of first bytes."""

    def test_once_with_the_prompts_tokens(self, make: Callable[[Told], Strategy[str]]) -> None:
        """The first word counts, at the time that it came."""
        clock, measure = ManualClock(), Told()
        balancer = Balancer(["a"], make(measure), clock=clock)
        lease = balancer.acquire(prompt=PROMPT)
        clock.advance(0.25)
        assert measure.told == []
        lease.first_byte()
        clock.advance(1.0)
        lease.first_byte()
        lease.success()
        assert measure.told == [(measure.cell("a"), len(PROMPT) / 4, clock() - 1.0)]
        assert measure.ended == [measure.cell("a")]
        assert [*map(len, measure.cells.values())] == [0]

    def test_without_a_prompt(self, make: Callable[[Told], Strategy[str]]) -> None:
        """No prompt has no tokens, and an empty one has one: something is computed."""
        measure = Told()
        balancer = Balancer(["a"], make(measure))
        with balancer.acquire() as lease, balancer.acquire(prompt="") as other:
            other.first_byte()
            lease.first_byte()
        assert [tokens for _, tokens, _ in measure.told] == [1.0, 0.0]

    @pytest.mark.parametrize("end", ["success", "failure", "cancel", "call_off"])
    def test_not_of_what_ended_without(
        self, make: Callable[[Told], Strategy[str]], end: str
    ) -> None:
        """What ends without a first byte is not told of, also if one is reported afterwards."""
        measure = Told()
        balancer = Balancer(["a"], make(measure))
        lease = balancer.acquire(prompt=PROMPT)
        getattr(lease, end)()
        lease.first_byte()
        assert measure.told == []
        assert len(measure.ended) == 1

    def test_with_objects_kept_by_node(self, make: Callable[[Told], Strategy[str]]) -> None:
        """What `PerNode` puts before the measures hands it on."""
        measure = Told()
        balancer = Balancer(["a"], make(measure))
        objects = PerNode[str, object](lambda _: object())
        for _ in range(2):
            with balancer.acquire(prompt=PROMPT) as lease:
                objects(lease)
                lease.first_byte()
        assert [tokens for _, tokens, _ in measure.told] == [len(PROMPT) / 4] * 2

    @pytest.mark.skipif(COMPILED, reason="compiled code cannot be interrupted there, nor profiled")
    @pytest.mark.filterwarnings("ignore:a lease on node:ResourceWarning")
    def test_interrupted_anywhere(self, make: Callable[[Told], Strategy[str]]) -> None:
        """Wherever Ctrl-C strikes, nothing is kept of a request; it is told of once at most."""
        measure = Told()
        balancer = Balancer(["a"], make(measure), health=False)

        def request() -> None:
            lease = balancer.acquire(prompt=PROMPT)
            lease.first_byte()
            lease.success()

        strikes = 0
        while strike_at(strikes, request):
            assert len(measure.cell("a")) == 0, f"leaked by strike {strikes}"
            assert len(measure.told) <= 1
            measure.told.clear()
            strikes += 1
        assert strikes > 10
        assert len(measure.told) == 1
        slots = balancer._fleet.view.slots
        assert [each._tokens for each in slots[0].first_bytes] == [{}]


def test_only_what_is_new_to_the_node() -> None:
    """Where the strategy knows what is cached, only the rest was pending."""
    measure = Told()
    chain: FallbackChain[str] = FallbackChain(
        [PrefixAffinity(PrefixIndex(block_chars=8)), LeastLoad(load=measure)]
    )
    balancer = Balancer(["a"], chain)
    for _ in range(2):
        with balancer.acquire(prompt=PROMPT) as lease:
            lease.first_byte()
    assert [tokens for _, tokens, _ in measure.told] == [len(PROMPT) / 4, 1.0]


def test_prompts_are_read_for_it() -> None:
    """Where a measure is told of tokens, HTTP clients read prompts for it."""
    assert Balancer(["a"], alone(Told())).reads_prompts
    assert not Balancer(["a"], LeastLoad[str](load=InFlight())).reads_prompts


def test_one_that_would_have_to_be_awaited_is_refused() -> None:
    """Nobody could wait for a coroutine."""

    class Late(Told):
        async def first_byte(self, cell: Cell, tokens: float, now: float) -> None:  # type: ignore[override]
            """Come late."""

    with pytest.raises(TypeError, match="first_byte"):
        alone(Late())
