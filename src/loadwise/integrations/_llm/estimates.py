"""Estimates of the tokens that a request will use.

What is asked for is told by the path: an embedding has no answer in tokens, a batch is charged
elsewhere, an image costs the same whatever the prompt. Where there is no path, or one that is not
known, it is told by the body.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import NamedTuple, cast

__all__ = ["Estimator", "RequestKind", "TokenEstimate", "kind_of"]

MOST_OUTPUT = 131_072
"""No model answers with more; a limit above it is none."""
_MOST_INPUT = 2_000_000
"""No model reads more."""
_MOST_ANSWERS = 128
_IMAGE = 800
"""About what an image of a megapixel costs as part of a prompt."""
_COARSE_IMAGE = 85
_CHARACTERS_OF_FILE = 400
"""Characters in base64 per token: for a page of PDF, or ten seconds of sound, this is near."""
_BYTES_OF_FORM = 1_000
# Of gpt-image's largest format.
_DRAWN = {"low": 408, "medium": 1_584}
_DRAWN_BEST = 6_240

# What a provider reads as the prompt, in the APIs of OpenAI, Anthropic and Google, and those made
# like them.
_PROMPT = ("messages", "input", "prompt", "system", "instructions", "tools", "functions")
_GOOGLES = ("contents", "systemInstruction", "system_instruction")
_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_LIMIT_IN_TEXT = re.compile(
    rb'"(?:max_(?:completion_|output_)?tokens|maxOutputTokens)"\s*:\s*([0-9]{1,10})(?![0-9])'
)
_IMAGES = frozenset({"image_url", "input_image", "image"})
_FILES = frozenset({"input_audio", "file", "input_file", "document", "container_upload"})
_EMBEDS = ("encoding_format", "dimensions")


class RequestKind(Enum):
    """Subject of a request."""

    PROMPT = auto()
    READING = auto()
    """No answer in tokens: embeddings, moderations, speech."""
    DRAWING = auto()
    HEARING = auto()
    ELSEWHERE = auto()
    """Nothing that counts against the limits of tokens: batches, files, videos, the counting of
    tokens. What is asked for there may be made."""
    UNKNOWN = auto()


_KINDS = [
    (
        re.compile(
            r"/(assistants|batches|containers|conversations|evals|files|fine_tuning|models|realtime"
            r"|skills|uploads|vector_stores|videos)(/[^:]*)?$"
            r"|/messages/count_tokens$|/responses/input_tokens(/count)?$|:countTokens$"
        ),
        RequestKind.ELSEWHERE,
    ),
    (re.compile(r"/(embeddings|moderations|rerank|score|audio/speech)$"), RequestKind.READING),
    (re.compile(r"/images/(generations|edits|variations)$"), RequestKind.DRAWING),
    (re.compile(r"/audio/(transcriptions|translations)$"), RequestKind.HEARING),
    (
        re.compile(r"/(completions|messages|responses)$|:(streamG|g)enerateContent$"),
        RequestKind.PROMPT,
    ),
]


def kind_of(path: str) -> RequestKind:
    """Return what is asked for at a path, with or without a query.

    Example:
        >>> kind_of("/v1/messages"), kind_of("/v1/messages/count_tokens"), kind_of("/v1/embeddings")
        (<RequestKind.PROMPT: 1>, <RequestKind.ELSEWHERE: 5>, <RequestKind.READING: 2>)
    """
    path = path.partition("?")[0].rstrip("/")
    return next((kind for pattern, kind in _KINDS if pattern.search(path)), RequestKind.UNKNOWN)


class TokenEstimate(NamedTuple):
    """Tokens expected.

    Attributes:
        input: Of the prompt.
        output: Of the answer, at most.
    """

    input: int
    output: int


class Estimator:
    """Tells the tokens of requests.

    Args:
        chars_per_token: Characters of a prompt per token.
        default_output: Tokens of an answer whose request does not limit it.
    """

    def __init__(self, chars_per_token: float, default_output: int) -> None:
        self._chars_per_token = chars_per_token
        self._default_output = default_output

    def estimate(self, kind: RequestKind, body: bytes | None, length: int | None) -> TokenEstimate:
        """Return the tokens of a request.

        Args:
            kind: What it asks for.
            body: Its body; ``None`` if that cannot be known before it is sent.
            length: The length of that, if it is known.
        """
        if kind is RequestKind.ELSEWHERE or body == b"":
            return TokenEstimate(0, 0)
        request = None if body is None else _parse(body)
        if not isinstance(request, dict):
            return self._of_unreadable(kind, body or b"", length or len(body or b""))
        told = cast("Mapping[str, object]", request)
        if kind is RequestKind.DRAWING:
            output = _drawn(told)
        elif kind is RequestKind.READING or (
            kind is RequestKind.UNKNOWN and any(n in told for n in _EMBEDS)
        ):
            output = 0
        else:
            output = self._output(told)
        if kind is RequestKind.READING:  # such as the query and the documents of a reranking
            return TokenEstimate(
                self._tokens([told[n] for n in told if n not in ("model", *_EMBEDS)]), 0
            )
        prompt = [told[name] for name in (*_PROMPT, *_GOOGLES) if name in told]
        if not prompt:
            return TokenEstimate(self._tokens(told), 0 if kind is RequestKind.UNKNOWN else output)
        return TokenEstimate(self._tokens(prompt), output)

    def _of_unreadable(self, kind: RequestKind, body: bytes, length: int) -> TokenEstimate:
        """Return the tokens of a body that is no JSON object: by its length."""
        if kind is RequestKind.DRAWING:
            return TokenEstimate(_by_length(length, _BYTES_OF_FORM), _DRAWN_BEST)
        if kind is RequestKind.HEARING:
            return TokenEstimate(_by_length(length, _BYTES_OF_FORM), self._default_output)
        tokens = _by_length(length, self._chars_per_token)
        if kind is RequestKind.READING:
            return TokenEstimate(tokens, 0)
        limits = [int(found[1]) for found in _LIMIT_IN_TEXT.finditer(body)]
        return TokenEstimate(tokens, min(max(limits, default=self._default_output), MOST_OUTPUT))

    def _output(self, request: Mapping[str, object]) -> int:
        """Return the most tokens that the answers may have."""
        config = request.get("generationConfig")
        given = [request.get(name) for name in _LIMITS]
        if isinstance(config, dict):
            given.append(cast("Mapping[str, object]", config).get("maxOutputTokens"))
        limits = (_whole(each, MOST_OUTPUT) for each in given)
        output = next((limit for limit in limits if limit is not None), self._default_output)
        return output * (_whole(request.get("n"), _MOST_ANSWERS) or 1)

    def _tokens(self, prompt: object) -> int:
        """Return the tokens of all text in a prompt, and of the images and files in it."""
        characters, tokens = 0, 0.0
        left = [prompt]
        while left:
            value = left.pop()
            if isinstance(value, str):
                characters += len(value)
            elif isinstance(value, list):
                left.extend(cast("list[object]", value))
            elif isinstance(value, dict):
                part = cast("dict[str, object]", value)
                kind = part.get("type")
                if isinstance(kind, str) and kind in _IMAGES:
                    tokens += _COARSE_IMAGE if _is_coarse(part) else _IMAGE
                elif isinstance(kind, str) and kind in _FILES:
                    tokens += sum(map(self._tokens_of_file, _texts_of(part)))
                else:
                    for name, inner in part.items():
                        characters += len(name)
                        if isinstance(inner, str) and (name == "data" or inner[:5] == "data:"):
                            tokens += self._tokens_of_file(inner)
                        else:
                            left.append(inner)
            elif isinstance(value, int | float):  # a token in the place of a text
                tokens += 1
        return min(math.ceil(characters / self._chars_per_token + tokens), _MOST_INPUT)

    def _tokens_of_file(self, text: str) -> float:
        # Plain text may be a document, too; but a text without a space is base64 or a reference.
        is_plain = " " in text[:1_000]
        return len(text) / (self._chars_per_token if is_plain else _CHARACTERS_OF_FILE)


def _by_length(length: int, each: float) -> int:
    return max(1, min(math.ceil(length / each), _MOST_INPUT))


def _drawn(request: Mapping[str, object]) -> int:
    """Return the tokens of the images that are asked for; DALL-E is not charged by tokens."""
    if str(request.get("model", "")).startswith("dall-e"):
        return 0
    quality = request.get("quality")
    each = _DRAWN.get(quality, _DRAWN_BEST) if isinstance(quality, str) else _DRAWN_BEST
    return each * (_whole(request.get("n"), _MOST_ANSWERS) or 1)


def _is_coarse(part: Mapping[str, object]) -> bool:
    inner = part.get("image_url")
    told = cast("Mapping[str, object]", inner) if isinstance(inner, dict) else part
    return told.get("detail") == "low"


def _texts_of(part: object) -> Iterator[str]:
    """Return all texts in a part of a prompt."""
    left = [part]
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            left.extend(cast("list[object]", value))
        elif isinstance(value, dict):
            left.extend(cast("dict[str, object]", value).values())


def _parse(text: bytes) -> object:
    """Return what a JSON text says; ``None`` if it is not JSON."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):  # deeply nested text overflows the parser's stack
        return None
    return value


def _whole(value: object, most: int) -> int | None:
    """Return a number of tokens or answers, cut to the most; ``None`` if it cannot be one."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return min(value, most) if type(value) is int and value >= 0 else None
