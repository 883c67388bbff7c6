"""Fields of records: their kinds, with units and ranges."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = [
    "Count",
    "Factor",
    "NoneText",
    "PositiveSeconds",
    "Priority",
    "Rate",
    "Seconds",
    "Share",
    "TableRecord",
    "TokenCount",
    "TokenRate",
]

Count = Annotated[int, Meta(ge=1, le=100_000, description="a whole number")]
Seconds = Annotated[float, Meta(ge=0, le=1e9, description="a number of seconds")]
PositiveSeconds = Annotated[float, Meta(gt=0, le=1e9, description="a number of seconds")]
Factor = Annotated[float, Meta(gt=0, le=1e6, description="a factor")]
Share = Annotated[float, Meta(ge=0, le=1, description="a share")]
Priority = Annotated[int, Meta(ge=-1000, le=1000, description="a whole number")]
NoneText = Annotated[str, Meta(pattern=r"^none\Z", description='"none"')]
Rate = Annotated[float, Meta(gt=0, le=1e9, description="a number of requests per second")]
TokenRate = Annotated[float, Meta(gt=0, le=1e12, description="a number of tokens per second")]
TokenCount = Annotated[int, Meta(ge=0, le=1_000_000, description="a whole number of tokens")]


class TableRecord(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of a file."""
