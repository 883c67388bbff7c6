"""A proxy that can be told to reset the connections of those who ask, after they were heard.

Run as a script with the ports to listen on and to pass on to; it prints a line when it listens.
SIGUSR1 has it reset connections as soon as a request on them is answered; SIGUSR2 ends that.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import struct
import sys
from contextlib import suppress

# A client's greeting is shorter, and with any request it is longer.
_GREETING = 300
resets = False


async def carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: list[int], *, back: bool
) -> None:
    """Carry bytes one way, until the connection ends or is to be reset."""
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            if back and resets and heard[0] > _GREETING:
                return
            if not back:
                heard[0] += len(data)
            writer.write(data)
            await writer.drain()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection."""
    try:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    except OSError:
        writer.transport.abort()
        return
    heard = [0]
    ways = [
        asyncio.create_task(carry(reader, inner_writer, heard, back=False)),
        asyncio.create_task(carry(inner_reader, writer, heard, back=True)),
    ]
    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    for way in ways:
        way.cancel()
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    inner_writer.transport.abort()


def switch(*, on: bool) -> None:
    """Begin to reset connections, or end it."""
    global resets  # noqa: PLW0603 - a script with one switch
    resets = on


async def main() -> None:
    """Listen until the process is killed."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: switch(on=True))
    loop.add_signal_handler(signal.SIGUSR2, lambda: switch(on=False))
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    print("ready", flush=True)  # noqa: T201 - the test waits for it
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
