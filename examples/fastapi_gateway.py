"""A gateway with FastAPI: retries, health and load shedding in front of five backends.

One backend is down and one answers 503. No caller notices: reads are tried elsewhere, and after
three failures a backend gets nothing but a probe. `/readyz` is for the load balancer in front,
`/status` for people.

Real servers in threads stand for the backends, so the program ends by itself.

    pip install 'loadwise[httpx]' fastapi
    python examples/fastapi_gateway.py
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
from fastapi import FastAPI, Request, Response

from loadwise import Balancer
from loadwise.integrations.httpx import AsyncLoadwiseTransport

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
# They are for one connection only, or the gateway's own server and client write them.
NOT_PASSED_ON = {
    *(b"accept-encoding", b"connection", b"content-encoding", b"content-length", b"date", b"host"),
    *(b"keep-alive", b"server", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
}

Headers = list[tuple[bytes, bytes]]


def create_app(backends: list[str]) -> FastAPI:
    """Return the gateway; `uvicorn --factory` takes a function like this without arguments."""
    balancer = Balancer(backends, max_in_flight=100, max_waiting=200, name="backends")
    transport = AsyncLoadwiseTransport(
        balancer,
        max_attempts=3,
        deadline=10.0,  # seconds for all attempts together
        timeout=1.0,  # seconds to wait for a backend that has room
        no_node="response",  # a 503 or 429 with Retry-After where there is none
    )

    # A jar that takes nothing: cookies belong to the callers, and the client serves all of them.
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    client = httpx.AsyncClient(transport=transport, cookies=no_cookies)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        async with client:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/readyz")
    async def ready() -> Response:
        return Response(status_code=200 if balancer.status_dict()["available"] else 503)

    @app.get("/status")
    async def status() -> dict[str, Any]:
        return balancer.status_dict()

    @app.api_route("/{path:path}", methods=METHODS)
    async def forward(request: Request) -> Response:
        try:
            answer = await client.request(
                request.method,
                url_of(request),
                content=await request.body(),
                headers=passed_on(request.headers.raw),
            )
        except httpx.TimeoutException:
            return Response("the backend did not answer in time", 504)
        except httpx.TransportError:
            return Response("no backend could be reached", 502)
        response = Response(answer.content, answer.status_code)
        response.raw_headers += passed_on(answer.headers.raw)
        return response

    return app


def url_of(request: Request) -> httpx.URL:
    """Return the URL as the caller wrote it; the transport puts in the backend's host.

    So redirects of a backend to itself are told to the caller as redirects to the gateway.
    """
    target: bytes = request.scope["raw_path"]
    if query := request.scope["query_string"]:
        target += b"?" + query
    return httpx.URL(str(request.base_url)).copy_with(raw_path=target)


def passed_on(headers: Headers) -> Headers:
    """Return the headers that a gateway hands on; some may come twice, as Set-Cookie does."""
    return [(name, value) for name, value in headers if name.lower() not in NOT_PASSED_ON]


class Backend(BaseHTTPRequestHandler):
    """Answers with its port, or with 503 where it is the broken one."""

    server: ThreadingHTTPServer
    broken = 0

    def do_GET(self) -> None:
        """Answer."""
        port = self.server.server_port
        self.send_response(503 if port == self.broken else 200)
        self.send_header("Content-Length", str(len(body := f"hello from {port}".encode())))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Stay silent."""


async def ask(app: FastAPI) -> None:
    """Send 60 requests to the gateway, and look at it."""
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client,
    ):
        answers = [await client.get(f"/users/{number}") for number in range(60)]
        print("answered well:", sum(answer.is_success for answer in answers), "of", len(answers))
        print("ready:", (await client.get("/readyz")).status_code)
        for node in (await client.get("/status")).json()["nodes"]:
            print(f"{node['health']:9} {node['recent_failures']} failed")


def main() -> None:
    """Run the gateway before five backends, of which one is broken and one is down."""
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Backend) for _ in range(5)]
    backends = [f"http://127.0.0.1:{server.server_port}" for server in servers]
    Backend.broken = servers[0].server_port
    servers.pop().server_close()  # nobody listens there any more
    for server in servers:
        Thread(target=server.serve_forever, args=(0.01,)).start()
    try:
        asyncio.run(ask(create_app(backends)))
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


if __name__ == "__main__":
    main()
