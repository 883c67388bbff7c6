"""The real OpenAI and Anthropic SDKs over several keys, against providers that enforce limits."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from loadwise import (
    Balancer,
    NoNodeAvailable,
    QuotaConfig,
    QuotaDimension,
    QuotaTracker,
    RoundRobin,
)
from loadwise.integrations.httpx2 import AsyncLoadwiseTransport, LoadwiseTransport
from loadwise.integrations.llm import TokenMeter
from loadwise.testing import ManualClock

UPSTREAM = Path(__file__).with_name("llm_upstream.py")
METER = TokenMeter(requests="rpm", tokens="tpm")
ANSWER = "one two three four five"
PLENTY = {"requests": 1_000, "tokens": 1_000_000}


@dataclass(frozen=True)
class Key:
    """A node: an API key, and where it is good."""

    id: str
    base_url: str


def limited(keys: list[Key], rpm: float, tpm: float) -> QuotaTracker:
    """Return quotas that are the same for all keys."""
    quota = QuotaTracker()
    dimensions = [QuotaDimension("rpm", rpm), QuotaDimension("tpm", tpm, default_cost=0)]
    for key in keys:
        quota.register(key.id, QuotaConfig(dimensions))
    return quota


class Provider:
    """A provider in a process of its own."""

    def __init__(self, **rules: Any) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(UPSTREAM),
                json.dumps({"window": 600, "retry_after": 30, **rules}),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def told(self) -> dict[str, dict[str, Any]]:
        """What each key has used."""
        with urllib.request.urlopen(f"{self.url}/_told", timeout=10) as answer:  # noqa: S310 - http, as above
            told: dict[str, dict[str, Any]] = json.load(answer)
        return told

    def go_on(self) -> None:
        """Let held streams go on."""
        urllib.request.urlopen(f"{self.url}/_go_on", b"", timeout=10).close()  # noqa: S310 - http, as above

    def stop(self) -> None:
        """Kill it and wait for its end."""
        self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Provider]]:
    """Start providers; stop them in the end."""
    started: list[Provider] = []

    def start_one(**rules: Any) -> Provider:
        started.append(Provider(**rules))
        return started[-1]

    yield start_one
    for provider in started:
        provider.stop()


def set_key(request: httpx2.Request, key: Key) -> None:
    """Give a request its node's key, in both providers' ways."""
    for name in ("X-Api-Key", "Authorization"):
        if name in request.headers:
            request.headers[name] = key.id if name == "X-Api-Key" else f"Bearer {key.id}"


def may_repeat(request: httpx2.Request) -> None:
    """Allow every request to be sent to another key after a 429 or a lost connection."""
    request.extensions["loadwise"] = {"retry": True}


async def may_repeat_async(request: httpx2.Request) -> None:
    """Allow the same to an asynchronous client's."""
    may_repeat(request)


def in_flight(balancer: Balancer[Any]) -> int:
    """Requests in flight over all nodes."""
    return sum(status.in_flight for status in balancer.status())


class Asker:
    """A program that asks by one of the SDKs, synchronously or not, in a stream or not."""

    def __init__(self, balancer: Balancer[Key], sdk: str, mode: str, **options: Any) -> None:
        self.sdk = sdk
        self.sync = mode == "sync"
        common: dict[str, Any] = {
            "prepare": set_key,
            "meter": METER,
            "url": lambda node: node.base_url,
            **options.pop("transport", {}),
        }
        hooks = options.pop("hooks", False)
        if self.sync:
            self.http: Any = httpx2.Client(
                transport=LoadwiseTransport(balancer, **common),
                event_hooks={"request": [may_repeat] if hooks else []},
            )
        else:
            self.http = httpx2.AsyncClient(
                transport=AsyncLoadwiseTransport(balancer, **common),
                event_hooks={"request": [may_repeat_async] if hooks else []},
            )
        package: Any = anthropic if sdk == "anthropic" else openai
        kind = ("" if self.sync else "Async") + ("Anthropic" if sdk == "anthropic" else "OpenAI")
        self.client = getattr(package, kind)(
            api_key="unused", base_url="http://llm/", http_client=self.http, **options
        )

    async def close(self) -> None:
        """Close the SDK's client."""
        closing = self.client.close()
        if not self.sync:
            await closing

    async def begin(self, prompt: str, **more: Any) -> Any:
        """Send a prompt and return what the SDK returns."""
        messages = [{"role": "user", "content": prompt}]
        if self.sdk == "responses":
            create = self.client.responses.create
            asked = {"input": messages, "max_output_tokens": 20}
        elif self.sdk == "chat":
            create = self.client.chat.completions.create
            asked = {"messages": messages, "max_completion_tokens": 20}
            if more.get("stream"):
                more["stream_options"] = {"include_usage": True}
        else:
            create = self.client.messages.create
            asked = {"messages": messages, "max_tokens": 20}
        answer = create(model="m", **asked, **more)
        return answer if self.sync else await answer

    async def ask(self, prompt: str, *, stream: bool) -> str:
        """Send a prompt and return the text of the answer."""
        answer = await self.begin(prompt, stream=stream)
        if stream:
            pieces = [self.text_of(event) async for event in self.events(answer)]
            return "".join(pieces).strip()
        if self.sdk == "responses":
            return str(answer.output_text)
        if self.sdk == "chat":
            return str(answer.choices[0].message.content)
        return str(answer.content[0].text)

    async def events(self, answer: Any) -> AsyncIterator[Any]:
        """Iterate over a stream."""
        if self.sync:
            for event in answer:
                yield event
        else:
            async for event in answer:
                yield event

    def text_of(self, event: Any) -> str:
        """Return the text in an event."""
        if self.sdk == "chat":
            return str(event.choices[0].delta.content) if event.choices else ""
        if self.sdk == "responses":
            return str(event.delta) if event.type == "response.output_text.delta" else ""
        return str(event.delta.text) if event.type == "content_block_delta" else ""


