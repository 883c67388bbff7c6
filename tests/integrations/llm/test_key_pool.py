"""The pool of keys: one list makes clients, and no secret is told."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import re
import traceback
from collections.abc import Callable
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadwise import NoNodeAvailable, QuotaTracker, RoundRobin, by_id
from loadwise.integrations._llm.requested_model import asked_in
from loadwise.integrations.llm import KeyPool
from loadwise.testing import ManualClock, VirtualClock

OPENAI = "https://api.openai.com/v1"
AZURE = "https://res.openai.azure.com"
CHAT = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}
MESSAGE = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 9, "output_tokens": 3},
}


class Providers:
    """All providers there are, which note what they are sent."""

    def __init__(self, answer: Callable[[Any], Any] | None = None) -> None:
        self.sent: list[Any] = []
        self._answer = answer

    def __call__(self, request: Any) -> Any:
        self.sent.append(request)
        answer = None if self._answer is None else self._answer(request)
        if answer is not None:
            return answer
        json_body = MESSAGE if request.url.path.endswith("/messages") else CHAT
        package = httpx2 if isinstance(request, httpx2.Request) else httpx
        return package.Response(200, json=json_body)

    @property
    def transport(self) -> httpx2.MockTransport:
        """Who sends to them."""
        return httpx2.MockTransport(self)

    def keys(self) -> list[str]:
        """Return the secrets that came, whatever the header."""
        names = ("authorization", "x-api-key", "api-key")
        return [
            " ".join(f"{name}={each.headers[name]}" for name in names if name in each.headers)
            for each in self.sent
        ]


def chat(client: openai.OpenAI, model: str = "m") -> str | None:
    """Ask for an answer."""
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Hi"}], max_completion_tokens=50
    )
    return answer.choices[0].message.content


def test_one_list_makes_a_client() -> None:
    """Keys are used in turn, and what is used is counted for each."""
    providers = Providers()
    pool = KeyPool(
        [
            {"key": f"sk-{i}", "base_url": OPENAI, "rpm": 10, "tpm": 1_000, "name": f"team-{i}"}
            for i in range(2)
        ],
        RoundRobin(),
    )
    with pool.openai(transport=providers.transport) as client:
        assert [chat(client) for _ in range(4)] == ["hi"] * 4
    assert providers.keys() == ["authorization=Bearer sk-0", "authorization=Bearer sk-1"] * 2
    assert {str(each.url) for each in providers.sent} == {f"{OPENAI}/chat/completions"}
    for node in pool.balancer.nodes:
        assert pool.quota.remaining_by_dimension(node.id) == {"rpm": 8, "tpm": 1_000 - 24}
    assert [node.id for node in pool.balancer.nodes] == ["team-0", "team-1"]


def test_requests_reach_only_keys_for_their_model_under_its_own_name() -> None:
    """One key with two models is two nodes, each with limits and cooldowns of its own."""

    def answer(request: Any) -> Any:
        limited = json.loads(request.content)["model"] == "gpt-5"
        return httpx2.Response(429, headers={"retry-after": "30"}, json={}) if limited else None

    providers = Providers(answer)
    pool = KeyPool(
        [
            {"key": "sk-1", "base_url": OPENAI, "models": {"small": "gpt-5-mini"}, "rpm": 9},
            {"key": "sk-1", "base_url": OPENAI, "models": ["gpt-5"], "rpm": 9},
            {"key": "sk-2", "base_url": OPENAI, "models": {"small": "their-small"}, "rpm": 9},
        ],
        RoundRobin(),
        clock=ManualClock(),
        timeout=0.0,
    )
    with pool.openai(transport=providers.transport) as client:
        assert [chat(client, "small") for _ in range(2)] == ["hi", "hi"]
        with pytest.raises(openai.RateLimitError):
            chat(client, "gpt-5")
        with pytest.raises(openai.APIConnectionError) as caught:
            chat(client, "gpt-6")
        assert [chat(client, "small") for _ in range(2)] == ["hi", "hi"]
    cause = caught.value.__cause__
    assert isinstance(cause, NoNodeAvailable)
    assert cause.filters == ("model 'gpt-6'",)
    asked = [json.loads(each.content)["model"] for each in providers.sent]
    assert sorted(asked) == ["gpt-5", *["gpt-5-mini"] * 2, *["their-small"] * 2]
    ids = [node.id for node in pool.balancer.nodes]
    assert [pool.quota.cooldown_until(each) for each in ids] == [None, 30.0, None]
    assert [pool.quota.remaining(each, "rpm") for each in ids] == [7, 8, 7]


def test_a_key_without_models_is_good_for_all() -> None:
    """So is a request that names none for any key; the filter of a request holds, too."""
    providers = Providers()
    pool = KeyPool(
        [{"key": "sk-1", "base_url": OPENAI, "models": ["a"]}, {"key": "sk-2", "base_url": OPENAI}]
    )
    second = pool.balancer.nodes[1].id
    options = {"loadwise": {"where": by_id(second)}}
    with httpx2.Client(
        transport=pool.transport(providers.transport), base_url="http://llm"
    ) as client:
        for _ in range(5):
            assert client.post("/chat/completions", json={"model": "b"}).is_success
            client.post("/chat/completions", json={"model": "a"}, extensions=options)
            client.get("/models", extensions=options)
    assert set(providers.keys()) == {"authorization=Bearer sk-2"}


@pytest.mark.parametrize("base", [AZURE, f"{AZURE}/openai", f"{AZURE}/openai/"])
def test_azure_has_paths_and_versions_by_deployment(base: str) -> None:
    """The deployment is the provider's own name; what has none there is asked without."""
    providers = Providers()
    models = {"gpt-4o": "my dep", "tts": "speech"}
    pool = KeyPool(
        [{"key": "az-1", "base_url": base, "api_version": "2024-10-21", "models": models}]
    )
    with pool.openai(transport=providers.transport) as client:
        assert chat(client, "gpt-4o") == "hi"
        client.models.with_raw_response.list(extra_query={"limit": "5"})
        client.responses.with_raw_response.create(model="gpt-4o", input="Hi")
    assert [str(each.url) for each in providers.sent] == [
        f"{AZURE}/openai/deployments/my%20dep/chat/completions?api-version=2024-10-21",
        f"{AZURE}/openai/models?limit=5&api-version=2024-10-21",
        f"{AZURE}/openai/responses?api-version=2024-10-21",
    ]
    assert set(providers.keys()) == {"api-key=az-1"}
    assert [json.loads(each.content)["model"] for each in providers.sent[::2]] == ["my dep"] * 2


