"""The token meter: what it estimates, what it reads, and that it believes no nonsense."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loadwise.integrations._http.decoding import DecodingReader
from loadwise.integrations.llm import TokenMeter

METER = TokenMeter()
MOST = 131_072  # tokens of the longest answer that is believed in
CHAT = {"messages": [{"role": "user", "content": "x" * 85}]}  # with the names, 100 characters


def estimate(body: Any, meter: TokenMeter = METER) -> float:
    """Return the tokens that a JSON body is estimated at."""
    return meter.estimate(json.dumps(body).encode())["tpm"]


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (CHAT, 25 + 1_000),
        ({**CHAT, "max_tokens": 7}, 25 + 7),
        ({**CHAT, "max_completion_tokens": 7, "max_tokens": 99}, 25 + 7),
        ({**CHAT, "max_tokens": 7, "n": 3}, 25 + 21),
        ({**CHAT, "max_tokens": 7, "model": "m" * 500, "user": "u" * 500}, 25 + 7),
        ({"input": "x" * 40, "max_output_tokens": 7}, 10 + 7),
        ({"input": ["x" * 21, "x" * 20], "max_output_tokens": 0}, 11),
        ({"prompt": [1, 2, 3], "max_tokens": 0}, 3),
        ({"prompt": "x" * 40, "system": "x" * 40, "max_tokens": 0}, 20),
        ({"input": "", "instructions": "x" * 4, "max_output_tokens": 0}, 1),
        ({"prompt": "", "tools": [{"name": "x" * 4}], "max_tokens": 0}, 2),
        ({"prompt": "", "max_tokens": -1}, 1_000),
        ({"prompt": "", "max_tokens": "7"}, 1_000),
        ({"prompt": "", "max_tokens": True}, 1_000),
        ({"prompt": "", "max_tokens": 100_000.0}, 100_000),
        ({"prompt": "", "max_tokens": 10**400}, MOST),
        ({"prompt": "", "max_tokens": 1e300}, MOST),
        ({"prompt": "", "max_tokens": 10**9, "n": 100}, 100 * MOST),
        ({"prompt": "", "max_tokens": 1, "n": 10**9}, 128),
        ({"model": "m", "purpose": "batch"}, 5),
        ({"contents": [{"parts": [{"text": "x" * 23}]}]}, 8 + 1_000),
        ({"input": "x" * 40, "encoding_format": "base64"}, 10),
        ({"messages": [{"type": "text", "url": "x" * 29}], "max_tokens": 0}, 10),
        (["prompt"], 3 + 1_000),
    ],
)
def test_estimates(body: Any, tokens: int) -> None:
    """A prompt's characters by four, plus the most it may answer, times the answers asked for."""
    assert METER.estimate(json.dumps(body).encode()) == {"rpm": 1, "tpm": tokens}


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (b"", 0),
        (b"{", 1_001),
        (b"\xff\xfe\x00", 1_001),
        (b"NaN", 1_001),
        (b"[" * 100_000, 26_000),
        (b"a=b", 1_001),
        (b'{"max_tokens": 70, "seed": ' + b"9" * 4_970 + b"}", 1_250 + 70),
        (b'{"max_tokens": 70, "prompt": "' + b"x" * 167 + b'"}\0', 50 + 70),
        (b'{"max_tokens": 2000000000, "prompt": ""}\0', 11 + MOST),
    ],
)
def test_what_cannot_be_read_is_estimated_by_its_length(body: bytes, tokens: int) -> None:
    """Nothing gets by for free because it is no JSON, or more than can be read; limits are seen."""
    assert METER.estimate(body) == {"rpm": 1, "tpm": tokens}


INPUT = {"model": "m", "input": "x" * 40}


@pytest.mark.parametrize(
    ("path", "body", "tokens"),
    [
        ("/v1/embeddings", INPUT, 10),
        ("/v1/moderations?x=1", INPUT, 10),
        ("/v1/rerank", {"query": "x" * 8, "documents": ["x" * 32]}, 10),
        ("/v1/responses", INPUT, 10 + 1_000),
        ("/openai/deployments/d/chat/completions", CHAT, 25 + 1_000),
        ("/v1/messages", {**CHAT, "max_tokens": 7}, 25 + 7),
        ("/v1/messages/count_tokens", CHAT, 0),
        ("/v1/responses/input_tokens", INPUT, 0),
        ("/v1/messages/batches", {"requests": [{"params": CHAT}]}, 0),
        ("/v1/batches", {"input_file_id": "f"}, 0),
        ("/v1/batches/batch_1/cancel", {}, 0),
        ("/v1/files", "form", 0),
        ("/v1/images/generations", {"prompt": "x" * 40, "quality": "low", "n": 3}, 10 + 3 * 408),
        ("/v1/images/generations", {"prompt": "x" * 40}, 10 + 6_240),
        ("/v1/images/generations", {"model": "dall-e-3", "prompt": "x" * 40}, 10),
        ("/v1/audio/transcriptions", "x" * 49_998, 50 + 1_000),
        ("/v1/audio/speech", {"input": "x" * 40, "voice": ""}, 10),
    ],
)
def test_each_endpoint_is_metered_by_what_it_is(path: str, body: Any, tokens: int) -> None:
    """No answer is reserved where there is none, and nothing where tokens are not limited."""
    assert METER.estimate(json.dumps(body).encode(), path) == {"rpm": 1, "tpm": tokens}


