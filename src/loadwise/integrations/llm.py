"""loadwise for language models: what a request costs in tokens, told before and after.

Providers limit a key by requests and tokens per minute. What a prompt costs is known only when the
answer is there, so a `TokenMeter` reserves an estimate and settles what the answer says was used.

LoadwiseTransport(balancer, meter=TokenMeter(requests="rpm", tokens="tpm"))

It needs nothing beyond the standard library and goes with the HTTP integrations' ``meter=``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

from loadwise._numbers import finite, whole
from loadwise.integrations._llm.verdict import classify_llm

if TYPE_CHECKING:
    from loadwise.integrations._http.settings import UsageReader

__all__ = ["TokenMeter", "classify_llm"]

# What a provider reads as the prompt, in OpenAI's and Anthropic's APIs and those made like them.
_PROMPT = ("messages", "input", "prompt", "system", "instructions", "tools", "functions")
# Images, sound and files, by reference or in base64: their length says nothing about tokens.
_NOT_TEXT = frozenset({"data", "url", "image_url", "file_data", "file_url"})
_MOST_OUTPUT = ("max_completion_tokens", "max_output_tokens", "max_tokens")
# No request uses more; a number above it is a mistake or a lie.
_MOST_TOKENS = 1_000_000_000


class TokenMeter:
    """Knows what requests to language models cost, for the HTTP integrations' ``meter=``.

    Before a request its cost is estimated: one request, and the tokens of its prompt (by its
    length; images, sound and files are not counted) plus the most it may answer. After it, the
    tokens are what the answer's ``usage`` says; where it says nothing, or nothing to be believed,
    the estimate stays. One that a rate limit refuses has used a request, for providers count those,
    and no tokens.

    It reads OpenAI's chat completions, completions, responses and embeddings, Anthropic's
    messages, and all APIs made like them, streamed or not. A stream of OpenAI's responses or
    Anthropic's messages tells its usage by itself; one of OpenAI's chat completions only with
    ``stream_options={"include_usage": True}``.

    Args:
        requests: The quota dimension of requests; ``None`` if they are not limited.
        tokens: The quota dimension of tokens; ``None`` if they are not limited.
        chars_per_token: Characters of a prompt per token, finite and > 0. Less is more careful; 4
            is usual for English.
        default_output_tokens: Assumed of a request that does not limit its answer, an int >= 0.
        max_buffer: Bytes of an answer held to find its usage, an int >= 1. An answer (or, of a
            stream, a line) that is longer is not settled.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: A number is out of range, or the dimensions are the same, or there are none.

    A node that does not limit one of the dimensions is not charged for it; one node at least must.

    Thread-safety: it has no state; each answer has a reader of its own.

    Cost: O(length) of a request's body and of an answer's.

    Example:
        >>> meter = TokenMeter(requests="rpm", tokens="tpm")
        >>> body = b'{"messages": [{"role": "user", "content": "Hello there!"}], "max_tokens": 50}'
        >>> meter.estimate(body)
        {'rpm': 1, 'tpm': 57}
        >>> reader = meter.reader("application/json")
        >>> reader.feed(b'{"usage": {"prompt_tokens": 9, "completion_tokens": 12}}')
        >>> reader.amounts()
        {'tpm': 21}
    """

    def __init__(
        self,
        requests: str | None = "rpm",
        tokens: str | None = "tpm",
        *,
        chars_per_token: float = 4.0,
        default_output_tokens: int = 1_000,
        max_buffer: int = 1_048_576,
    ) -> None:
        for name, dimension in (("requests", requests), ("tokens", tokens)):
            if not isinstance(dimension, str | None):
                raise TypeError(f"{name} is {dimension!r}; it must be a str or None")
        if requests == tokens:
            raise ValueError(
                f"requests and tokens are both {tokens!r}; name two dimensions, or one and None"
            )
        self._chars_per_token = finite("chars_per_token", chars_per_token)
        if not self._chars_per_token > 0:
            raise ValueError(f"chars_per_token is {chars_per_token!r}; it must be finite, above 0")
        self._requests = requests
        self._tokens = tokens
        self._default_output = whole("default_output_tokens", default_output_tokens, 0)
        self._max_buffer = whole("max_buffer", max_buffer, 1)

    def estimate(self, body: bytes) -> Mapping[str, float]:
        """Return what a request with this body is expected to use."""
        amounts: dict[str, float] = {}
        if self._requests is not None:
            amounts[self._requests] = 1
        if self._tokens is not None:
            amounts[self._tokens] = self._tokens_of(_object(_parse(body)))
        return amounts

    def refused(self) -> Mapping[str, float]:
        """Return what a request has used that a rate limit refused: no tokens."""
        return {} if self._tokens is None else {self._tokens: 0}

    def reader(self, content_type: str) -> UsageReader | None:
        """Return a reader for a response of this type, or ``None`` if there is nothing to read."""
        if self._tokens is None:
            return None
        kind = content_type.partition(";")[0].strip().lower()
        if kind == "text/event-stream":
            return _StreamReader(self._tokens, self._max_buffer)
        if kind == "application/json" or (kind.startswith("application/") and kind[-5:] == "+json"):
            return _JsonReader(self._tokens, self._max_buffer)
        return None

    def _tokens_of(self, request: Mapping[str, object]) -> int:
        prompt = [request[name] for name in _PROMPT if name in request]
        if not prompt:
            return 0
        limits = (_count(request.get(name)) for name in _MOST_OUTPUT)
        output = next((limit for limit in limits if limit is not None), self._default_output)
        answers = _count(request.get("n")) or 1
        tokens = math.ceil(_characters(prompt, self._chars_per_token) / self._chars_per_token)
        return min(tokens + answers * output, _MOST_TOKENS)


class _JsonReader:
    """Reads the usage in a JSON document."""

    def __init__(self, dimension: str, max_buffer: int) -> None:
        self._dimension = dimension
        self._room = max_buffer
        self._pieces: list[bytes] = []

    def feed(self, chunk: bytes) -> None:
        """Take in a piece of the document."""
        self._room -= len(chunk)
        if self._room < 0:
            self._pieces.clear()
        else:
            self._pieces.append(chunk)

    def amounts(self) -> Mapping[str, float] | None:
        """Return the tokens used, if the document says so."""
        if self._room < 0:
            return None
        tally = _Tally()
        tally.take(_parse(b"".join(self._pieces)))
        return _named(self._dimension, tally.tokens())


class _StreamReader:
    """Reads the usage in a stream of server-sent events.

    Source: the HTML standard, section 9.2.6: lines end in CR, LF or both.
    """

    def __init__(self, dimension: str, max_buffer: int) -> None:
        self._dimension = dimension
        self._max_buffer = max_buffer
        self._unfinished: list[bytes] = []
        self._held = 0
        self._tally: _Tally | None = _Tally()

    def feed(self, chunk: bytes) -> None:
        """Take in a piece of the stream."""
        if self._tally is None:
            return
        self._unfinished.append(chunk)
        self._held += len(chunk)
        if b"\n" in chunk or b"\r" in chunk:
            lines = b"".join(self._unfinished).splitlines(keepends=True)
            rest = b"" if lines[-1].endswith((b"\n", b"\r")) else lines.pop()
            self._unfinished, self._held = [rest], len(rest)
            for line in lines:
                # Most events are a word or two of text; few can tell of usage.
                if line.startswith(b"data:") and b'"usage"' in line:
                    self._tally.take(_parse(line[5:]))
        if self._held > self._max_buffer:
            self._unfinished.clear()
            self._tally = None

    def amounts(self) -> Mapping[str, float] | None:
        """Return the tokens used, as the last event that told of them says."""
        return None if self._tally is None else _named(self._dimension, self._tally.tokens())


class _Tally:
    """The usage that one answer tells of, in one piece or in several.

    OpenAI gives a total. Anthropic gives the prompt's tokens when a stream begins and the answer's
    when it ends; those written to its cache count against the limit, those read from it do not.
    """

    def __init__(self) -> None:
        self._total: int | None = None
        self._prompt: int | None = None
        self._cached: int | None = None
        self._answer: int | None = None

    def take(self, message: object) -> None:
        """Take in a document or an event."""
        event = _object(message)
        self._read(_object(event.get("usage")))
        self._read(_object(_object(event.get("response")).get("usage")))
        # So far only the beginning of the answer has been counted.
        self._read(_object(_object(event.get("message")).get("usage")), answered=False)

    def _read(self, usage: Mapping[str, object], *, answered: bool = True) -> None:
        for name, value in _counts(usage):
            if name == "total_tokens":
                self._total = value
            elif name in ("input_tokens", "prompt_tokens"):
                self._prompt = value
            elif name == "cache_creation_input_tokens":
                self._cached = value
            elif name in ("output_tokens", "completion_tokens") and answered:
                self._answer = value

    def tokens(self) -> int | None:
        """Return the tokens used in all; ``None`` if that has not been said."""
        if self._total is not None:
            return self._total
        if self._prompt is None or self._answer is None:
            return None
        return self._prompt + (self._cached or 0) + self._answer


def _named(dimension: str, tokens: int | None) -> Mapping[str, float] | None:
    return None if tokens is None else {dimension: tokens}


def _parse(text: bytes) -> object:
    """Return what a JSON text says; ``None`` if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # deeply nested text overflows the parser's stack
        return None


def _object(value: object) -> Mapping[str, object]:
    """Return a JSON object; an empty one for any other value."""
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}


def _count(value: object) -> int | None:
    """Return a number of tokens; ``None`` if the value cannot be one."""
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None


def _counts(usage: Mapping[str, object]) -> Iterator[tuple[str, int]]:
    for name, value in usage.items():
        count = _count(value)
        if count is not None:
            yield name, count


def _characters(prompt: object, number: float) -> float:
    """Return the characters of all text in a prompt; a number in it counts as ``number``."""
    total = 0.0
    left = [prompt]
    while left:
        value = left.pop()
        if isinstance(value, str):
            total += len(value)
        elif isinstance(value, list):
            left.extend(cast("list[object]", value))
        elif isinstance(value, dict):
            for name, inner in cast("dict[str, object]", value).items():
                total += len(name)
                if not (name in _NOT_TEXT and isinstance(inner, str)):
                    left.append(inner)
        elif isinstance(value, int | float):
            total += number
    return total