def test_azures_own_client_asks_for_deployments_by_itself() -> None:
    """By the name that is asked for; each key is asked under its own, also one of OpenAI."""
    providers = Providers()
    pool = KeyPool(
        [
            {"key": "az-1", "base_url": AZURE, "api_version": "2024-10-21", "models": {"m": "dep"}},
            {"key": "sk-1", "base_url": OPENAI, "models": {"m": "gpt-5"}},
        ],
        RoundRobin(),
    )
    http = httpx2.Client(transport=pool.transport(providers.transport))
    with openai.AzureOpenAI(
        api_key="unused", azure_endpoint="http://llm", api_version="2024-02-01", http_client=http
    ) as client:
        assert [chat(client) for _ in range(2)] == ["hi", "hi"]
    assert [each.url.path for each in providers.sent] == [
        "/openai/deployments/dep/chat/completions",
        "/v1/chat/completions",
    ]
    assert providers.sent[0].url.params["api-version"] == "2024-10-21"
    assert providers.keys() == ["api-key=az-1", "authorization=Bearer sk-1"]


@pytest.mark.parametrize("given", [{}, {"timeout": 60.0}, {"timeout": None}])
def test_nobody_waits_for_a_key_for_longer_than_for_a_connection(given: dict[str, Any]) -> None:
    """The timeout of the client, and that of a call, hold for that wait, too."""
    providers = Providers()
    clock = VirtualClock()
    pool = KeyPool([{**GOOD, "rpm": 1}], clock=clock, **given)
    with pool.openai(transport=providers.transport, timeout=7.0) as client:
        assert chat(client) == "hi"
        for call, waited in ((client, 7.0), (client.with_options(timeout=2.0), 9.0)):
            with pytest.raises(openai.APIConnectionError) as caught:
                chat(call)
            assert isinstance(caught.value.__cause__, NoNodeAvailable)
            assert clock() == waited
        own = {"loadwise": {"timeout": 60.0}}
        with httpx2.Client(transport=pool.transport(providers.transport), timeout=1.0) as http:
            assert http.post("http://llm/responses", json={}, extensions=own).is_success
    assert 60.0 <= clock() < 69.0