def test_images_and_files_do_not_count_as_text() -> None:
    """An image counts 800 and a file in base64 a token per 400 characters, whatever the shape."""
    blob = "A" * 1_000_000
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{blob}"}},
        {"type": "input_image", "image_url": f"data:image/png;base64,{blob}"},
        {"type": "image", "source": {"type": "base64", "data": blob}},
        {"type": "file", "file": {"file_data": blob}},
        {"inlineData": {"mimeType": "image/png", "data": blob}},
    ]
    tokens = estimate({"messages": [{"role": "user", "content": parts}], "max_tokens": 0})
    assert 3 * 800 + 2 * 2_500 <= tokens < 3 * 800 + 2 * 2_500 + 50
    coarse = {"type": "image_url", "image_url": {"url": "u", "detail": "low"}}
    assert estimate({"input": [coarse], "max_output_tokens": 0}) == 85
    page = {"type": "document", "source": {"type": "text", "data": "a word " * 400}}
    assert 700 <= estimate({"input": [page], "max_output_tokens": 0}) < 710
    schema = {"properties": {"url": {"type": "string", "description": "x" * 400}}}
    assert estimate({"input": "", "tools": [schema], "max_output_tokens": 0}) > 100


def test_only_the_dimensions_asked_for_are_told() -> None:
    """Names and rates are free to choose; ``None`` leaves a dimension out."""
    body = json.dumps(CHAT).encode()
    assert TokenMeter(tokens=None).estimate(body) == {"rpm": 1}
    assert TokenMeter(tokens=None).reader("application/json") is None
    careful = TokenMeter(None, "t", chars_per_token=2.5, default_output_tokens=2)
    assert careful.estimate(body) == {"t": 42}


