"""A real HTTP server in its own process that does to each request what the request asks for.

Run as a script with its name; it prints its port.

A request says in its header ``Plan`` what each server is to do with it, as ``a=reset b=429:30``:
a status (with a Retry-After), or one of the words below. Servers that are not named answer.
"""

import asyncio
import socket
import struct
import sys

from aiohttp import WSMsgType, web

NAME = sys.argv[1]
ACTED_ON: list[str] = []
GO_ON: dict[str, asyncio.Event] = {}


def manners_of(request: web.Request) -> str:
    """Return what this server is to do with a request."""
    plan = dict(entry.split("=", 1) for entry in request.headers.get("Plan", "").split())
    return plan.get(NAME, "200")


async def act(request: web.Request) -> web.StreamResponse:
    """Note the request's id, and treat it as it asks to be treated."""
    body = await request.read()
    identity = request.headers.get("X-Request-Id", "")
    ACTED_ON.append(identity)
    transport = request.transport
    assert transport is not None
    match manners_of(request).split(":"):
        case ["reset" | "close" as way]:
            if way == "reset":
                # Closing without lingering makes the kernel send a reset.
                linger = struct.pack("ii", 1, 0)
                connection: socket.socket = transport.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            transport.abort()
            return web.Response()
        case ["hang"]:
            await asyncio.Event().wait()
        case ["stream" | "cut" | "stuck" as way]:
            response = web.StreamResponse(status=503 if way == "stuck" else 200)
            await response.prepare(request)
            await response.write(b"first\n")
            await GO_ON.setdefault(identity, asyncio.Event()).wait()
            if way == "cut":
                transport.abort()
            else:
                await response.write(b"last\n")
            return response
        case ["redirect"]:
            return web.Response(status=307, headers={"Location": "/elsewhere"})
        case ["usage"]:
            return web.json_response({"usage": {"total_tokens": 42}})
        case [status, *pause]:
            told = {
                "server": NAME,
                "method": request.method,
                "path": request.raw_path,
                "headers": {name.lower(): value for name, value in request.headers.items()},
                "body": body.decode(),
            }
            headers = {"Retry-After": pause[0]} if pause else {}
            return web.json_response(told, status=int(status), headers=headers)
    raise web.HTTPNotImplemented


async def elsewhere(_: web.Request) -> web.Response:
    """Where redirects lead."""
    return web.json_response({"server": NAME})


async def chat(request: web.Request) -> web.WebSocketResponse:
    """Send back what comes over a websocket."""
    websocket = web.WebSocketResponse()
    await websocket.prepare(request)
    async for message in websocket:
        if message.type is WSMsgType.TEXT:
            await websocket.send_str(f"{NAME}: {message.data}")
    return websocket


async def go_on(request: web.Request) -> web.Response:
    """Let a stream go on."""
    GO_ON.setdefault(request.match_info["id"], asyncio.Event()).set()
    return web.Response()


async def tell(_: web.Request) -> web.Response:
    """Tell the ids of the requests that were acted on."""
    return web.json_response(ACTED_ON)


async def main() -> None:
    """Serve until killed."""
    app = web.Application()
    app.router.add_get("/_tell", tell)
    app.router.add_get("/_go_on/{id}", go_on)
    app.router.add_get("/elsewhere", elsewhere)
    app.router.add_get("/chat", chat)
    app.router.add_route("*", "/{rest:.*}", act)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)  # noqa: T201 - this is how it tells
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