def test_limits_are_kept_where_it_is_told() -> None:
    """By a quota that others use, too; one that is to be awaited is refused."""
    providers = Providers()
    clock = ManualClock()
    quota = QuotaTracker(clock)
    pools = [KeyPool([{**GOOD, "rpm": 9, "name": "a"}], quota=quota) for _ in range(2)]
    for pool in pools:
        assert pool.quota is quota
        assert pool.balancer.clock is clock
        with pool.openai(transport=providers.transport) as client:
            assert chat(client) == "hi"
    assert quota.remaining("a", "rpm") == 7

    class Awaited(QuotaTracker):
        async def try_acquire(self, *_: Any, **__: Any) -> Any:  # type: ignore[override]
            raise AssertionError("nobody asks it")

    awaited: Any = Awaited()
    with pytest.raises(TypeError, match="awaited"):
        KeyPool([GOOD], quota=awaited)


@pytest.mark.parametrize("base", ["https://api.anthropic.com", "https://api.anthropic.com/v1"])
def test_anthropics_sdk_is_served_with_and_without_the_version(base: str) -> None:
    """Limits of prompts and answers are apart, and the key goes in its own header."""
    providers = Providers()
    entry = {"key": "an-1", "base_url": base, "rpm": 9, "itpm": 1_000, "otpm": 2_000}
    pool = KeyPool([entry])
    with pool.anthropic(transport=providers.transport) as client:
        client.messages.create(
            model="c", max_tokens=50, messages=[{"role": "user", "content": "Hi"}]
        )
    assert str(providers.sent[0].url) == "https://api.anthropic.com/v1/messages"
    assert providers.keys() == ["x-api-key=an-1"]
    left = pool.quota.remaining_by_dimension(pool.balancer.nodes[0].id)
    assert left == {"rpm": 8, "itpm": 991, "otpm": 1_997}


def test_asynchronous_clients_are_made_of_the_same_limits() -> None:
    """Both SDKs, and a transport for one's own client."""
    providers = Providers()
    pool = KeyPool([{"key": "sk-1", "base_url": OPENAI, "rpm": 10}])

    async def main() -> None:
        async with pool.async_openai(transport=providers.transport) as client:
            await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "Hi"}]
            )
        async with pool.async_anthropic(transport=providers.transport) as claude:
            await claude.messages.create(
                model="c", max_tokens=50, messages=[{"role": "user", "content": "Hi"}]
            )
        transport = pool.async_transport(providers.transport)
        async with httpx2.AsyncClient(transport=transport) as http:
            await http.post("http://llm/chat/completions", json={"model": "m"})

    asyncio.run(main())
    assert providers.keys() == [
        "authorization=Bearer sk-1",
        "x-api-key=sk-1",
        "authorization=Bearer sk-1",
    ]
    assert pool.quota.remaining(pool.balancer.nodes[0].id, "rpm") == 7


