"""Span events of OpenTelemetry, one for each attempt of a request."""

from __future__ import annotations

import sys
from collections.abc import Hashable
from typing import Any

from loadwise.integrations._http.server_attributes import of_node, of_url
from loadwise.outcome import Outcome

__all__ = ["SpanEvents", "current_events"]

_FAULTS = frozenset({Outcome.FAILURE, Outcome.RATE_LIMITED})


def current_events(balancer: str) -> SpanEvents | None:
    """Return the events of the current span, or ``None`` unless there is one that records.

    OpenTelemetry is not imported for that: where nobody has imported it, no span is current.

    Args:
        balancer: The balancer's name.
    """
    current = getattr(sys.modules.get("opentelemetry.trace"), "get_current_span", None)
    if current is None:
        return None
    span = current()
    return SpanEvents(span, balancer) if span.is_recording() else None


class SpanEvents:
    """The events of one request's attempts, in the span that was current when it began.

    Args:
        span: The span.
        balancer: The balancer's name.

    Not thread-safe: it belongs to one request.

    Source: semantic conventions of OpenTelemetry for HTTP client spans, 1.37, for the names that do
    not begin with ``loadwise``.
    """

    __slots__ = ("_balancer", "_outcome", "_span", "_status", "_told")

    def __init__(self, span: Any, balancer: str) -> None:
        self._span = span
        self._balancer = balancer
        self._told = 0
        self._status: int | None = None
        self._outcome = Outcome.CANCELLED

    def answered(self, status: int, outcome: Outcome) -> None:
        """Record the response of the present attempt, and what it means."""
        self._status = status
        self._outcome = outcome

    def end(
        self,
        attempt: int,
        node_id: Hashable,
        base_url: str | None,
        *,
        outcome: Outcome | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Add the event of an attempt, the first time that it is said to have ended.

        Args:
            attempt: The number of the attempt, from 1 on.
            node_id: The id of the node that was asked.
            base_url: Where that is reached, where that is known.
            outcome: How it ended, if not as its response means.
            error: What was raised instead of a response, or while that was read.
        """
        if attempt <= self._told:
            return
        self._told = attempt
        status, self._status = self._status, None
        outcome, self._outcome = outcome or self._outcome, Outcome.CANCELLED
        if not self._span.is_recording():
            return
        node = str(node_id)
        attributes: dict[str, str | int] = {
            "loadwise.balancer": self._balancer,
            "loadwise.node": node,
            "loadwise.outcome": outcome.value,
            **(of_node(node) if base_url is None else of_url(base_url)),
        }
        if attempt > 1:
            attributes["http.request.resend_count"] = attempt - 1
        if status is not None:
            attributes["http.response.status_code"] = status
        if error is not None:
            attributes["error.type"] = _name_of(type(error))
        elif outcome in _FAULTS and status is not None:
            attributes["error.type"] = str(status)
        self._span.add_event("loadwise.attempt", attributes)


def _name_of(kind: type[BaseException]) -> str:
    name = kind.__qualname__
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"