@asynccontextmanager
async def asking(*args: Any, **options: Any) -> AsyncIterator[Asker]:
    """Make an asker and close it in the end."""
    asker = Asker(*args, **options)
    try:
        yield asker
    finally:
        await asker.close()


SDKS = pytest.mark.parametrize("sdk", ["chat", "responses", "anthropic"])
MODES = pytest.mark.parametrize("mode", ["sync", "async"])


def base_url(provider: Provider, sdk: str) -> str:
    """Return where a provider's API begins; Anthropic's SDK adds /v1 by itself."""
    return f"{provider.url}/eu" if sdk == "anthropic" else f"{provider.url}/eu/v1"


@SDKS
@MODES
def test_quotas_agree_with_what_the_providers_counted(
    start: Callable[..., Provider], sdk: str, mode: str
) -> None:
    """Over keys and base URLs, streamed or not, what is left is what the provider says is left."""
    ids = ["k0", "k1", "k2"]
    providers = [start(limits=dict.fromkeys(ids[:2], PLENTY)), start(limits={"k2": PLENTY})]
    keys = [Key(name, base_url(providers[name == "k2"], sdk)) for name in ids]
    quota = limited(keys, 100, 10_000)
    balancer = Balancer(keys, RoundRobin(), quota=quota)

    async def main() -> None:
        async with asking(balancer, sdk, mode, max_retries=0) as asker:
            for number in range(6):
                prompt = "how are you" + " really" * number
                assert await asker.ask(prompt, stream=number >= 3) == ANSWER

    asyncio.run(main())
    told = providers[0].told() | providers[1].told()
    endpoint = {"chat": "chat/completions", "anthropic": "messages"}.get(sdk, sdk)
    for key in keys:
        used = told[key.id]
        assert used["paths"] == [f"/eu/v1/{endpoint}"] * 2
        assert quota.remaining(key.id, "rpm") == 100 - used["requests"]
        assert quota.remaining(key.id, "tpm") == 10_000 - used["tokens"]
    assert sum(used["tokens"] for used in told.values()) == 6 * (3 + 5) + sum(range(6))
    assert in_flight(balancer) == 0


@SDKS
@MODES
def test_a_stream_holds_its_key_and_its_tokens_to_the_end(
    start: Callable[..., Provider], sdk: str, mode: str
) -> None:
    """An estimate is reserved; the end settles it, and an early close takes what was seen."""
    provider = start(limits={"k": PLENTY})
    key = Key("k", base_url(provider, sdk))
    quota = limited([key], 100, 10_000)
    balancer = Balancer([key], quota=quota)
    prompt = "hold on please"
    message = json.dumps({"messages": [{"role": "user", "content": prompt}], "max_tokens": 20})
    estimate = METER.estimate(message.encode())["tpm"]

    async def main() -> None:
        async with asking(balancer, sdk, mode, max_retries=0) as asker:
            early = await asker.begin(prompt, stream=True)
            events = asker.events(early)
            await anext(events)
            assert in_flight(balancer) == 1
            assert quota.remaining("k", "tpm") == 10_000 - estimate
            if asker.sync:
                early.close()
            else:
                await early.close()
            assert in_flight(balancer) == 0
            await events.aclose()  # type: ignore[attr-defined]  # it is a generator
            seen = 10_000 - quota.remaining("k", "tpm")
            assert 3 <= seen <= estimate - 20 + 4  # at most "one " and "two " have come

            late = await asker.begin(prompt, stream=True)
            await anext(asker.events(late))
            assert in_flight(balancer) == 1
            provider.go_on()
            assert [event async for event in asker.events(late)]
            assert in_flight(balancer) == 0
            assert quota.remaining("k", "tpm") == 10_000 - seen - (3 + 5)

    asyncio.run(main())


