"""A storm over one host: processes that end leases in every way there is, and are killed amid them.

``python -m tests.shared_memory.storm --leases 2000000 --processes 8`` runs the long one.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

from tests.shared_memory.workers import until

from loadwise import Balancer, PeakEwma, PowerOfTwoChoices
from loadwise.shared_memory import HostState, read_host

__all__ = ["Storm"]

NODES = ("a", "b", "c", "d")
THREADS = 4


class Storm:
    """Processes that share a host's file, half of which are killed and replaced.

    Args:
        path: The file.
        processes: How many processes there are at a time.
        leases: How many leases each takes, if it lives.
        seed: Of the moments at which processes are killed.

    Attributes:
        readings: How often the host was read.
        worst: The lowest and the highest count of a node that was read.
        most: The highest that there can have been at a node.
    """

    def __init__(self, path: Path, processes: int, leases: int, seed: int = 1) -> None:
        self.path = path
        self.processes = processes
        self.leases = leases
        self.readings = 0
        self.worst = (0, 0)
        self.most = 0
        self._rng = random.Random(seed)

    def total(self) -> int:
        """Read the host; return how many requests it has in flight."""
        self.readings += 1
        counts = [node.in_flight for node in read_host(self.path).nodes]
        low, high = self.worst
        self.worst = min(low, *counts), max(high, *counts)
        return sum(counts)

    def run(self) -> int:
        """Have the storm pass; return how many leases were taken by those that lived."""
        with self._workers(self.processes) as first:
            host = Balancer(NODES, host=HostState(self.path))  # it keeps the file, and looks on
            for victim in first[::2]:
                for _ in range(self._rng.randrange(3, 9)):
                    self.total()
                    host.pick()
                victim.kill()
            with self._workers(len(first[::2])) as second:
                alive = [*first[1::2], *second]
                done = 0
                for each in alive:
                    assert each.stdout is not None
                    while not select.select([each.stdout], [], [], 0.005)[0]:
                        self.total()
                    done += int(each.stdout.readline())
                until(lambda: [host.pick(), self.total()][1] == 0)
        return done

    @contextmanager
    def _workers(self, number: int) -> Iterator[list[subprocess.Popen[str]]]:
        self.most += THREADS * number
        command = [sys.executable, "-m", "tests.shared_memory.storm", "--work", str(self.path)]
        running = [
            subprocess.Popen(
                [*command, "--leases", str(self.leases), "--seed", str(self._rng.random())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(number)
        ]
        try:
            for each in running:
                assert each.stdout is not None
                assert each.stdout.readline() == "sharing\n"
            yield running
        finally:
            for each in running:
                each.kill()
                each.communicate(timeout=20)


def work(path: str, leases: int, seed: str) -> None:
    """Take leases in some threads, and end them in every way there is."""
    host = HostState(path)
    balancer = Balancer(NODES, PowerOfTwoChoices(load=PeakEwma()), health=False, host=host)
    assert host.is_shared

    def thread(number: int) -> None:
        rng = random.Random(f"{seed} {number}")
        for _ in range(leases // THREADS):
            way = rng.randrange(5)
            if way == 0:
                balancer.acquire()  # leaked: it ends when it is collected
            elif way == 1:
                with suppress(ZeroDivisionError), balancer.acquire():
                    raise ZeroDivisionError
            elif way == 2:
                with suppress(asyncio.CancelledError), balancer.acquire():
                    raise asyncio.CancelledError
            elif way == 3:
                balancer.acquire().cancel()
            else:
                balancer.acquire().success()

    threads = [Thread(target=thread, args=(number,)) for number in range(THREADS)]
    print("sharing", flush=True)
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    print(THREADS * (leases // THREADS), flush=True)
    sys.stdin.read()  # it lives until it is told to go


def main() -> None:
    """Run a storm, or take part in one."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.shared_memory.storm",
        description="Kill half of the processes that share a host, and see what is left in flight.",
    )
    parser.add_argument("--leases", type=int, default=250_000, help="of each process")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work is not None:
        work(arguments.work, arguments.leases, arguments.seed)
        return
    with tempfile.TemporaryDirectory() as folder:
        storm = Storm(Path(folder) / "api", arguments.processes, arguments.leases)
        done = storm.run()
    low, high = storm.worst
    print(f"{done:,} leases of those that lived; nothing in flight in the end")
    print(f"{storm.readings:,} readings of nodes: {low} to {high}, {storm.most} at most possible")


if __name__ == "__main__":
    main()
