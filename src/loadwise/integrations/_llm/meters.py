"""The meter of requests to language models: what they cost, told before and after."""

from __future__ import annotations

from collections.abc import Mapping
from types import EllipsisType

from loadwise._numbers import finite, whole
from loadwise.integrations._http.metering import UsageReader
from loadwise.integrations._llm.accounts import TokenAccount
from loadwise.integrations._llm.dimensions import Dimensions
from loadwise.integrations._llm.estimates import Estimator, TokenEstimate, kind_of
from loadwise.integrations._llm.usage import JsonReader, StreamReader

__all__ = ["TokenMeter"]


class TokenMeter:
    """Knows what requests to language models cost, for the HTTP integrations' ``meter=``.

    Before a request its cost is estimated: one request, and the tokens of its prompt (by its
    length; an image counts 800, a file a token per 400 characters) plus the most it may answer.
    After it, the tokens are what the answer's ``usage`` says; of a stream that was closed before it
    told, those of the prompt and of the words that were seen. Where nothing is said that can be
    believed, the estimate stays. A request that was refused, by a rate limit or any other 4xx, or
    by 529, has used a request, because providers count those, and no tokens.

    Headers that tell what remains of the limits correct the quota: down, where others use the same
    key; up, where less was used than had to be assumed.

    It reads OpenAI's chat completions, completions, responses and embeddings, Anthropic's
    messages, and all APIs made like them, streamed or not. A stream of OpenAI's responses or
    Anthropic's messages tells its usage by itself; one of OpenAI's chat completions only with
    ``stream_options={"include_usage": True}``. Embeddings and moderations are charged their input,
    images what drawing them takes; batches, files and the counting of tokens use no tokens.

    Args:
        requests: The quota dimension of requests; ``None`` if they are not limited.
        tokens: The quota dimension of tokens, of prompts and answers together; ``None`` if they are
            not limited. By default ``"tpm"``, or ``None`` where ``input`` or ``output`` is named.
        input: The quota dimension of tokens of prompts.
        output: The quota dimension of tokens of answers.
        chars_per_token: Characters of a prompt per token, finite and > 0. Less is more careful; 4
            is usual for English.
        default_output_tokens: Assumed of a request that does not limit its answer, an int >= 0.
        max_buffer: Bytes held of what an answer says of its usage, an int >= 1, and of a line of a
            stream.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: A number is out of range, or two dimensions are the same, or there are none.

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
        >>> TokenMeter(input="itpm", output="otpm").estimate(body)
        {'rpm': 1, 'itpm': 7, 'otpm': 50}
    """

    def __init__(
        self,
        requests: str | None = "rpm",
        tokens: str | EllipsisType | None = ...,
        *,
        input: str | None = None,  # noqa: A002 - as the limits are called
        output: str | None = None,
        chars_per_token: float = 4.0,
        default_output_tokens: int = 1_000,
        max_buffer: int = 1_048_576,
    ) -> None:
        if tokens is ...:
            tokens = "tpm" if input is output is None else None
        dimensions = Dimensions(requests, tokens, input, output)
        _check(dimensions)
        self._chars_per_token = finite("chars_per_token", chars_per_token)
        if not self._chars_per_token > 0:
            raise ValueError(f"chars_per_token is {chars_per_token!r}; it must be finite, above 0")
        default = whole("default_output_tokens", default_output_tokens, 0)
        self._dimensions = dimensions
        self._estimator = Estimator(self._chars_per_token, default)
        self._max_buffer = whole("max_buffer", max_buffer, 1)

    def estimate(self, body: bytes, path: str = "") -> Mapping[str, float]:
        """Return what a request is expected to use.

        Args:
            body: Its body.
            path: Where it goes, such as ``"/v1/embeddings"``; without it the body has to tell.
        """
        return self.account(path, body, len(body)).amounts

    def refused(self) -> Mapping[str, float]:
        """Return what a request has used that was refused: no tokens."""
        return self._dimensions.named(0, 0, 0)

    def reader(self, content_type: str) -> UsageReader | None:
        """Return a reader for a response of this type, or ``None`` if there is nothing to read."""
        return self.reader_for(content_type, None)

    def account(self, path: str, body: bytes | None, length: int | None) -> TokenAccount:
        """Return what one request is charged.

        Args:
            path: Where it goes.
            body: Its body; ``None`` if that is not known before it is sent.
            length: The length of that, if it is known.
        """
        kind = kind_of(path)
        estimate = self._estimator.estimate(kind, body, length)
        return TokenAccount(self, self._dimensions, kind, estimate)

    def reader_for(self, content_type: str, estimate: TokenEstimate | None) -> UsageReader | None:
        """Return a reader for an answer of this type to a request with such an estimate."""
        if not self._dimensions.count_tokens:
            return None
        kind = content_type.partition(";")[0].strip().lower()
        if kind == "text/event-stream":
            return StreamReader(self._dimensions, self._max_buffer, estimate, self._chars_per_token)
        if kind == "application/json" or (kind.startswith("application/") and kind[-5:] == "+json"):
            return JsonReader(self._dimensions, self._max_buffer)
        return None


def _check(dimensions: Dimensions) -> None:
    for name, dimension in dimensions._asdict().items():
        if not isinstance(dimension, str | None):
            raise TypeError(f"{name} is {dimension!r}; it must be a str or None")
    named = [name for name in dimensions if name is not None]
    if not named:
        raise ValueError("all dimensions are None; name one at least, such as requests='rpm'")
    for name in named:
        if named.count(name) > 1:
            same = [what for what, each in dimensions._asdict().items() if each == name]
            raise ValueError(
                f"{' and '.join(same)} are both {name!r}; name a dimension for each, or give None"
            )