@pytest.mark.parametrize("sdk", ["chat", "anthropic"])
@MODES
def test_a_429_makes_a_key_sit_out_and_another_one_answers(
    start: Callable[..., Provider], sdk: str, mode: str
) -> None:
    """What one key refuses is sent with another at once; the first is left alone for as long."""
    provider = start(limits={"small": {"requests": 1, "tokens": 1_000}, "large": PLENTY})
    keys = [Key(name, base_url(provider, sdk)) for name in ("small", "large")]
    clock = ManualClock()
    balancer = Balancer(keys, RoundRobin(), clock=clock)

    async def main() -> None:
        async with asking(balancer, sdk, mode, max_retries=0, hooks=True) as asker:
            for moment, refused in ((0.0, 1), (29.9, 1), (0.2, 2)):
                clock.advance(moment)
                for number in range(4):
                    assert await asker.ask("hello", stream=number % 2 == 1) == ANSWER
                assert provider.told()["small"]["refused"] == refused

    asyncio.run(main())
    assert provider.told()["small"]["requests"] == 1
    assert provider.told()["large"]["requests"] == 11
    assert in_flight(balancer) == 0


@pytest.mark.parametrize("elsewhere", [True, False])
@MODES
def test_a_refused_prompt_has_used_a_request_and_no_tokens(
    start: Callable[..., Provider], mode: str, *, elsewhere: bool
) -> None:
    """What was reserved for it is free when its key is back, whether or not another answered."""
    provider = start(limits={"none": {"requests": 0, "tokens": 0}, "some": PLENTY})
    keys = [Key(name, base_url(provider, "chat")) for name in ("none", "some")]
    quota = limited(keys, 100, 10_000)
    balancer = Balancer(keys, RoundRobin(), quota=quota)

    async def main() -> None:
        async with asking(balancer, "chat", mode, max_retries=0, hooks=elsewhere) as asker:
            if elsewhere:
                assert await asker.ask("hello", stream=False) == ANSWER
            else:
                with pytest.raises(openai.RateLimitError):
                    await asker.ask("hello", stream=False)

    asyncio.run(main())
    assert quota.cooldown_until("none") is not None
    assert quota.remaining_by_dimension("none") == {"rpm": 99, "tpm": 10_000}


@pytest.mark.parametrize("sdk", ["chat", "anthropic"])
def test_without_opting_in_the_sdk_repeats_and_finds_the_other_key(
    start: Callable[..., Provider], sdk: str
) -> None:
    """A 429 to a POST reaches the SDK; its own retry goes to a key that is not on cooldown."""
    provider = start(
        limits={"none": {"requests": 0, "tokens": 0}, "some": PLENTY}, retry_after=0.01
    )
    keys = [Key(name, base_url(provider, sdk)) for name in ("none", "some")]
    balancer = Balancer(keys, RoundRobin(), clock=ManualClock())

    async def main() -> None:
        async with asking(balancer, sdk, "sync", max_retries=1) as asker:
            assert await asker.ask("hello", stream=False) == ANSWER

    asyncio.run(main())
    assert provider.told()["none"]["refused"] == 1


@pytest.mark.parametrize("sdk", ["chat", "anthropic"])
@MODES
def test_a_key_that_cannot_be_reached_costs_no_request(
    start: Callable[..., Provider], sdk: str, mode: str
) -> None:
    """A prompt whose connection was refused was never sent, so it goes to another base URL."""
    provider = start(limits={"k": PLENTY})
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        dead = Key("dead", f"http://127.0.0.1:{bound.getsockname()[1]}/v1")
        keys = [dead, Key("k", base_url(provider, sdk))]
        quota = limited(keys, 100, 10_000)
        balancer = Balancer(keys, RoundRobin(), quota=quota)

        async def main() -> None:
            async with asking(balancer, sdk, mode, max_retries=0) as asker:
                for _ in range(4):
                    assert await asker.ask("hello", stream=False) == ANSWER

        asyncio.run(main())
    assert quota.remaining("dead", "rpm") == 100
    assert quota.remaining("dead", "tpm") == 10_000
    assert quota.remaining("k", "rpm") == 96
    assert quota.remaining("k", "tpm") == 10_000 - provider.told()["k"]["tokens"]


