"""Prompts that the processes of a host share: what is pending, and what was sent where."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.shared_memory.workers import until, worker

from loadwise import Balancer, FallbackChain, LeastLoad, NodeSet, PeakEwma, PowerOfTwoChoices
from loadwise.llm import PendingTokens, PrefixAffinity, PrefixIndex
from loadwise.load import Cell
from loadwise.load.pending_tokens import TokenCell
from loadwise.shared_memory import HostState
from loadwise.shared_memory.virtual_host import VirtualHost, VirtualProcess
from loadwise.strategies import ViewStrategy
from loadwise.testing import ManualClock

NODES: tuple[str, ...] = ("a", "b", "c", "d")
PROMPTS = [f"Conversation {number}. " * 200 for number in range(4)]


def facts(strategy: ViewStrategy[str], *nodes: str) -> dict[str, Any]:
    """Return what a strategy goes by, by node."""
    found = strategy.facts(NodeSet(nodes or NODES))
    return {name: dict(zip(nodes or NODES, values, strict=True)) for name, values in found.items()}


def test_four_processes_send_prompts_where_any_of_them_has_warmed_them(path: Path) -> None:
    """Each warms one conversation; all others send it to the same node, and wait for nobody."""
    with ExitStack() as stack:
        workers = [stack.enter_context(worker(path, *NODES, measure="prompts")) for _ in range(4)]
        warm = [each.tell("send", prompt) for each, prompt in zip(workers, PROMPTS, strict=True)]
        # While a prompt is pending, that of another process goes elsewhere.
        assert sorted(warm) == [*NODES]
        for each, node in zip(workers, warm, strict=True):
            each.tell("begin", node)
            each.tell("succeed", node)
        for each in workers:
            for prompt, node in zip(PROMPTS, warm, strict=True):
                assert each.tell("send", f"{prompt} And then?") == node
                each.tell("begin", node)
                each.tell("succeed", node)
            assert each.tell("facts")["pending"] == [0.0] * 4


def test_who_joins_learns_what_was_sent_before_and_the_dead_wait_for_nothing(path: Path) -> None:
    """Also of a process that has died: the caches are the servers'."""
    strategy: PrefixAffinity[str] = PrefixAffinity()
    balancer = Balancer(NODES, strategy, host=HostState(path))
    with worker(path, *NODES, measure="prompts") as other:
        warm = other.tell("send", PROMPTS[0])
        balancer.explain()
        assert facts(strategy)["pending"][warm] > 700
        other.end()

        def is_idle() -> bool:
            balancer.pick()
            return not any(facts(strategy)["pending"].values())

        until(is_idle)
    assert facts(strategy)["blocks"] == dict.fromkeys(NODES, 0)
    with worker(path, *NODES, measure="prompts") as another:
        assert another.tell("send", PROMPTS[0]) == warm
        balancer.explain()
    until(is_idle)  # the row has been cleared, and is nobody's
    with balancer.acquire(prompt=PROMPTS[0]) as lease:
        assert lease.node == warm


def test_a_forked_child_learns_anew_and_leaves_the_parents_prompts_alone(path: Path) -> None:
    """It has an index of its own, filled from the logs of all, its parent's too."""
    strategy: PrefixAffinity[str] = PrefixAffinity()
    balancer = Balancer(NODES, strategy, host=HostState(path))
    lease = balancer.acquire(prompt=PROMPTS[0])
    child = os.fork()
    if not child:
        code = 1
        try:
            pending = facts(strategy)["pending"][lease.node]
            with balancer.acquire(prompt=PROMPTS[1]) as own:
                elsewhere = own.node != lease.node
            warm = facts(strategy)["blocks"][lease.node]
            code = 0 if pending > 700 and elsewhere and warm == 12 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert facts(strategy)["pending"][lease.node] > 700
    lease.success()
    assert facts(strategy)["pending"] == dict.fromkeys(NODES, 0.0)
    balancer.explain(prompt="")  # it hears of its child's, too
    assert sum(facts(strategy)["blocks"].values()) == 24


def test_no_prompt_is_in_the_file(path: Path) -> None:
    """Hashes only."""
    balancer = Balancer(NODES, PrefixAffinity(PrefixIndex(block_chars=4)), host=HostState(path))
    with balancer.acquire(prompt="swordfish" * 100):
        assert b"swor" not in path.read_bytes()


def test_the_log_takes_room_when_it_is_needed(path: Path) -> None:
    """A process that goes by no prompts has none."""
    before = Balancer(NODES, host=HostState(path))
    small = path.stat().st_blocks * 512
    after = Balancer(NODES, PrefixAffinity(), host=HostState(path))
    assert small < 120_000
    assert 2**19 <= path.stat().st_blocks * 512 - small < 2**19 + 2**16
    assert before.pick() in NODES
    assert after.pick() in NODES


