"""Prompts of requests to language models, read off their bodies, and how much was cached of them.

Nothing is read unless the balancer's strategy goes by prompts. No text outlives its request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, cast

from xxhash import xxh3_64_hexdigest

from loadwise._prompt import Prompt
from loadwise.integrations._http.metering import Amounts, Left, RequestAccount, UsageReader
from loadwise.integrations._llm.dimensions import Dimensions
from loadwise.integrations._llm.estimates import RequestKind, kind_of
from loadwise.integrations._llm.usage import JsonReader, StreamReader

__all__ = ["PromptAccount", "prompt_in"]

# In the order in which a model reads them: tools and instructions come before what is said.
_PARTS: Final = (
    *("model", "tools", "functions", "system", "instructions"),
    *("messages", "input", "prompt", "text", "input_ids"),
)
_MARKS: Final = frozenset({"cache_control"})
"""Members that move from turn to turn, and say nothing to the model."""
_LONG: Final = 512
"""Characters from which on data is known by its hash."""
_NO_NAMES: Final = Dimensions(None, None, None, None)
_MOST_USAGE: Final = 65_536
_SGLANG: Final = "/generate"


def prompt_in(path: str, body: bytes) -> str | None:
    """Return all that a model reads of a request, in its order; ``None`` if it is no prompt.

    OpenAI's chat completions, completions and responses, Anthropic's messages, and those of servers
    made like them, such as vLLM and SGLang. Images and files are known by their address, or by a
    hash of their data. O(length).

    Example:
        >>> asked = b'{"max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}'
        >>> prompt_in("/v1/messages", asked).split()
        ['messages', 'role', 'user', 'content', 'Hi']
        >>> prompt_in("/v1/embeddings", b'{"input": "Hi"}')
    """
    is_generate = path.partition("?")[0].rstrip("/").endswith(_SGLANG)
    if not is_generate and kind_of(path) is not RequestKind.PROMPT:
        return None
    try:
        request: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(request, dict):
        return None
    told = cast("dict[str, object]", request)
    parts = {name: told[name] for name in _PARTS if told.get(name) is not None}
    if not parts or [*parts] == ["model"]:
        return None
    return _text_of(parts)


def _text_of(parts: Mapping[str, object]) -> str:
    """Return all texts in a JSON value, and the names of members, in their order."""
    pieces: list[str] = []
    add = pieces.append
    # What is still to be read, the next last; a name in front of its value.
    left: list[object] = [*parts.items()]
    left.reverse()
    while left:
        value = left.pop()
        name = ""
        if isinstance(value, tuple):
            name, value = cast("tuple[str, object]", value)
            if name in _MARKS:
                continue
            add(name)
        if isinstance(value, str):
            is_data = len(value) > _LONG and (name == "data" or value.startswith("data:"))
            add(xxh3_64_hexdigest(value.encode("utf-8", "surrogatepass")) if is_data else value)
        elif isinstance(value, list):
            left.extend(reversed(cast("list[object]", value)))
        elif isinstance(value, dict):
            left.extend(reversed([*cast("dict[str, object]", value).items()]))
        else:
            add(str(value))
    pieces.append("")
    return "\n".join(pieces)


class PromptAccount:
    """Account of one request whose prompt the strategy goes by.

    Args:
        prompt: The prompt.
        metered: The meter's account; ``None`` where nobody meters.
    """

    def __init__(self, prompt: Prompt, metered: RequestAccount | None) -> None:
        self.prompt = prompt
        self._metered = metered

    @property
    def amounts(self) -> Amounts | None:
        """Amounts that it is expected to use."""
        return None if self._metered is None else self._metered.amounts

    def used_by(self, status: int) -> Amounts | None:
        """Return what an answer with this status has used."""
        return None if self._metered is None else self._metered.used_by(status)

    def left(self, headers: Mapping[str, str]) -> Mapping[str, Left]:
        """Return what remains of the limits."""
        return {} if self._metered is None else self._metered.left(headers)

    def reader(self, content_type: str) -> UsageReader | None:
        """Return a reader for a response, which tells the strategy what was cached."""
        metered = None if self._metered is None else self._metered.reader(content_type)
        kind = content_type.partition(";")[0].strip().lower()
        if kind == "text/event-stream":
            stream = StreamReader(_NO_NAMES, _MOST_USAGE, None, 1.0, counts_words=False)
            return _CacheReader(self.prompt, stream, metered)
        if kind == "application/json":
            return _CacheReader(self.prompt, JsonReader(_NO_NAMES, _MOST_USAGE), metered)
        return metered


class _CacheReader:
    """Reads how much of a prompt was cached, beside what the meter reads."""

    def __init__(
        self, prompt: Prompt, usage: JsonReader | StreamReader, metered: UsageReader | None
    ) -> None:
        self._prompt = prompt
        self._usage = usage
        self._metered = metered

    def feed(self, chunk: bytes) -> None:
        """Take in a piece of the body."""
        self._usage.feed(chunk)
        if self._metered is not None:
            self._metered.feed(chunk)

    def amounts(self) -> Amounts | None:
        """Return what the meter's reader does, and tell the strategy what was cached."""
        share = self._usage.cached_share()
        if share is not None:
            self._prompt.tell_cached(share)
        return None if self._metered is None else self._metered.amounts()