def test_the_inner_transport_tells_the_package() -> None:
    """Httpx is served as httpx2 is."""
    providers = Providers()
    pool = KeyPool([{"key": "sk-1", "base_url": OPENAI}])
    inner = httpx.MockTransport(providers)
    transport: Any = pool.transport(inner)
    with httpx.Client(transport=transport) as client:
        assert client.post("http://llm/chat/completions", json={}).is_success
    assert providers.keys() == ["authorization=Bearer sk-1"]
    with pytest.raises(TypeError, match="needs one of httpx2"):
        pool.openai(transport=inner)


def test_forms_are_sent_under_the_keys_own_name_too() -> None:
    """Sound is sent as a form, with the name of the model in it."""
    providers = Providers(lambda _: httpx2.Response(200, json={"text": "hi"}))
    pool = KeyPool(
        [
            {"key": "sk-1", "base_url": OPENAI, "models": {"ears": "whisper-large"}},
            {"key": "sk-2", "base_url": OPENAI, "models": ["m"]},
        ]
    )
    with pool.openai(transport=providers.transport) as client:
        for _ in range(5):
            client.audio.transcriptions.create(model="ears", file=("a.wav", b"\x00" * 3_000))
    assert set(providers.keys()) == {"authorization=Bearer sk-1"}
    for each in providers.sent:
        assert b'name="model"\r\n\r\nwhisper-large\r\n' in each.content
        assert int(each.headers["content-length"]) == len(each.content)


def test_prompts_are_repeated_and_what_makes_something_is_not() -> None:
    """A prompt may be paid for twice; a batch would be there twice."""

    def answer(request: Any) -> Any:
        broken = request.headers["authorization"] == "Bearer sk-0"
        return httpx2.Response(500, json={}) if broken else None

    made = ("/batches", "/fine_tuning/jobs", "/assistants", "/videos", "/threads/runs")
    for path, code in (("/chat/completions", 200), *((path, 500) for path in made)):
        pool = KeyPool([{"key": f"sk-{i}", "base_url": OPENAI} for i in range(2)], RoundRobin())
        transport = pool.transport(Providers(answer).transport)
        with httpx2.Client(transport=transport, base_url="http://llm") as client:
            assert client.post(path, json={"model": "m"}).status_code == code


SECRET = "sk-verysecret"  # noqa: S105 - of nobody