class Pair:
    """Two processes of a virtual host, each with a balancer that goes by prompts."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.processes = VirtualHost(self.clock, processes=2, nodes=4).processes
        self.strategies: list[PrefixAffinity[str]] = [PrefixAffinity() for _ in range(2)]
        self.one, self.other = (
            self.balancer(strategy, process)
            for strategy, process in zip(self.strategies, self.processes, strict=True)
        )

    def balancer(
        self, strategy: ViewStrategy[str], process: VirtualProcess, *nodes: str
    ) -> Balancer[str]:
        """Return a balancer of one process."""
        return Balancer(nodes or NODES, strategy, clock=self.clock, host=process)


def shown(cell: Cell) -> tuple[float, int, float]:
    """Return pending tokens, prompts without a first byte, and tokens of all prompts."""
    assert isinstance(cell, TokenCell)
    return cell.prefills.pending, cell.prefills.waiting, cell.prefills.held


class TestVirtual:
    """What two processes share, without any."""

    def test_prompts_in_flight_count_as_those_of_one(self) -> None:
        """Pending and held tokens, prompts without a first byte, and requests in flight."""
        pair = Pair()
        lease = pair.one.acquire(prompt="x" * 4000)
        measures = [each.measures[0] for each in pair.strategies]
        cells = [measure.cell(lease.node) for measure in measures]
        assert [len(cell) for cell in cells] == [1, 1]
        assert [shown(cell) for cell in cells] == [(1000.0, 1, 1000.0)] * 2
        assert [each.load(cell) for each, cell in zip(measures, cells, strict=True)] == [1000.0] * 2
        lease.first_byte()
        assert [shown(cell) for cell in cells] == [(0.0, 0, 1000.0)] * 2
        lease.success()
        assert [len(cell) for cell in cells] == [0, 0]

    def test_indexes_of_other_blocks_or_nodes_are_left_alone(self) -> None:
        """An index hears what it can use: blocks of its size, sent to nodes of its strategy."""
        pair = Pair()
        small = PrefixAffinity[str](PrefixIndex(block_chars=64))
        apart = pair.balancer(small, pair.processes[1])
        few = PrefixAffinity[str]()
        beside = pair.balancer(few, pair.processes[1], "z")
        with pair.one.acquire(prompt=PROMPTS[0]) as lease:
            pass
        for balancer in (apart, beside, pair.other):
            balancer.explain(prompt="")
        assert (len(small.index), len(few.index)) == (0, 0)
        assert facts(pair.strategies[1])["blocks"][lease.node] == len(PROMPTS[0]) // 256

    def test_two_strategies_of_a_process_hear_each_other(self) -> None:
        """They have an index each, and the same nodes."""
        pair = Pair()
        second = PrefixAffinity[str]()
        balancer = pair.balancer(second, pair.processes[0])
        with pair.one.acquire(prompt=PROMPTS[0]) as lease:
            pass
        with balancer.acquire(prompt=PROMPTS[0]) as again:
            assert again.node == lease.node

    def test_a_node_that_left_stays_forgotten(self) -> None:
        """What others send there is not learned by who does not have it."""
        pair = Pair()
        pair.other.remove("a")
        with pair.one.acquire(prompt=PROMPTS[0], exclude=["b", "c", "d"]):
            pass
        pair.other.explain(prompt="")
        assert len(pair.strategies[1].index) == 0

    def test_a_node_found_down_is_cold_for_all(self) -> None:
        """Also for who had not heard yet what was sent there."""
        pair = Pair()
        for _ in range(3):
            with pair.one.acquire(prompt=PROMPTS[0], exclude=["b", "c", "d"]) as lease:
                lease.failure("refused")
        assert {each.id: each.health.name for each in pair.other.status()}["a"] == "UNHEALTHY"
        pair.other.pick(prompt="")
        assert [facts(each)["blocks"]["a"] for each in pair.strategies] == [0, 0]

    def test_beside_other_measures(self) -> None:
        """Measures of one chain each have what they share, and a load of pending tokens, too."""
        pair = Pair()
        chains: list[FallbackChain[str]] = [
            FallbackChain(
                [
                    PrefixAffinity[str](),
                    PowerOfTwoChoices(load=PeakEwma()),
                    LeastLoad(PendingTokens()),
                ]
            )
            for _ in range(2)
        ]
        one, other = (
            pair.balancer(chain, process)
            for chain, process in zip(chains, pair.processes, strict=True)
        )
        with one.acquire(prompt=PROMPTS[0]) as lease, other.acquire(prompt=PROMPTS[1]) as second:
            assert lease.node != second.node
            one.explain(prompt="")  # it hears of the other's
            loads = [each.facts(NodeSet(NODES)) for each in chains]
            assert loads[0] == loads[1]
        assert {each.in_flight for each in one.status()} == {0}
        assert not any(facts(PrefixAffinity())["pending"].values())

    @pytest.mark.parametrize("rates", [(8000.0,) * 4, (12000.0, 12000.0, 4000.0, 4000.0)])
    def test_nodes_of_different_pace_are_told_by_each(self, rates: tuple[float, ...]) -> None:
        """Each process knows the pace, though it sees a half of the first bytes, in turn."""
        pair = Pair()
        speed = dict(zip(NODES, rates, strict=True))
        due: dict[str, list[Any]] = {node: [] for node in NODES}
        free = dict.fromkeys(NODES, 0.0)
        for number in range(400):
            balancer = pair.one if number * 7 % 5 % 2 else pair.other
            lease = balancer.acquire(prompt=f"{number:06}" + "x" * (4000 + number * 37 % 3000))
            tokens = (4006 + number * 37 % 3000) / 4
            began = max(pair.clock(), free[lease.node])
            free[lease.node] = began + tokens / speed[lease.node]
            due[lease.node].append((free[lease.node], lease))
            until_then = pair.clock() + 1250 / sum(rates)
            ended = sorted(
                (each for queue in due.values() for each in queue if each[0] <= until_then),
                key=lambda each: each[0],
            )
            for at, done in ended:
                pair.clock.advance(at - pair.clock())
                done.first_byte()
                done.success()
                due[done.node].remove((at, done))
            pair.clock.advance(until_then - pair.clock())
        for strategy in pair.strategies:
            found = facts(strategy)
            if rates[0] == rates[-1]:
                assert "speed" not in found
            else:
                ratio = found["speed"]["a"] / found["speed"]["d"]
                assert ratio == pytest.approx(3.0, rel=0.25)
        for queue in due.values():
            for _, lease in queue:
                lease.success()
