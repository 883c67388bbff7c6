"""Errors as the APIs of language models tell them.

It does no I/O.
"""

from __future__ import annotations

import json
from typing import Final, NamedTuple, cast

__all__ = ["ErrorCause", "Told", "told_by", "told_of"]

_DEEPEST = 8


class ErrorCause:
    """Party at fault, or the thing that is missing: one of these names.

    They are in the order in which an error that can be read in two ways is taken.
    """

    SPENT: Final = "spent"
    """The key's account has nothing left, or is closed: time alone does not mend that."""

    KEY: Final = "key"
    """The key is not known, or may not be used here."""

    REQUEST: Final = "request"
    """The caller asks for what the provider does not do, with any key."""

    RATE: Final = "rate"
    """A limit of requests or tokens, which comes back with time."""

    SERVER: Final = "server"
    """All else is the provider's."""


class Told(NamedTuple):
    """Content of an error.

    Attributes:
        fault: Whose it is, as in `ErrorCause`.
        word: The provider's own word for it, if it is one that is known. What else an error says
            may be anything, a key too, and is not repeated.
    """

    fault: str = ErrorCause.SERVER
    word: str | None = None


_FAULTS: Final = {
    # OpenAI
    "insufficient_quota": ErrorCause.SPENT,
    "quota_exceeded": ErrorCause.SPENT,
    "billing_hard_limit_reached": ErrorCause.SPENT,
    "billing_not_active": ErrorCause.SPENT,
    "account_deactivated": ErrorCause.SPENT,
    "access_terminated": ErrorCause.SPENT,
    "invalid_api_key": ErrorCause.KEY,
    "invalid_organization": ErrorCause.KEY,
    "invalid_authentication": ErrorCause.KEY,
    "model_not_found": ErrorCause.REQUEST,
    "invalid_request_error": ErrorCause.REQUEST,
    "invalid_prompt": ErrorCause.REQUEST,
    "context_length_exceeded": ErrorCause.REQUEST,
    "content_filter": ErrorCause.REQUEST,
    "content_policy_violation": ErrorCause.REQUEST,
    "image_content_policy_violation": ErrorCause.REQUEST,
    "unsupported_value": ErrorCause.REQUEST,
    "rate_limit_exceeded": ErrorCause.RATE,
    "rate_limit_error": ErrorCause.RATE,
    "requests": ErrorCause.RATE,
    "tokens": ErrorCause.RATE,
    # Anthropic
    "billing_error": ErrorCause.SPENT,
    "authentication_error": ErrorCause.KEY,
    "permission_error": ErrorCause.KEY,
    "not_found_error": ErrorCause.REQUEST,
    "request_too_large": ErrorCause.REQUEST,
}
_ORDER: Final = (ErrorCause.SPENT, ErrorCause.KEY, ErrorCause.REQUEST, ErrorCause.RATE)
# Said with a code that is used for all that is wrong with a request. A message may repeat what the
# caller has sent, so that only its beginning counts.
_MESSAGES: Final = (
    ("Your credit balance is too low", Told(ErrorCause.SPENT, "credit balance is too low")),
    ("API key not valid", Told(ErrorCause.KEY, "API key not valid")),
    # A 429 that no waiting mends, with the code of one that it does.
    ("Request too large", Told(ErrorCause.REQUEST, "request too large")),
)


_NOTHING: Final = Told()


def told_by(body: bytes) -> Told:
    """Return what the body of an error says.

    Example:
        >>> told_by(b'{"error": {"type": "x", "code": "insufficient_quota"}}')
        Told(fault='spent', word='insufficient_quota')
    """
    try:
        return told_of(json.loads(body))
    except (ValueError, RecursionError):
        return _NOTHING


def told_of(document: object) -> Told:
    """Return what an error says, given as a document or an event has it."""
    for _ in range(_DEEPEST):
        if isinstance(document, list) and document:
            document = cast("list[object]", document)[0]
        elif isinstance(document, dict):
            members = cast("dict[str, object]", document)
            inner = members.get("error")
            if not isinstance(inner, dict):
                inner = members.get("response")
            if not isinstance(inner, dict):
                return _told(members)
            document = cast("object", inner)
        else:
            break
    return _NOTHING


def _told(error: dict[str, object]) -> Told:
    words = [word for word in (error.get("code"), error.get("type")) if isinstance(word, str)]
    known = {_FAULTS[word]: word for word in reversed(words) if word in _FAULTS}
    message = error.get("message")
    if isinstance(message, str):
        for beginning, told in _MESSAGES:
            if message.startswith(beginning):
                return told
    for fault in _ORDER:
        if fault in known:
            return Told(fault, known[fault])
    return _NOTHING
