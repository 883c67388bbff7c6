"""Replay of a trace of conversations by the worker processes of one host, apart and together.

``python -m benchmarks.prefix_hosts TRACE [--load 1.5] [--most 3000] [--clients 8]`` plays the trace
of `benchmarks.prefixes` by one client, and by several, each of which is given any of the requests:
apart, with one picture of the host's load but an index of its own, and with all that a `HostState`
shares.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from benchmarks.prefixes import FLEET, Asked, Played, read, replay_by

from loadwise import Balancer, LoadMeasure
from loadwise.llm import DualMap, PrefixAffinity, PrefixIndex
from loadwise.shared_memory.virtual_host import VirtualHost
from loadwise.testing import ManualClock

__all__ = ["CLIENTS", "Clients"]

Clients = Callable[[ManualClock, int], list[Balancer[int]]]

_NODES = range(len(FLEET.rates))
_TEXT = 16
"""Characters that stand for a block."""


class _Deaf(PrefixAffinity[int]):
    """Goes by the load of all, and by what this client itself has sent."""

    def share_measures(self, measures: Sequence[LoadMeasure]) -> None:
        super().share_measures(measures)
        self._news = None


def _affinity(number: int, kind: type[PrefixAffinity[int]] = PrefixAffinity) -> PrefixAffinity[int]:
    return kind(PrefixIndex(FLEET.capacity, _TEXT), rng=Random(number))


def _apart(clock: ManualClock, count: int) -> list[Balancer[int]]:
    return [Balancer(_NODES, _affinity(number), clock=clock) for number in range(count)]


def _stateless(clock: ManualClock, count: int) -> list[Balancer[int]]:
    strategies = [DualMap[int](2 * _TEXT, rng=Random(number)) for number in range(count)]
    return [Balancer(_NODES, strategy, clock=clock) for strategy in strategies]


def _by_load(clock: ManualClock, count: int) -> list[Balancer[int]]:
    return _together(clock, count, _Deaf)


def _together(
    clock: ManualClock, count: int, kind: type[PrefixAffinity[int]] = PrefixAffinity
) -> list[Balancer[int]]:
    host = VirtualHost(clock, processes=count, nodes=len(_NODES))
    return [
        Balancer(_NODES, _affinity(number, kind), clock=clock, host=process)
        for number, process in enumerate(host.processes)
    ]


CLIENTS: dict[str, Clients] = {
    "apart": _apart,
    "apart, by DualMap": _stateless,
    "one host, load alone": _by_load,
    "one host": _together,
}
"""Ways in which several clients go together."""


def play(requests: list[Asked], clients: Clients, count: int, load: float) -> Played:
    """Play the trace by so many clients."""
    clock = ManualClock()
    return replay_by(requests, clients(clock, count), clock, load=load)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prefix_hosts", description=__doc__)
    parser.add_argument("trace", type=Path, help="conversation_trace.jsonl of Mooncake")
    parser.add_argument("--load", type=float, action="append", help="times the trace's rate")
    parser.add_argument("--most", type=int, help="only so many requests, from the first on")
    parser.add_argument("--clients", type=int, default=8, help="how many there are")
    given = parser.parse_args(arguments)
    requests, count = read(given.trace, given.most), given.clients
    write = sys.stdout.write
    write(f"{len(requests)} requests; seconds to the first token, mean and 99th percentile; hits\n")
    for load in given.load or [1.0, 1.5]:
        played = play(requests, _apart, 1, load)
        write(f"load {load:g}  {'one client':26} {played.line()}\n")
        for name, clients in CLIENTS.items():
            played = play(requests, clients, count, load)
            write(f"load {load:g}  {f'{count} clients, {name}':26} {played.line()}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
