"""Remainders of a key's limits, as a provider's headers tell them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from loadwise.integrations._http.metering import Left
from loadwise.integrations._llm.cooldowns import seconds_until
from loadwise.integrations._llm.dimensions import MOST_TOKENS, Dimensions

__all__ = ["left_in"]

_NUMBER = re.compile(r"[0-9]{1,12}")
# As OpenAI and those like it name a header, and as Anthropic does.
_SCHEMES = ("x-ratelimit-{fact}-{what}", "anthropic-ratelimit-{what}-{fact}")


def left_in(headers: Mapping[str, str], dimensions: Dimensions) -> dict[str, Left]:
    """Return what is left, by quota dimension; nothing of those that are not told of.

    Example:
        >>> left = left_in({"x-ratelimit-remaining-tokens": "149"}, Dimensions(*["rpm", "tpm"] * 2))
        >>> left["tpm"].amount
        149
    """
    names = zip(("requests", "tokens", "input-tokens", "output-tokens"), dimensions, strict=True)
    found: dict[str, Left] = {}
    for what, dimension in names:
        for scheme in _SCHEMES if dimension is not None else ():
            amount = _number(headers, scheme.format(fact="remaining", what=what))
            if dimension is not None and amount is not None:
                limit = _number(headers, scheme.format(fact="limit", what=what))
                reset = headers.get(scheme.format(fact="reset", what=what), "")
                found[dimension] = Left(amount, limit, seconds_until(reset))
    return found


def _number(headers: Mapping[str, str], name: str) -> int | None:
    value = headers.get(name, "").strip(" \t")
    return min(int(value), MOST_TOKENS) if _NUMBER.fullmatch(value) else None
