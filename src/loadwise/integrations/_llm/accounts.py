"""Charges of one request to a language model, from its estimate to what it used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from loadwise.integrations._http.metering import Left, UsageReader
from loadwise.integrations._llm.dimensions import Dimensions
from loadwise.integrations._llm.estimates import RequestKind, TokenEstimate
from loadwise.integrations._llm.remaining import left_in

__all__ = ["TokenAccount"]

_OVERLOADED = 529


class _Readers(Protocol):
    """Maker of readers of answers."""

    def reader_for(self, content_type: str, estimate: TokenEstimate | None) -> UsageReader | None:
        """Return a reader for a response of this type, or ``None`` if there is nothing to read."""
        ...


class TokenAccount:
    """Account of one request: the amounts that it is charged.

    Args:
        readers: Who makes readers of its answer.
        dimensions: The names of what is used.
        kind: What it asks for.
        estimate: The tokens that it is expected to use.

    Attributes:
        amounts: What it is expected to use, by dimension.
    """

    def __init__(
        self, readers: _Readers, dimensions: Dimensions, kind: RequestKind, estimate: TokenEstimate
    ) -> None:
        self._readers = readers
        self._dimensions = dimensions
        self._kind = kind
        self._estimate = estimate
        one = {} if dimensions.requests is None else {dimensions.requests: 1}
        told = dimensions.named(*estimate, estimate.input + estimate.output)
        self.amounts: Mapping[str, float] = {**one, **told}

    def used_by(self, status: int) -> Mapping[str, float] | None:
        """Return what an answer with this status has used; ``None`` if its body is to tell."""
        if 400 <= status < 500 or status == _OVERLOADED:  # noqa: PLR2004 - the callers' mistakes
            return self._dimensions.named(0, 0, 0)
        return None

    def reader(self, content_type: str) -> UsageReader | None:
        """Return a reader for a response of this type, or ``None`` if there is nothing to read."""
        if self._kind is RequestKind.ELSEWHERE:
            return None
        return self._readers.reader_for(content_type, self._estimate)

    def left(self, headers: Mapping[str, str]) -> Mapping[str, Left]:
        """Return what remains of the limits, as an answer's headers say."""
        # Batches, files and the like have limits of their own.
        return {} if self._kind is RequestKind.ELSEWHERE else left_in(headers, self._dimensions)
