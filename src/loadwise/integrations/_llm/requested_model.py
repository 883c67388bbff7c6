"""Models that requests ask for, under a key's own name for each."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from loadwise.integrations._llm.estimates import RequestKind, kind_of
from loadwise.integrations._llm.json_members import MemberScanner, value_in

__all__ = ["RequestedModel", "asked_in"]

_LONGEST_NAME = 1_000
_FORM = re.compile(rb'name="model"\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]{1,1000})\r\n')


class RequestedModel(NamedTuple):
    """Subject of a request.

    Attributes:
        model: The model, as the caller calls it; ``None`` if it names none.
        spans: Where the name stands in the body, first place first.
        is_form: Whether that is a form, not JSON.
        is_prompt: Whether it may be repeated with another key: the worst of it is paying twice.
    """

    model: str | None
    spans: tuple[tuple[int, int], ...]
    is_form: bool
    is_prompt: bool

    def renamed(self, body: bytes, model: str) -> bytes:
        """Return the body with another name of the model, and not a byte else changed."""
        name = model.encode() if self.is_form else json.dumps(model).encode()
        pieces: list[bytes] = []
        done = 0
        for start, end in self.spans:
            pieces += [body[done:start], name]
            done = end
        return b"".join([*pieces, body[done:]])


def asked_in(path: str, body: bytes) -> RequestedModel:
    """Return what a request asks for. O(length).

    Example:
        >>> asked = asked_in("/v1/responses", b'{"model": "small", "input": "Hi"}')
        >>> asked.model, asked.renamed(b'{"model": "small", "input": "Hi"}', "gpt-5-mini")
        ('small', b'{"model": "gpt-5-mini", "input": "Hi"}')
    """
    kind = kind_of(path)
    if body.startswith(b"--"):
        found = _FORM.search(body)
        if found is None:
            return RequestedModel(None, (), is_form=True, is_prompt=False)
        model = found[1].decode(errors="replace")
        return RequestedModel(
            model, (found.span(1),), is_form=True, is_prompt=_is_prompt(kind, path)
        )
    scanner = MemberScanner([("model",)], _LONGEST_NAME)
    scanner.feed(body)
    # Of a name that is there twice, parsers take the last.
    named = [(value, each) for each in scanner.found if isinstance(value := value_in(each), str)]
    if not named:
        return RequestedModel(
            None, (), is_form=False, is_prompt=_is_prompt(kind, path, named=False)
        )
    spans = tuple([(each.start, each.start + len(each.value)) for _, each in named])
    return RequestedModel(named[-1][0], spans, is_form=False, is_prompt=_is_prompt(kind, path))


def _is_prompt(kind: RequestKind, path: str, *, named: bool = True) -> bool:
    """Tell whether nothing is made at a path that would be there twice."""
    if kind is RequestKind.ELSEWHERE:
        return path.partition("?")[0].endswith(("count_tokens", "input_tokens", ":countTokens"))
    # A run of a thread adds to it, and may name a model.
    return kind is not RequestKind.UNKNOWN or (named and "/threads" not in path)
