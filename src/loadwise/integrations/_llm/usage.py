"""Readers of what an answer says was used, in one piece or in a stream of events."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple, cast

from loadwise.integrations._llm.dimensions import MOST_TOKENS, Dimensions
from loadwise.integrations._llm.estimates import TokenEstimate
from loadwise.integrations._llm.json_members import MemberScanner, value_in

__all__ = ["JsonReader", "StreamReader"]

# A stream of responses tells its usage in its last event, one of messages in its first, too.
_PLACES = (("usage",), ("response", "usage"), ("message", "usage"))
# The words of an answer in the events of OpenAI's and Anthropic's streams.
_WORDS = re.compile(
    rb'"(?:content|text|delta|arguments|partial_json|thinking|reasoning_content|refusal)"'
    rb'\s*:\s*"([^"\\]*+(?:\\.[^"\\]*+)*+)"'
)


class _Used(NamedTuple):
    input: int
    output: int
    total: int


class _Tally:
    """The usage that one answer tells of, in one piece or in several.

    OpenAI gives a total; tokens of the prompt that it had cached are part of it, and count against
    the limit as others do. Anthropic gives the tokens of the prompt when a stream begins and those
    of the answer when it ends; those written to its cache come on top and count, those read from it
    do not.

    Source: the providers' pages on rate limits and on prompt caching.
    """

    def __init__(self) -> None:
        self._total: int | None = None
        self._prompt: int | None = None
        self._written = 0
        self._answer: int | None = None
        self._cached: int | None = None
        self._read = 0

    def take(self, usage: object, *, answered: bool = True) -> None:
        """Take in what is said.

        Args:
            usage: A ``usage``, or what stands in its place.
            answered: Whether the answer is complete; else only its beginning has been counted.
        """
        for name, value in _object(usage).items():
            if name in ("prompt_tokens_details", "input_tokens_details"):
                cached = _object(value).get("cached_tokens")
                if type(cached) is int and 0 <= cached <= MOST_TOKENS:
                    self._cached = cached
            if not (type(value) is int and 0 <= value <= MOST_TOKENS):
                continue
            if name == "total_tokens":
                self._total = value
            elif name in ("input_tokens", "prompt_tokens"):
                self._prompt = value
            elif name == "cache_creation_input_tokens" and "input_tokens" in _object(usage):
                self._written = value
            elif name == "cache_read_input_tokens" and "input_tokens" in _object(usage):
                self._cached = self._read = value
            elif name in ("output_tokens", "completion_tokens") and answered:
                self._answer = value

    def prompt(self) -> int | None:
        """Return the tokens of the prompt that count; ``None`` if that has not been said."""
        return None if self._prompt is None else self._prompt + self._written

    def cached_share(self) -> float | None:
        """Return the share of the prompt that was cached; ``None`` if that has not been said."""
        prompt = self.prompt()
        if self._cached is None or prompt is None or not prompt + self._read:
            return None
        return min(1.0, self._cached / (prompt + self._read))

    def used(self) -> _Used | None:
        """Return the tokens used; ``None`` if that has not been said."""
        total, prompt, answer = self._total, self.prompt(), self._answer
        if total is None:
            if prompt is None or answer is None:
                return None
            return _Used(prompt, answer, prompt + answer)
        if prompt is None:
            prompt = total if answer is None else max(0, total - answer)
        return _Used(prompt, max(0, total - prompt) if answer is None else answer, total)


class JsonReader:
    """Reads the usage in a JSON document, of any length.

    Args:
        dimensions: The names of what is used.
        max_buffer: Bytes held of it.
    """

    def __init__(self, dimensions: Dimensions, max_buffer: int) -> None:
        self._dimensions = dimensions
        self._scanner = MemberScanner(_PLACES[:1], max_buffer)

    def feed(self, chunk: bytes) -> None:
        """Take in a piece of the document."""
        self._scanner.feed(chunk)

    def amounts(self) -> Mapping[str, float] | None:
        """Return what was used, if the document says so."""
        used = self._tally().used()
        return None if used is None else self._dimensions.named(*used)

    def cached_share(self) -> float | None:
        """Return the share of the prompt that was cached, if the document says so."""
        return self._tally().cached_share()

    def _tally(self) -> _Tally:
        tally = _Tally()
        for member in self._scanner.found:
            tally.take(value_in(member))
        return tally


class StreamReader:
    """Reads the usage in a stream of server-sent events.

    A stream that ends before it told is taken for what was seen of it.

    Args:
        dimensions: The names of what is used.
        max_buffer: Bytes of a line that are held; of a longer one only the usage is.
        estimate: What the request was expected to use.
        chars_per_token: Characters of an answer per token.
        counts_words: Whether a stream is taken for what was seen of it; else for nothing.

    Source: the HTML standard, section 9.2.6: lines end in CR, LF or both.
    """

    def __init__(
        self,
        dimensions: Dimensions,
        max_buffer: int,
        estimate: TokenEstimate | None,
        chars_per_token: float,
        *,
        counts_words: bool = True,
    ) -> None:
        self._counts_words = counts_words
        self._dimensions = dimensions
        self._max_buffer = max_buffer
        self._estimate = estimate
        self._chars_per_token = chars_per_token
        self._unfinished: list[bytes] = []
        self._held = 0
        self._long: MemberScanner | None = None
        self._tally = _Tally()
        self._characters = 0
        self._has_events = False

    def feed(self, chunk: bytes) -> None:
        """Take in a piece of the stream."""
        lines = chunk.splitlines(keepends=True)
        rest = b"" if not lines or lines[-1].endswith((b"\n", b"\r")) else lines.pop()
        if lines:
            lines[0] = self._finished(lines[0])
            for line in lines:
                self._take(line)
        if rest:
            self._hold(rest)

    def _finished(self, end: bytes) -> bytes:
        """Return a line whose end has come; an empty one if it was too long to be held."""
        if self._long is not None:
            self._long.feed(end)
            self._read(self._long)
            self._long = None
            return b""
        self._unfinished.append(end)
        line = b"".join(self._unfinished)
        self._unfinished, self._held = [], 0
        return line

    def _hold(self, rest: bytes) -> None:
        if self._long is not None:
            self._long.feed(rest)
            return
        self._unfinished.append(rest)
        self._held += len(rest)
        if self._held > self._max_buffer:
            line = b"".join(self._unfinished)
            self._unfinished, self._held = [], 0
            self._long = MemberScanner(_PLACES, self._max_buffer)
            if line.startswith(b"data:"):
                self._long.feed(line[5:])

    def _take(self, line: bytes) -> None:
        if not line.startswith(b"data:"):
            return
        self._has_events = True
        if b'"usage"' in line:  # few events can tell of it, and most are a word or two
            scanner = MemberScanner(_PLACES, self._max_buffer)
            scanner.feed(line[5:])
            self._read(scanner)
        if self._counts_words and b'.done"' not in line:  # those say again what has been said
            self._characters += sum(map(len, _WORDS.findall(line)))

    def _read(self, scanner: MemberScanner) -> None:
        for member in scanner.found:
            self._tally.take(value_in(member), answered=member.path[0] != "message")

    def cached_share(self) -> float | None:
        """Return the share of the prompt that was cached, if an event has told of it."""
        return self._tally.cached_share()

    def amounts(self) -> Mapping[str, float] | None:
        """Return what was used, as the last event that told of it says; else what was seen."""
        used = self._tally.used()
        if used is not None:
            return self._dimensions.named(*used)
        prompt = self._tally.prompt()
        if prompt is None and self._estimate is not None:
            prompt = self._estimate.input
        if prompt is None or not self._has_events:
            return None
        seen = math.ceil(self._characters / self._chars_per_token)
        return self._dimensions.named(prompt, seen, prompt + seen)


def _object(value: object) -> Mapping[str, object]:
    """Return a JSON object; an empty one for any other value."""
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}
