"""Prompts of requests to language models: what of a body the model reads, and in which order."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadwise import Balancer, Endpoint, RoundRobin, Strategy, Tiers
from loadwise._prompt import Prompt
from loadwise.integrations._http.settings import Settings
from loadwise.integrations._llm.prompts import PromptAccount, prompt_in
from loadwise.integrations.llm import TokenMeter
from loadwise.llm import DualMap, PrefixAffinity

CHAT = "/v1/chat/completions"
TURNS = [
    {"role": "user", "content": "What of the sea?"},
    {"role": "assistant", "content": "It is deep."},
    {"role": "user", "content": "And the sky?"},
]


def read(path: str, **body: Any) -> str | None:
    """Return the prompt of a request with such a body."""
    return prompt_in(path, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": TURNS}),
        ("/openai/deployments/gpt/chat/completions?api-version=1", {"messages": TURNS}),
        ("/v1/responses", {"instructions": "Be brief.", "input": TURNS}),
        ("/v1/messages", {"system": [{"type": "text", "text": "Be brief."}], "messages": TURNS}),
        ("/v1/completions", {"prompt": "What of the sea? It is deep. And the sky?"}),
        ("/v1/completions", {"prompt": ["What of the sea?", "And the sky?"]}),
        ("/generate", {"text": "What of the sea? And the sky?", "sampling_params": {}}),
    ],
)
def test_prompts_of_all_apis_are_read(path: str, body: dict[str, Any]) -> None:
    """What is said is there in its order, and what only steers the answer is not."""
    prompt = read(path, model="small", temperature=0.5, max_tokens=77, stream=True, **body)
    assert prompt is not None
    assert prompt.startswith("model\nsmall\n")
    assert 0 < prompt.index("the sea?") < prompt.index("the sky?")
    assert "Be brief." not in str(body) or prompt.index("Be brief.") < prompt.index("the sea?")
    assert "77" not in prompt
    assert "temperature" not in prompt


def test_tokens_in_the_place_of_text() -> None:
    """A prompt may be numbers."""
    assert read("/v1/completions", prompt=[11, 12, 13]) == "prompt\n11\n12\n13\n"
    assert read("/generate", input_ids=[11, 12]) == "input_ids\n11\n12\n"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBOR" * 9000}},
        {"type": "image", "source": {"type": "base64", "data": "iVBOR" * 9000}},
        {"type": "input_audio", "input_audio": {"format": "wav", "data": "iVBOR" * 9000}},
    ],
)
def test_images_are_known_by_a_hash(part: dict[str, Any]) -> None:
    """Megabytes of an image are 16 characters of the prompt, and another image is another."""
    asked = [{"role": "user", "content": [part, {"type": "text", "text": "What is it?"}]}]
    prompt = read(CHAT, messages=asked)
    assert prompt is not None
    assert len(prompt) < 200
    other = json.loads(json.dumps(asked).replace("iVBORiVBOR", "iVBORjVBOR"))
    assert prompt not in (read(CHAT, messages=other), None)
    again = read(CHAT, messages=[*asked, {"role": "assistant", "content": "A cat."}])
    assert again is not None
    assert again.startswith(prompt)


def test_an_address_is_itself() -> None:
    """An image by reference is known by that."""
    url = {"type": "image_url", "image_url": {"url": "https://images.test/cat.png"}}
    assert "https://images.test/cat.png" in str(read(CHAT, messages=[{"content": [url]}]))


def test_marks_of_caches_do_not_count() -> None:
    """They move on with each turn; the prompt before them is the same."""
    said = {"type": "text", "text": "What of the sea?"}
    marked = [{"role": "user", "content": [{**said, "cache_control": {"type": "ephemeral"}}]}]
    plain = [{"role": "user", "content": [said]}]
    assert read("/v1/messages", messages=marked) == read("/v1/messages", messages=plain)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant"]), "content": st.text(max_size=20)}
        ),
        min_size=1,
        max_size=5,
    ),
    st.data(),
)
@settings(max_examples=30, deadline=None)
def test_a_conversation_that_goes_on_begins_as_before(
    turns: list[dict[str, str]], data: st.DataObject
) -> None:
    """Each prompt is the beginning of those after it, tools and system in front."""
    fixed = {"tools": [{"name": "look"}], "system": "Be brief."}
    count = data.draw(st.integers(0, len(turns)))
    before = read("/v1/messages", messages=turns[:count], **fixed)
    after = read("/v1/messages", messages=turns, **fixed)
    assert before is not None
    assert after is not None
    assert after.startswith(before)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, b""),
        (CHAT, b"not JSON"),
        (CHAT, b"[1, 2]"),
        (CHAT, b"[" * 100_000),
        (CHAT, b'{"model": "small"}'),
        (CHAT, b"\xff\xfe"),
        ("/v1/embeddings", b'{"input": "What of the sea?"}'),
        ("/v1/files", b'{"messages": []}'),
        ("/", b'{"messages": [{"content": "Hi"}]}'),
    ],
)
def test_what_is_no_prompt_is_none(path: str, body: bytes) -> None:
    """Bodies of other kinds are sent as ever."""
    assert prompt_in(path, body) is None


def test_bodies_are_read_only_for_a_strategy_that_goes_by_them() -> None:
    """Any other strategy costs nothing more than before."""
    body = json.dumps({"messages": TURNS}).encode()
    nodes = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
    assert not Settings(Balancer(nodes, RoundRobin())).reads_bodies
    assert Settings(Balancer(nodes, RoundRobin())).account(CHAT, body, len(body)) is None
    strategies: list[Strategy[str]] = [PrefixAffinity(), DualMap()]
    for strategy in strategies:
        settings = Settings(Balancer(nodes, strategy))
        assert isinstance(settings.account(CHAT, body, len(body)), PromptAccount)
        assert settings.account("/v1/embeddings", body, len(body)) is None
        assert settings.account(CHAT, None, 9) is None
    tiers: Balancer[Endpoint] = Balancer([Endpoint(nodes[0])], Tiers(PrefixAffinity))
    assert Settings(tiers).reads_prompts


def test_the_meter_is_asked_as_before() -> None:
    """A prompt's account has the amounts of the meter, before and after."""
    nodes = ["http://127.0.0.1:1"]
    body = json.dumps({"messages": TURNS, "max_tokens": 10}).encode()
    meter = TokenMeter()
    account = Settings(Balancer(nodes, PrefixAffinity()), meter=meter).account(CHAT, body, None)
    assert account is not None
    assert account.amounts == meter.estimate(body)
    assert account.used_by(429) == meter.refused()
    assert account.left({"x-ratelimit-remaining-requests": "5"}) != {}
    reader = account.reader("application/json")
    assert reader is not None
    reader.feed(b'{"usage": {"prompt_tokens": 9, "completion_tokens": 12}}')
    assert reader.amounts() == {"tpm": 21}


