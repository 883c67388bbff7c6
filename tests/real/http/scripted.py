"""A process of several small HTTP servers that do to their connections what tests ask of them.

Run as a script with a manner, the number of servers and, for TLS, the files of a certificate and
its key: it prints the ports, one a line, and then, for each line that it reads, a line of what has
come to pass: JSON with the connections made, those open now, and the requests, by server.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

import h2.config
import h2.connection
import h2.errors
import h2.events

MANNER, COUNT, CERTIFICATE = sys.argv[1], int(sys.argv[2]), sys.argv[3:]


class Told:
    """What has come to pass at one server."""

    def __init__(self) -> None:
        self.connections = 0
        self.open = 0
        self.requests: list[str] = []


async def take(reader: asyncio.StreamReader) -> tuple[str, str]:
    """Read a request; return its method and path, and its whole head."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    for line in head.split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            await reader.readexactly(int(value))
    return " ".join(head.split(" ", 2)[:2]), head


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by a reset."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"
LARGE = b"HTTP/1.1 503 Busy\r\nContent-Length: 200000\r\n\r\n" + b"busy" * 50_000
ONWARD = b"HTTP/1.1 302 Go on\r\nLocation: /wander\r\nContent-Length: 0\r\n\r\n"
CHALLENGE = (
    b"HTTP/1.1 401 Who\r\nContent-Length: 0\r\n"
    b'WWW-Authenticate: Digest realm="r", nonce="%s", qop="auth", algorithm=MD5\r\n\r\n'
)
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, told: Told) -> None:
    """Speak HTTP/1.1."""
    served = 0
    while True:
        request, head = await take(reader)
        told.requests.append(request)
        if MANNER == "digest":
            nonce = f"nonce-{id(told)}"
            writer.write(OK if f'nonce="{nonce}"' in head else CHALLENGE % nonce.encode())
            await writer.drain()
            continue
        if request.endswith("/die") or (MANNER == "once" and served):
            return
        if MANNER == "once-reset" and served:
            reset(writer)
            return
        if MANNER == "cut":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
            await writer.drain()
            return
        if MANNER == "stall":
            writer.write(BUSY[:-4])
            await writer.drain()
            await reader.read()  # until the client hangs up
            return
        if MANNER == "busy" and len(told.requests) % 2:
            writer.write(BUSY)
        elif not await slow(request, reader, writer):
            writer.write(LARGE if request.endswith("/large/busy") else OK)
        await writer.drain()
        served += 1


async def slow(request: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Answer what is to be answered bit by bit; return whether it was."""
    if "/to?" in request:
        place = request.partition("?")[2].encode()
        writer.write(b"HTTP/1.1 302 Go\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % place)
    elif request.endswith("/slow-head"):
        await trickle(OK, writer)
    elif "/drip" in request:
        size = int(request.rpartition("/drip")[2] or 20)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        await trickle(b"x" * size, writer)
    elif request.endswith("/wander"):
        await asyncio.sleep(0.1)
        writer.write(ONWARD)
    elif request.endswith("/hang"):
        await reader.read()  # until the client hangs up
    elif request.endswith("/pause"):
        writer.write(BUSY.replace(b"\r\n", b"\r\nRetry-After: 60\r\n", 1))
    elif request.endswith("/events"):
        writer.write(EVENTS)
        await writer.drain()
        await asyncio.sleep(0.3)
        writer.write(b"data: 1\n\n")
        writer.close()
    elif request.endswith("/hold"):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        await writer.drain()
        await reader.read()  # until the client hangs up
    else:
        return False
    return True


async def trickle(data: bytes, writer: asyncio.StreamWriter) -> None:
    """Send data byte by byte."""
    for byte in data:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.1)


async def frames(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, told: Told) -> None:
    """Speak HTTP/2, frame by frame."""
    config = h2.config.H2Configuration(client_side=False)
    state = h2.connection.H2Connection(config)
    state.initiate_connection()
    writer.write(state.data_to_send())
    asked: dict[int, str] = {}
    answered = 0
    while data := await reader.read(65_536):
        for event in state.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                headers = dict(event.headers)
                asked[event.stream_id] = (
                    f"{headers[b':method'].decode()} {headers[b':path'].decode()}"
                )
            elif isinstance(event, h2.events.DataReceived):
                state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                stream = event.stream_id
                if MANNER == "h2-refuse":
                    state.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
                    continue
                told.requests.append(asked[stream])
                if MANNER == "h2-internal":
                    state.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
                    continue
                if MANNER == "h2-leave" and answered:
                    # It has read the request, and says that it may have acted on it.
                    await leave(state, stream, reader, writer)
                    return
                state.send_headers(stream, [(":status", "200"), ("content-length", "2")])
                state.send_data(stream, b"ok", end_stream=True)
                answered += 1
                if MANNER == "h2-roll" and answered == 5:
                    await leave(state, stream, reader, writer)
                    return
        writer.write(state.data_to_send())
        await writer.drain()


async def leave(
    state: h2.connection.H2Connection,
    stream: int,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Say which was the last stream to be read, and wait for the client to hang up."""
    state.close_connection(error_code=0, last_stream_id=stream)
    writer.write(state.data_to_send())
    await writer.drain()
    while await reader.read(65_536):
        pass


async def main() -> None:
    """Serve, and tell."""
    context = None
    if CERTIFICATE:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*CERTIFICATE)
        context.set_alpn_protocols(["h2" if MANNER.startswith("h2") else "http/1.1"])
    all_told: list[Told] = []
    servers = []

    def handler(
        told: Told,
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            told.connections += 1
            told.open += 1
            speak = frames if MANNER.startswith("h2") else plain
            try:
                with suppress(asyncio.IncompleteReadError, OSError):
                    await speak(reader, writer, told)
            finally:
                told.open -= 1
                writer.close()

        return handle

    for _ in range(COUNT):
        all_told.append(Told())
        handle = handler(all_told[-1])
        servers.append(await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context, backlog=512))
    for server in servers:
        print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - this is how it tells
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps([vars(told) for told in all_told]), flush=True)  # noqa: T201 - as above


if __name__ == "__main__":
    asyncio.run(main())