def test_no_secret_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Not by what is shown, logged or raised, whatever goes wrong."""
    caplog.set_level(logging.DEBUG, "loadwise")
    replies = iter([401, 429, 500])
    providers = Providers(lambda _: httpx2.Response(next(replies, 500), json={"error": {}}))
    pool = KeyPool(
        [{"key": SECRET, "base_url": OPENAI, "rpm": 9, "models": ["m"]}],
        timeout=0.0,
        max_attempts=1,
    )
    told = [repr(pool), str(pool.balancer.explain()), *map(repr, pool.balancer.nodes)]
    with pool.openai(transport=providers.transport) as client:
        for model in ("m", "m", "m", "n"):
            with pytest.raises(openai.OpenAIError) as caught:
                chat(client, model)
            told += traceback.format_exception(caught.value)
            pool.balancer.lift(pool.balancer.nodes[0].id)
        told += [repr(client), repr(vars(client))]
    told += [repr(pool.balancer.status()), repr(vars(pool)), caplog.text]
    for node in pool.balancer.nodes:
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(node)
    assert SECRET not in "\n".join(told)


GOOD = {"key": SECRET, "base_url": OPENAI}


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        (SECRET, TypeError, "keys is a str"),
        (GOOD, TypeError, "keys is a dict"),
        ([], ValueError, "keys is empty"),
        ([SECRET], TypeError, r"keys\[0\] is a str"),
        ([{"base_url": OPENAI}], ValueError, 'keys[0] has no "key"'),
        ([{"key": SECRET}], ValueError, 'keys[0] has no "base_url"'),
        (
            [{**GOOD, "base_ulr": "x"}],
            ValueError,
            "unknown field 'base_ulr'; did you mean 'base_url'?",
        ),
        ([{**GOOD, SECRET: "x"}], ValueError, r"keys[0] has an unknown field (the"),
        ([{**GOOD, "key": f"{SECRET}\n"}], ValueError, "a line break"),
        ([{**GOOD, "key": ""}], ValueError, "is empty"),
        ([{**GOOD, "key": None}], TypeError, "is a NoneType"),
        ([{**GOOD, "base_url": f"https://x:{SECRET}@h"}], ValueError, "a user name"),
        ([{**GOOD, "base_url": f"https://h?key={SECRET}"}], ValueError, "a query"),
        ([{**GOOD, "base_url": "api.openai.com"}], ValueError, r"keys\[0\]: base_url is 'api"),
        ([{**GOOD, "rpm": 0}], ValueError, "rpm is 0"),
        ([{**GOOD, "tpm": SECRET}], TypeError, '"tpm" is a str'),
        ([{**GOOD, "weight": float("nan")}], ValueError, "weight is nan"),
        ([{**GOOD, "models": "gpt-5"}], TypeError, '"models" is a str'),
        ([{**GOOD, "models": []}], ValueError, '"models" is empty'),
        ([{**GOOD, "models": [1]}], TypeError, "a name that is no str"),
        ([{**GOOD, "name": f"my {SECRET}"}], ValueError, "the name has the key in it"),
        ([{**GOOD, "api_version": "v1&x"}], ValueError, '"api_version" is empty, or'),
        ([GOOD, GOOD], ValueError, "keys[0] and keys[1] are the same key"),
        (
            [{**GOOD, "name": "a"}, {**GOOD, "key": "sk-2", "name": "a"}],
            ValueError,
            "are both named 'a'",
        ),
    ],
)
def test_entries_are_checked_and_not_shown(keys: Any, error: type[Exception], message: str) -> None:
    """What cannot be meant is refused by place and field, without the secret."""
    pattern = message if "\\" in message else re.escape(message)
    with pytest.raises(error, match=pattern) as caught:
        KeyPool(keys)
    assert SECRET not in str(caught.value)


def test_options_of_a_request_are_checked_as_ever() -> None:
    """What is no mapping, or says what nobody knows, is refused by name."""
    pool = KeyPool([GOOD])
    bad: Any
    with httpx2.Client(transport=pool.transport(Providers().transport)) as client:
        for bad, error in (("retry", TypeError), ({"retyr": True}, ValueError)):
            with pytest.raises(error, match="loadwise"):
                client.post("http://llm/responses", json={}, extensions={"loadwise": bad})


def test_arguments_are_checked() -> None:
    """Unknown options, and what the pool says itself, are refused by name."""
    options: Any = {"timout": 3.0}
    with pytest.raises(TypeError, match="no argument 'timout'; did you mean 'timeout'"):
        KeyPool([GOOD], **options)
    pool = KeyPool([GOOD])
    for name in ("api_key", "base_url", "http_client"):
        with pytest.raises(TypeError, match=f"{name} is what the pool gives"):
            pool.openai(**{name: "x"})
    assert isinstance(pool.anthropic(max_retries=2, timeout=5.0), anthropic.Anthropic)


NAMES = st.text(min_size=1, max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(NAMES | st.just("model"), VALUES, max_size=5), NAMES, NAMES)
@settings(max_examples=200, deadline=None)
def test_renaming_changes_nothing_else(body: dict[str, Any], model: str, own: str) -> None:
    """Whatever the body is, it says the same afterwards, but for the name."""
    for indent in (None, 2):
        text = json.dumps({**body, "model": model}, indent=indent).encode()
        asked = asked_in("/v1/responses", text)
        assert asked.model == model
        assert json.loads(asked.renamed(text, own)) == {**body, "model": own}