@pytest.mark.parametrize(
    ("kind", "answer", "share"),
    [
        (
            "application/json",
            {"usage": {"prompt_tokens": 80, "prompt_tokens_details": {"cached_tokens": 60}}},
            0.75,
        ),
        (
            "application/json; charset=utf-8",
            {"usage": {"input_tokens": 80, "input_tokens_details": {"cached_tokens": 0}}},
            0.0,
        ),
        (
            "application/json",
            {
                "usage": {
                    "input_tokens": 10,
                    "cache_read_input_tokens": 60,
                    "cache_creation_input_tokens": 10,
                }
            },
            0.75,
        ),
        ("application/json", {"usage": {"prompt_tokens": 80}}, None),
        ("application/json", {"usage": {"prompt_tokens": 80, "prompt_tokens_details": None}}, None),
        ("application/json", {"choices": []}, None),
    ],
)
def test_answers_tell_what_was_cached(kind: str, answer: object, share: float | None) -> None:
    """Whichever API says it in whichever way; what is not said is not guessed."""
    text = json.dumps(answer)
    event = json.dumps({"type": "message_start", "message": answer})
    streamed = event if "cache_read" in text else text
    for type_, body in ((kind, text), ("text/event-stream", f"event: x\ndata: {streamed}\n\n")):
        told: list[float] = []
        prompt = Prompt("What of the sea?")
        prompt.cached = told.append
        reader = PromptAccount(prompt, None).reader(type_)
        assert reader is not None
        for byte in body.encode():
            reader.feed(bytes([byte]))
        assert reader.amounts() is None
        assert told == ([] if share is None else [share])
