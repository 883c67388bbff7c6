"""The part of a page that a viewer asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import parse_qs, urlencode

__all__ = ["PageQuery"]

_LONGEST_TEXT: Final = 200
_MOST_FIELDS: Final = 20
_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class PageQuery:
    """Choice of nodes to show.

    Attributes:
        text: Text that a node's id, state, reason, zone or tags must contain.
        problems: Whether to leave out nodes that are well.
        balancer: Number of the only balancer to show, from 1; 0 for all.
        page: Number of the page, from 1.
    """

    text: str = ""
    problems: bool = False
    balancer: int = 0
    page: int = 1

    @classmethod
    def of(cls, query: str) -> PageQuery:
        """Return what a query string asks for; what makes no sense is as if it were not there."""
        try:
            fields = parse_qs(query, max_num_fields=_MOST_FIELDS, errors="replace")
        except ValueError:  # too many fields
            return cls()
        return cls(
            text=fields.get("q", [""])[0].strip()[:_LONGEST_TEXT],
            problems=fields.get("show") == ["problems"],
            balancer=_number(fields, "balancer", 0),
            page=max(1, _number(fields, "page", 1)),
        )

    def link(self, *, balancer: int, page: int) -> str:
        """Return a relative link to another page of the same choice."""
        other = replace(self, balancer=balancer, page=page)
        fields = {
            "q": other.text,
            "show": "problems" if other.problems else "",
            "balancer": str(other.balancer) if other.balancer else "",
            "page": str(other.page) if other.page > 1 else "",
        }
        named = urlencode({name: value for name, value in fields.items() if value})
        return f"./?{named}" if named else "./"


def _number(fields: dict[str, list[str]], name: str, default: int) -> int:
    text = fields.get(name, [""])[0]
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else default
