"""The real SDKs of OpenAI and Anthropic, alone or over a balancer, alike to whoever asks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import anthropic
import httpx2
import openai

from loadwise import Balancer, RoundRobin
from loadwise.integrations.httpx2 import AsyncLoadwiseTransport, LoadwiseTransport
from loadwise.integrations.llm import classify_llm

__all__ = ["MESSAGES", "ask", "ask_over", "client_of", "over", "run"]

T = TypeVar("T")

MESSAGES = [{"role": "user", "content": "hello"}]


def may_repeat(request: httpx2.Request) -> None:
    """Let a prompt be sent again."""
    request.extensions["loadwise"] = {"retry": True}


async def may_repeat_async(request: httpx2.Request) -> None:
    """Let a prompt of an asynchronous client be sent again."""
    may_repeat(request)


def over(balancer: Balancer[Any], mode: str, **options: Any) -> Any:
    """Return a client whose prompts a balancer's nodes answer."""
    hooks = options.pop("hooks", True)
    options = {"classify": classify_llm, "url": openai_url, **options}
    if mode == "sync":
        events = {"request": [may_repeat] if hooks else []}
        return httpx2.Client(transport=LoadwiseTransport(balancer, **options), event_hooks=events)
    return httpx2.AsyncClient(
        transport=AsyncLoadwiseTransport(balancer, **options),
        event_hooks={"request": [may_repeat_async] if hooks else []},
    )


def openai_url(node: str) -> str:
    """Return the base URL of a node, which is that of the provider."""
    return f"{node}/v1"


def client_of(sdk: str, mode: str, **options: Any) -> Any:
    """Return a client of an SDK."""
    package: Any = anthropic if sdk == "anthropic" else openai
    kind = ("" if mode == "sync" else "Async") + ("Anthropic" if sdk == "anthropic" else "OpenAI")
    return getattr(package, kind)(
        api_key="unused", max_retries=options.pop("retries", 0), **options
    )


def run(mode: str, asking: Coroutine[Any, Any, T]) -> T:
    """Run to its end what asks; without an event loop where nothing is awaited."""
    if mode == "async":
        return asyncio.run(asking)
    try:
        asking.send(None)
    except StopIteration as end:
        answers: T = end.value
        return answers
    raise AssertionError("a synchronous client has awaited something")


async def ask(sdk: str, mode: str, client: Any, *, stream: bool = False) -> str:
    """Return what is answered to a prompt: the text, or the kind and the status of an error."""
    try:
        if sdk == "responses":
            answer = client.responses.create(model="m", input=MESSAGES, stream=stream)
        elif sdk == "chat":
            answer = client.chat.completions.create(model="m", messages=MESSAGES, stream=stream)
        else:
            answer = client.messages.create(
                model="m", messages=MESSAGES, max_tokens=9, stream=stream
            )
        if mode == "async":
            answer = await answer
        if not stream:
            return "answer"
        if mode == "async":
            async for _ in answer:
                pass
        else:
            for _ in answer:
                pass
    except (openai.APIError, anthropic.APIError) as error:
        return f"{type(error).__name__} {getattr(error, 'status_code', '')}".strip()
    return "answer"


def ask_over(
    sdk: str, mode: str, nodes: list[str], *, stream: bool = False, times: int = 1, **options: Any
) -> tuple[list[str], Balancer[str]]:
    """Return what is answered to prompts over nodes in turn, and the balancer."""
    balancer = options.pop("balancer", None) or Balancer(nodes, RoundRobin())
    if sdk == "anthropic":
        options["url"] = str

    async def main() -> list[str]:
        http = over(balancer, mode, **options)
        client = client_of(sdk, mode, base_url="http://llm", http_client=http)
        try:
            return [await ask(sdk, mode, client, stream=stream) for _ in range(times)]
        finally:
            closing = client.close()
            if mode == "async":
                await closing

    return run(mode, main()), balancer
