"""p99 of eight uvicorn workers that share a host's picture: ``python -m benchmarks.host_workers``.

Eight servers in processes of their own work on one request at a time, and sleep for as long as it
takes. In front of them is a service by uvicorn, with one worker, with eight that know nothing of
each other, or with eight that share a `HostState`. The three take turns of some seconds, with the
same times of arrival, and the next begins when all is answered. Requests come by a Poisson process,
over fresh connections, so that the kernel deals them out to the workers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.model import Table

_SERVERS = 8
_PATIENCE = 60.0
_VARIANTS = {
    "one worker": (1, False),
    "eight workers, alone": (8, False),
    "eight workers, `host=`": (8, True),
}


async def serve(mean: float) -> None:
    """Be a server that works on one request at a time, until the standard input ends."""
    busy, source = asyncio.Lock(), random.Random()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readexactly(1)
            async with busy:
                await asyncio.sleep(source.expovariate(1 / mean))
            writer.write(b".")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def _ask(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"?")
        await reader.readexactly(1)
    finally:
        writer.close()


class Service:
    """An ASGI service that hands each request on to a server of its choice."""

    def __init__(self) -> None:
        from loadwise import Balancer, InFlight, LeastLoad  # noqa: PLC0415 - the parent needs none of it
        from loadwise.shared_memory import HostState  # noqa: PLC0415

        path = os.environ.get("HOST_STATE")
        ports: list[int] = json.loads(os.environ["PORTS"])
        self._balancer = Balancer(
            ports, LeastLoad(load=InFlight()), host=HostState(path) if path else None
        )

    async def __call__(self, scope: dict[str, Any], _receive: object, send: Any) -> None:  # noqa: ANN401 - ASGI
        """Serve ASGI."""
        if scope["type"] != "http":
            return
        async with self._balancer.acquire() as lease:
            await _ask(lease.node)
        headers = [(b"connection", b"close"), (b"x-pid", str(os.getpid()).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"."})


def application() -> Service:
    """Return the service, for uvicorn's ``--factory``."""
    return Service()


@contextmanager
def _process(command: Sequence[str], **environment: str) -> Generator[subprocess.Popen[str]]:
    """Run a process of this interpreter until the block ends."""
    with subprocess.Popen(  # noqa: S603 - this interpreter
        [sys.executable, *command],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the parent, which ends them
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _servers(stack: ExitStack, mean: float) -> list[int]:
    """Start the servers; return their ports."""
    command = ["-m", "benchmarks.host_workers", "--serve", str(mean)]
    processes = [stack.enter_context(_process(command)) for _ in range(_SERVERS)]
    return [int(process.stdout.readline()) for process in processes if process.stdout is not None]


def _service(stack: ExitStack, servers: list[int], workers: int, path: str) -> int:
    """Start a service in front of the servers; return its port."""
    port = _free_port()
    command = [
        "-m", "uvicorn", "--factory", "benchmarks.host_workers:application", "--workers",
        str(workers), "--port", str(port), "--log-level", "warning",
        "--timeout-worker-healthcheck", str(int(_PATIENCE)),
    ]  # fmt: skip
    stack.enter_context(_process(command, PORTS=json.dumps(servers), HOST_STATE=path))
    return port


async def _get(port: int) -> bytes:
    """Return which process has answered a request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
    finally:
        writer.close()
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"the service has answered {answer[:200]!r}")
    return answer.partition(b"x-pid: ")[2].partition(b"\r\n")[0]


async def _until_ready(port: int, workers: int) -> None:
    """Ask until each worker has answered."""
    seen: set[bytes] = set()
    until = time.monotonic() + _PATIENCE
    while len(seen) < workers:
        if time.monotonic() > until:
            raise RuntimeError(f"{len(seen)} of {workers} workers answer after {_PATIENCE:g} s")
        try:
            seen.update(await asyncio.gather(*(_get(port) for _ in range(workers))))
        except OSError:
            await asyncio.sleep(0.1)


async def _turn(port: int, rate: float, seconds: float, source: random.Random) -> list[float]:
    """Send requests for a while; return how long each took, since it was due."""
    loop, found, tasks = asyncio.get_running_loop(), list[float](), set[asyncio.Task[None]]()

    async def one(due: float) -> None:
        await _get(port)
        found.append(loop.time() - due)

    due = loop.time()
    end = due + seconds
    while due < end:
        await asyncio.sleep(max(0.0, due - loop.time()))
        tasks.add(asyncio.create_task(one(due)))
        due += source.expovariate(rate)
    await asyncio.gather(*tasks)
    return found


async def _measured(
    ports: dict[str, int], rate: float, turns: int, seconds: float, seed: int
) -> dict[str, list[float]]:
    for name, port in ports.items():
        await _until_ready(port, _VARIANTS[name][0])
    found: dict[str, list[float]] = {name: [] for name in ports}
    for turn in range(turns):
        for name, port in ports.items():
            # The same arrivals for all.
            found[name] += await _turn(port, rate, seconds, random.Random(seed + turn))
        print(f"turn {turn + 1} of {turns}", file=sys.stderr, flush=True)
    return found


def _at(share: float, times: list[float]) -> float:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _table(found: dict[str, list[float]]) -> Table:
    one = _at(0.99, found["one worker"])
    rows = tuple(
        (
            name,
            f"{len(times):,}",
            f"{_at(0.5, times) * 1000:.0f} ms",
            f"{_at(0.99, times) * 1000:.0f} ms",
            f"{_at(0.99, times) / one:.2f}",
        )
        for name, times in found.items()
    )
    header = ("workers", "requests", "p50", "p99", "p99 to that of one")
    return Table("host-workers", "Workers of one host", header, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.host_workers",
        description="Measure the p99 of uvicorn workers with and without host=.",
    )
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--load", type=float, default=0.8, help="of what the servers can do: 0.8")
    parser.add_argument("--mean", type=float, default=0.1, help="seconds a request takes: 0.1")
    parser.add_argument("--turns", type=int, default=10, help="turns of each variant: 10")
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds of a turn: 10")
    parser.add_argument("--seed", type=int, default=1, help="of the times of arrival: 1")
    options = parser.parse_args(arguments)
    if options.serve is not None:
        asyncio.run(serve(options.serve))
        return 0
    if not 0 < options.load < 1 or not options.mean > 0 or not options.seconds > 0:
        parser.error("--load must be between 0 and 1, --mean and --seconds above 0")
    with ExitStack() as stack:
        place = Path(stack.enter_context(TemporaryDirectory()))
        servers = _servers(stack, options.mean)
        ports = {
            name: _service(stack, servers, workers, str(place / "api") if shared else "")
            for name, (workers, shared) in _VARIANTS.items()
        }
        rate = options.load * _SERVERS / options.mean
        found = asyncio.run(_measured(ports, rate, options.turns, options.seconds, options.seed))
    print(_table(found).markdown(), end="")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