OPENAI = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
NEWER = {"input_tokens": 3, "output_tokens": 5}
BEGUN = {"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}}


def lines(*events: Any, end: str = "\n") -> bytes:
    """Return a stream of events as text."""
    return "".join(f"event: e{end}data: {json.dumps(event)}{end}{end}" for event in events).encode()


READ = [
    ("application/json", json.dumps({"usage": OPENAI}).encode(), 8),
    ("Application/JSON; charset=utf-8", json.dumps({"usage": NEWER}).encode(), 8),
    ("application/problem+json", json.dumps({"usage": {"total_tokens": 8}}).encode(), 8),
    (
        "application/json",
        json.dumps(
            {"usage": {**NEWER, "cache_creation_input_tokens": 7, "cache_read_input_tokens": 900}}
        ).encode(),
        15,
    ),
    (
        "application/json",
        json.dumps({"usage": {**OPENAI, "prompt_tokens_details": {"cached_tokens": 2}}}).encode(),
        8,
    ),
    (
        "application/json",
        json.dumps({"a": [{"usage": OPENAI}], "b": {"usage": OPENAI}, "c": '"usage": {"'}).encode(),
        None,
    ),
    ("application/json", b'{"us\\u0061ge" : {"total_tokens":8} , "b": 1}', 8),
    ("application/json", json.dumps({"usage": {"prompt_tokens": 3}}).encode(), None),
    ("application/json", json.dumps({"usage": {**NEWER, "output_tokens": -5}}).encode(), None),
    ("application/json", json.dumps({"usage": {**NEWER, "output_tokens": 5.0}}).encode(), None),
    ("application/json", json.dumps({"usage": {**NEWER, "output_tokens": True}}).encode(), None),
    ("application/json", json.dumps({"usage": {"total_tokens": 10**10}}).encode(), None),
    ("application/json", b'{"usage": {"total_tokens": ' + b"9" * 5_000 + b"}}", None),
    ("application/json", b'{"usage": {"total_tokens": Infinity}}', None),
    ("application/json", json.dumps({"usage": [OPENAI]}).encode(), None),
    ("application/json", b"[" * 100_000, None),
    ("application/json", b"", None),
    ("text/event-stream", lines({"choices": [1]}, {"choices": [], "usage": OPENAI}), 8),
    ("text/event-stream", lines({"usage": None}, {"usage": OPENAI}) + b"data: [DONE]\n\n", 8),
    ("text/event-stream", lines({"usage": {"total_tokens": 4}}, {"usage": OPENAI}, end="\r\n"), 8),
    ("text/event-stream", lines({"usage": OPENAI}, end="\r"), 8),
    (
        "text/event-stream",
        lines({"response": {"usage": None}}, {"response": {"usage": {**NEWER, "total_tokens": 8}}}),
        8,
    ),
    ("text/event-stream", lines(BEGUN, {"usage": {"output_tokens": 5}}), 8),
    ("text/event-stream", lines(BEGUN, {"usage": {"input_tokens": 4, "output_tokens": 5}}), 9),
    ("text/event-stream", lines(BEGUN), 3),
    ("text/event-stream", lines(BEGUN, {"delta": {"text": "x" * 40}}), 13),
    ("text/event-stream", lines({"delta": "so"}) + b'data: {"usage": \n\n', None),
    ("text/event-stream", b"data: " + b"[" * 100_000 + b'"usage"\n', None),
    ("text/event-stream", b': "usage"\nid: "usage"\n', None),
    ("text/event-stream", b'data: {"usage": {"total_tokens": 8}}\n', 8),
    ("text/event-stream", b'data: {"usage": {"total_tokens": 8}}', None),  # not ended: cut off
]


@pytest.mark.parametrize(("kind", "body", "tokens"), READ)
def test_usage_is_read_however_the_body_is_cut(kind: str, body: bytes, tokens: int | None) -> None:
    """The last usage that can be believed, in one piece, byte by byte, or in pieces of seven."""
    expected = None if tokens is None else {"tpm": tokens}
    for size in (len(body) or 1, 1, 7):
        reader = METER.reader(kind)
        assert reader is not None
        for start in range(0, len(body), size):
            reader.feed(body[start : start + size])
        assert reader.amounts() == expected


SPLIT = TokenMeter(input="itpm", output="otpm")


def test_tokens_of_prompts_and_answers_may_be_limited_apart() -> None:
    """Each is reserved and settled for itself; what was read from a cache is free, written not."""
    assert SPLIT.estimate(json.dumps({**CHAT, "max_tokens": 7}).encode()) == {
        "rpm": 1,
        "itpm": 25,
        "otpm": 7,
    }
    all_three = TokenMeter(None, "tpm", input="itpm", output="otpm")
    reader = all_three.reader("application/json")
    assert reader is not None
    usage = {**NEWER, "cache_creation_input_tokens": 7, "cache_read_input_tokens": 900}
    reader.feed(json.dumps({"usage": usage}).encode())
    assert reader.amounts() == {"tpm": 15, "itpm": 10, "otpm": 5}
    reader = SPLIT.reader("application/json")
    assert reader is not None
    reader.feed(json.dumps({"usage": {"prompt_tokens": 3, "total_tokens": 3}}).encode())
    assert reader.amounts() == {"itpm": 3, "otpm": 0}
    assert SPLIT.refused() == {"itpm": 0, "otpm": 0}


SEEN = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "x" * 40}}]},
    {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "x" * 40}}]}}]},
    {"choices": [{"text": "x" * 40, "index": 0}]},
    {"type": "response.output_text.delta", "delta": "x" * 40},
    {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "x" * 40}},
]


@pytest.mark.parametrize("event", SEEN)
def test_a_stream_that_ends_early_is_charged_what_was_seen(event: Any) -> None:
    """The prompt as estimated, and the words that came; what is said twice counts once."""
    reader = METER.account("", json.dumps(CHAT).encode(), 0).reader("text/event-stream")
    assert reader is not None
    assert reader.amounts() is None
    again = {"type": "response.output_text.done", "text": "x" * 40}
    reader.feed(lines(event, event, again))
    assert reader.amounts() == {"tpm": 25 + 20}


