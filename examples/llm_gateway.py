"""A gateway that speaks OpenAI's API: each prompt goes where its prefix is cached.

Programs point their SDK at it: `OpenAI(base_url="http://gateway/v1")`. It reads no more of a prompt
than it takes to find the server whose KV cache has most of it, and streams what comes back.

Three servers in threads stand for vLLM or SGLang, so the program ends by itself.

    pip install 'loadwise[httpx]' starlette uvicorn openai
    python examples/llm_gateway.py
"""

import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import uvicorn
from openai import OpenAI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from loadwise import Balancer
from loadwise.integrations.httpx import AsyncLoadwiseTransport
from loadwise.integrations.llm import classify_llm
from loadwise.llm import PrefixAffinity


def create_app(servers: list[str]) -> Starlette:
    """Return the gateway; `uvicorn --factory` takes a function like this without arguments."""
    balancer = Balancer(servers, PrefixAffinity(), name="models")
    transport = AsyncLoadwiseTransport(balancer, classify=classify_llm, no_node="response")
    client = httpx.AsyncClient(transport=transport, timeout=httpx.Timeout(10.0, read=300.0))

    async def forward(request: Request) -> Response:
        asked = client.build_request(
            request.method,
            f"http://models{request.url.path}",
            content=await request.body(),
            headers={"content-type": request.headers.get("content-type", "application/json")},
        )
        try:
            answer = await client.send(asked, stream=True)
        except httpx.TransportError as error:
            return JSONResponse({"error": {"message": type(error).__name__}}, 502)

        async def pieces() -> AsyncGenerator[bytes, None]:
            try:
                async for piece in answer.aiter_raw():
                    yield piece
            finally:  # the caller may have gone
                await answer.aclose()

        kept = {name: answer.headers[name] for name in KEPT if name in answer.headers}
        return StreamingResponse(pieces(), answer.status_code, kept)

    async def status(_: Request) -> Response:
        return JSONResponse(balancer.status_dict())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None, None]:
        async with client:
            yield

    return Starlette(
        routes=[
            Route("/status", status),
            Route("/v1/{path:path}", forward, methods=["GET", "POST"]),
        ],
        lifespan=lifespan,
    )


KEPT = ("content-type", "content-encoding", "retry-after", "x-request-id")


class Model(BaseHTTPRequestHandler):
    """A model's server: it computes what it has not cached, then writes."""

    server: "ModelServer"

    def do_POST(self) -> None:
        """Answer a chat by a stream."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = json.dumps(asked["messages"])
        starts = {text[:end] for end in range(64, len(text), 64)}
        cached = 64 * len(starts & self.server.cache) // 4
        time.sleep((len(text) // 4 - cached) / 20_000)  # tokens a second
        self.server.cache |= starts
        self.server.cached += cached
        self.server.tokens += len(text) // 4
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for word in ("It ", "is ", "deep."):
            self.tell(choices=[{"index": 0, "delta": {"content": word}}])
        details = {"cached_tokens": cached}
        used = {"prompt_tokens": len(text) // 4, "prompt_tokens_details": details}
        self.tell(choices=[], usage={**used, "completion_tokens": 3, "total_tokens": 3})
        self.wfile.write(b"data: [DONE]\n\n")

    def tell(self, **event: object) -> None:
        """Write an event of the stream."""
        head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "sea"}
        self.wfile.write(f"data: {json.dumps(head | event)}\n\n".encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Stay silent."""


class ModelServer(ThreadingHTTPServer):
    """A model's server, and its KV cache."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Model)
        self.cache: set[str] = set()
        self.tokens = self.cached = 0


def converse(client: OpenAI, user: str) -> str:
    """Have a conversation of five turns, and return the last answer."""
    messages: list[Any] = [{"role": "system", "content": "You know the sea. " * 10}]
    for turn in range(5):
        question = f"{user} asks, for the {turn + 1}. time: " + "what is down there? " * 40
        messages.append({"role": "user", "content": question})
        answer = ""
        for event in client.chat.completions.create(model="sea", messages=messages, stream=True):
            answer += "".join(choice.delta.content or "" for choice in event.choices)
        messages.append({"role": "assistant", "content": answer})
    return str(messages[-1]["content"])


def main() -> None:
    """Run the gateway before three servers, and talk to it."""
    models = [ModelServer() for _ in range(3)]
    for model in models:
        Thread(target=model.serve_forever, args=(0.01,)).start()
    app = create_app([f"http://127.0.0.1:{model.server_port}" for model in models])
    gateway = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = Thread(target=gateway.run)
    thread.start()
    try:
        while not gateway.started:
            time.sleep(0.01)
        port = gateway.servers[0].sockets[0].getsockname()[1]
        with OpenAI(api_key="none", base_url=f"http://127.0.0.1:{port}/v1") as client:
            users = ("Ada", "Bo", "Cy", "Di", "Ed", "Flo")
            print("answers:", {converse(client, user) for user in users})
        tokens = sum(model.tokens for model in models)
        print(f"cached: {100 * sum(model.cached for model in models) / tokens:.0f} %")
        print("servers used:", sum(model.tokens > 0 for model in models))
    finally:
        gateway.should_exit = True
        thread.join()
        for model in models:
            model.shutdown()
            model.server_close()


if __name__ == "__main__":
    main()
