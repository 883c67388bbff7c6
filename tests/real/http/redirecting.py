"""A real Starlette application in its own process that redirects and sets cookies.

Run as a script: it prints its port. Under ``/v1`` it is a node, and elsewhere what is beside one:

- ``/v1/items`` is redirected by Starlette itself to ``/v1/items/``;
- ``/v1/go`` redirects to what its query says, ``/v1/made`` names it without a redirect;
- ``/v1/cookie`` sets the cookie that its query says;
- ``/v1/at/...`` and all that is not under ``/v1`` tell what has arrived.

With a certificate and a key as arguments it speaks TLS.
"""

import socket
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

METHODS = ["GET", "POST"]


async def tell(request: Request) -> Response:
    """Tell what has arrived."""
    told = {
        "port": request.scope["server"][1],
        "method": request.method,
        "path": request.scope["path"],
        "query": request.url.query,
        "headers": dict(request.headers),
        "body": (await request.body()).decode(),
    }
    return JSONResponse(told)


async def go(request: Request) -> Response:
    """Redirect; the URL is given as it is, without the quoting of `RedirectResponse`."""
    response = RedirectResponse("/", int(request.query_params.get("status", "307")))
    response.headers["Location"] = request.query_params["to"]
    return response


async def made(request: Request) -> Response:
    """Name what has been made."""
    to = request.query_params["to"]
    return Response(status_code=201, headers={"Location": to, "Content-Location": to})


async def cookie(request: Request) -> Response:
    """Set a cookie."""
    return Response("set", headers={"Set-Cookie": request.query_params["value"]})


NODE = [
    Route("/items/", tell, methods=METHODS),
    Route("/go", go, methods=METHODS),
    Route("/made", made),
    Route("/cookie", cookie),
    Route("/at/{rest:path}", tell, methods=METHODS),
]
app = Starlette(routes=[Mount("/v1", routes=NODE), Route("/{rest:path}", tell, methods=METHODS)])

if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    print(listener.getsockname()[1], flush=True)  # noqa: T201 - this is how it tells
    certificate, key = sys.argv[1:] or (None, None)
    config = uvicorn.Config(
        app, log_level="error", lifespan="off", ssl_certfile=certificate, ssl_keyfile=key
    )
    uvicorn.Server(config).run([listener])