@pytest.mark.parametrize("kind", ["", "text/plain", "text/html", "image/svg+xml", "audio/mpeg"])
def test_other_kinds_are_not_read(kind: str) -> None:
    """Only JSON and event streams tell of usage."""
    assert METER.reader(kind) is None


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("size", [10, 1_000, 50_000])
def test_an_answer_of_any_length_is_settled_and_not_held(kind: str, size: int) -> None:
    """What comes before the usage may have megabytes, of which little is kept at a time."""
    reader: Any = TokenMeter(max_buffer=20_000).reader(kind)
    reader.feed(b'data: {"data": ["' if "event" in kind else b'{"data": ["')
    tracemalloc.start()
    try:
        for _ in range(1_600_000 // size):
            reader.feed(b"x" * size)
        assert tracemalloc.get_traced_memory()[0] < 200_000
    finally:
        tracemalloc.stop()
    reader.feed(b'"], "usage": {"total_tokens": 8}}\n')
    assert reader.amounts() == {"tpm": 8}


def test_a_usage_that_is_longer_than_allowed_is_passed_over() -> None:
    """The limit is on what is held of it."""
    reader = TokenMeter(max_buffer=100).reader("application/json")
    assert reader is not None
    reader.feed(b'{"usage": {"x": "' + b"x" * 200 + b'", "total_tokens": 8}, "b": {}}')
    assert reader.amounts() is None


def test_a_long_stream_of_short_lines_is_read_to_its_end() -> None:
    """The limit is on a line, not on the stream."""
    reader = TokenMeter(max_buffer=100).reader("text/event-stream")
    assert reader is not None
    for _ in range(1_000):
        reader.feed(lines({"delta": "word"}))
    reader.feed(lines({"usage": OPENAI}))
    assert reader.amounts() == {"tpm": 8}


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", " deflate"])
def test_a_packed_answer_is_unpacked_by_pieces(encoding: str) -> None:
    """A small answer may unpack to a huge one, of which only a part is held at a time."""
    text = b" " * 3_000_000 + json.dumps({"usage": OPENAI}).encode()
    packed = zlib.compress(text) if "deflate" in encoding else gzip.compress(text)
    inner: Any = TokenMeter(max_buffer=4_000_000).reader("application/json")
    lengths: list[int] = []

    class Watched:
        def feed(self, chunk: bytes) -> None:
            lengths.append(len(chunk))
            inner.feed(chunk)

        amounts = staticmethod(inner.amounts)

    reader = DecodingReader(Watched(), encoding)
    for start in range(0, len(packed), 1_000):
        reader.feed(packed[start : start + 1_000])
    assert max(lengths) <= 65_536
    assert sum(lengths) == len(text)
    assert reader.amounts() == {"tpm": 8}


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["usage", "message", "response", "total_tokens", "input_tokens"])
            | st.sampled_from(["output_tokens", "messages", "content", "max_tokens", "n"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JUNK, st.binary(max_size=40), st.integers(1, 9))
@example({"usage": {"total_tokens": float("inf")}}, b"", 1)
@settings(max_examples=300, deadline=None)
def test_nothing_a_server_sends_can_break_it(value: Any, noise: bytes, size: int) -> None:
    """Whatever comes, there is no error, and amounts are whole numbers of a sane size, or none."""
    text = json.dumps(value).encode()
    for kind in ("application/json", "text/event-stream"):
        for body in (text, b"data: " + text + b"\n" + noise, noise + b"\ndata:" + text + b"\r"):
            reader = METER.reader(kind)
            assert reader is not None
            for start in range(0, len(body), size):
                reader.feed(body[start : start + size])
            amounts = reader.amounts()
            if amounts is not None:
                assert list(amounts) == ["tpm"]
                assert type(amounts["tpm"]) is int
                assert 0 <= amounts["tpm"] <= 3 * 10**9
    assert 0 <= estimate(value) <= 10**9


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"requests": 1}, TypeError, "requests is 1"),
        ({"requests": "tpm"}, ValueError, "requests and tokens are both 'tpm'"),
        ({"input": "a", "output": "a"}, ValueError, "input and output are both 'a'"),
        ({"input": 1}, TypeError, "input is 1"),
        ({"requests": None, "tokens": None}, ValueError, "all dimensions are None"),
        ({"chars_per_token": 0.0}, ValueError, "chars_per_token is 0"),
        ({"chars_per_token": float("nan")}, ValueError, "chars_per_token is nan"),
        ({"default_output_tokens": -1}, ValueError, "default_output_tokens is -1"),
        ({"default_output_tokens": 1.5}, TypeError, "default_output_tokens is 1.5"),
        ({"max_buffer": 0}, ValueError, "max_buffer is 0"),
    ],
)
def test_arguments_are_checked(options: Any, error: type[Exception], message: str) -> None:
    """What cannot be meant is refused by name."""
    with pytest.raises(error, match=message):
        TokenMeter(**options)
