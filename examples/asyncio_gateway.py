"""A gateway on asyncio: it forwards each request to one of its backends.

The backends are real servers with a line protocol: send a line, get a line. One of them is slow,
and one takes requests and never answers. Peak EWMA turns traffic away from the slow one; the
timeout and the health of the balancer deal with the one that hangs.

    python examples/asyncio_gateway.py
"""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from loadwise import Balancer, NoNodeAvailable, PeakEwma, PowerOfTwoChoices

CLIENTS, REQUESTS_EACH = 10, 12
PATIENCE = 1.0
SORRY = b"sorry, try again later\n"

Address = tuple[str, int]
Handler = Callable[[StreamReader, StreamWriter], Awaitable[None]]


async def start(stack: AsyncExitStack, delay: float | None) -> Address:
    """Start a backend that answers after ``delay`` seconds, or never; return its address."""

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        line = await reader.readline()
        if delay is None:
            await reader.read()  # until the other side hangs up
        else:
            await asyncio.sleep(delay)
            writer.write(b"done: " + line)
            await writer.drain()
        writer.close()

    return await listen(stack, serve)


async def listen(stack: AsyncExitStack, serve: Handler) -> Address:
    """Start a server on a free port and return its address."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    await stack.enter_async_context(server)
    host, port = server.sockets[0].getsockname()
    return host, port


async def ask(address: Address, line: bytes) -> bytes:
    """Send a line, get a line."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(line)
        answer = await reader.readline()
    finally:
        writer.close()
    if not answer:
        raise ConnectionError("no answer")
    return answer


async def main() -> None:
    """Run backends, gateway and clients in one loop."""
    async with AsyncExitStack() as stack:
        names = {
            await start(stack, 0.005): "quick",
            await start(stack, 0.005): "quick, too",
            await start(stack, 0.08): "slow",
            await start(stack, None): "hanging",
        }
        balancer = Balancer(names, PowerOfTwoChoices(load=PeakEwma()), name="gateway")

        async def forward(reader: StreamReader, writer: StreamWriter) -> None:
            line = await reader.readline()
            try:
                for attempt in balancer.attempts(4):
                    # The timeout stands inside: a backend that runs into it has failed. Around
                    # the attempt it would be a cancellation, which says nothing about a backend.
                    async with attempt as lease, asyncio.timeout(PATIENCE):
                        answer = await ask(lease.node, line)
            except (OSError, NoNodeAvailable):
                answer = SORRY
            writer.write(answer)
            await writer.drain()
            writer.close()

        gateway = await listen(stack, forward)

        async def client(number: int) -> int:
            answers = [
                await ask(gateway, f"{number}.{item}\n".encode()) for item in range(REQUESTS_EACH)
            ]
            return len(answers) - answers.count(SORRY)

        answered = sum(await asyncio.gather(*map(client, range(CLIENTS))))

    print(f"{answered} of {CLIENTS * REQUESTS_EACH} requests were answered")
    for name, status in zip(names.values(), balancer.status(), strict=True):
        print(
            f"  {name:12}{status.picks:4} requests, {status.in_flight} in flight, "
            f"{status.health.name}"
        )


if __name__ == "__main__":
    asyncio.run(main())