def test_keys_may_limit_different_things(start: Callable[..., Provider]) -> None:
    """A key without a limit on tokens, and one without any, serve beside one that has both."""
    provider = start(limits=dict.fromkeys(("both", "requests", "nothing"), PLENTY))
    keys = [Key(name, base_url(provider, "chat")) for name in ("both", "requests", "nothing")]
    quota = limited(keys[:1], 100, 10_000)
    quota.register("requests", QuotaConfig([QuotaDimension("rpm", 100)]))
    balancer = Balancer(keys, RoundRobin(), quota=quota)

    async def main() -> None:
        async with asking(balancer, "chat", "sync", max_retries=0) as asker:
            for _ in range(6):
                assert await asker.ask("hello", stream=False) == ANSWER

    asyncio.run(main())
    assert quota.remaining_by_dimension("both") == {"rpm": 98, "tpm": 10_000 - 2 * (1 + 5)}
    assert quota.remaining_by_dimension("requests") == {"rpm": 98}
    assert provider.told()["nothing"]["requests"] == 2


def test_no_request_is_lost_or_refused_while_a_key_has_room(start: Callable[..., Provider]) -> None:
    """Eight threads use up three keys to the last request, and no provider has to say 429."""
    limits = {"requests": 20, "tokens": 1_000}
    providers = {name: start(limits={name: limits}) for name in ("k0", "k1", "k2")}
    keys = [Key(name, f"{provider.url}/v1") for name, provider in providers.items()]
    quota = limited(keys, limits["requests"], limits["tokens"])
    balancer = Balancer(keys, quota=quota)
    transport = LoadwiseTransport(
        balancer, prepare=set_key, meter=METER, url=lambda key: key.base_url
    )
    with openai.OpenAI(
        api_key="unused",
        base_url="http://llm",
        http_client=httpx2.Client(transport=transport),
        max_retries=0,
    ) as client:

        def ask(number: int) -> str | None:
            answer = client.chat.completions.create(
                model="m",
                messages=[{"role": "user", "content": f"number {number}"}],
                max_completion_tokens=10,
            )
            return answer.choices[0].message.content

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, range(60))) == [ANSWER] * 60
        for name, provider in providers.items():
            told = provider.told()[name]
            assert (told["requests"], told["refused"]) == (20, 0)
            assert quota.remaining(name, "rpm") == 0
            assert quota.remaining(name, "tpm") == 1_000 - told["tokens"]
        with pytest.raises(openai.APIConnectionError) as caught:
            ask(60)
    cause = caught.value.__cause__
    assert isinstance(cause, NoNodeAvailable)
    assert cause.reason == "quota"
    assert cause.retry_after is not None
    assert 0 < cause.retry_after <= 60
    assert in_flight(balancer) == 0


@pytest.mark.parametrize("sdk", ["chat", "anthropic"])
@MODES
def test_no_node_available_comes_through_the_sdk(sdk: str, mode: str) -> None:
    """Both make it the cause of a connection error of their own."""

    async def main() -> None:
        async with asking(Balancer([], name="keys"), sdk, mode, max_retries=0) as asker:
            package = anthropic if sdk == "anthropic" else openai
            with pytest.raises(package.APIConnectionError) as caught:
                await asker.ask("hello", stream=False)
        error = caught.value.__cause__
        assert isinstance(error, NoNodeAvailable)
        assert error.reason == "empty"

    asyncio.run(main())


@pytest.mark.parametrize("sdk", ["chat", "anthropic"])
@MODES
def test_a_response_in_place_of_no_node_is_the_sdks_own_refusal(sdk: str, mode: str) -> None:
    """Where no key has room, both say what they say of a provider's 429."""
    key = Key("k", "http://127.0.0.1:1")
    quota = limited([key], 1, 1_000)
    quota.record_usage("k", {"rpm": 1})

    async def main() -> None:
        balancer = Balancer([key], quota=quota)
        async with asking(
            balancer, sdk, mode, max_retries=0, transport={"no_node": "response"}
        ) as asker:
            package = anthropic if sdk == "anthropic" else openai
            with pytest.raises(package.RateLimitError) as caught:
                await asker.ask("hello", stream=False)
        assert 0 < int(caught.value.response.headers["retry-after"]) <= 60

    asyncio.run(main())
