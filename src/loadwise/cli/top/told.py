"""Report of a status page at one moment, checked: it comes from elsewhere."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from loadwise._numbers import shown
from loadwise._text import visible

__all__ = ["SEVERITIES", "BalancerTold", "NodeTold", "NotAStatusPageError", "PageTold", "parsed"]

SEVERITIES: Final = ("down", "warning", "notice", "well")
"""Names for how bad a node's state is, the worst first."""

_OF_HEALTH: Final = ("up", "down", "ejected", "ailing", "recovering", "degraded")
_LONGEST: Final = 300
"""Characters of a text that are kept."""


class NotAStatusPageError(ValueError):
    """Answer that no status page gives; says what is wrong with it, and where."""


@dataclass(frozen=True, slots=True)
class NodeTold:
    """One node. Texts are safe to show.

    Attributes:
        text: Its id.
        state: Its state in a word.
        severity: One of `SEVERITIES`.
        why: Why it is so.
        seconds: For how long it has been, where that is a state of health.
        rate: Picks per second.
        in_flight: Requests under way.
        limit: How many it may have.
        latency: Moving average in seconds.
        successes: Requests of the last minute that ended well.
        failures: Requests of the last minute that failed.
        picks: How often it was chosen.
    """

    text: str
    state: str
    severity: str
    why: str
    seconds: float | None
    rate: float | None
    in_flight: float
    limit: float | None
    latency: float | None
    successes: float
    failures: float
    picks: float


@dataclass(frozen=True, slots=True)
class BalancerTold:
    """One balancer. Texts are safe to show.

    Attributes:
        name: Its name.
        strategy: Its strategy.
        panic: What its panic says; empty without one.
        error: Why it could not be read; empty if it could.
        members: How many nodes it may use.
        available: How many of those are not down.
        waiting: How many requests wait.
        rate: Picks per second of all nodes.
        nodes: Its nodes, those with problems first.
    """

    name: str
    strategy: str
    panic: str
    error: str
    members: float
    available: float
    waiting: float
    rate: float | None
    nodes: tuple[NodeTold, ...]


@dataclass(frozen=True, slots=True)
class PageTold:
    """All that a page told.

    Attributes:
        process: The process that told it, in words.
        balancers: The balancers, in order.
    """

    process: str
    balancers: tuple[BalancerTold, ...]

    @classmethod
    def of(cls, answer: object) -> PageTold:
        """Return what ``status.json`` tells.

        Raises:
            NotAStatusPageError: It is not that of a status page.
        """
        page = _Part(answer, "the answer")
        about = [f"process {page.number('pid'):.0f}", f"on {page.text('host')}"]
        about += [f"loadwise {page.text('loadwise')}", f"Python {page.text('python')}"]
        return cls(
            f"{' '.join(about[:2])} · {' · '.join(about[2:])}",
            tuple(map(_balancer, page.parts("balancers"))),
        )


def parsed(body: bytes) -> object:
    """Return what the body of an answer has.

    Raises:
        NotAStatusPageError: It is no JSON.
    """
    try:
        answer: object = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise NotAStatusPageError(f"the answer is no JSON: {visible(str(error))}") from None
    return answer


def _refuse(constant: str) -> None:
    raise ValueError(f"it has {constant}")


class _Part:
    """An object of the JSON, and its place."""

    def __init__(self, value: object, place: str) -> None:
        if not isinstance(value, dict):
            raise NotAStatusPageError(f"{place} is {_short(value)}; it must be an object")
        self._fields = cast("Mapping[str, Any]", value)
        self._place = place

    def text(self, name: str) -> str:
        value = self._get(name)
        if value is not None and not isinstance(value, (str, int, float)):
            raise self._wrong(name, value, "a text")
        text = "" if value is None else str(value)
        return visible(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…")

    def maybe(self, name: str) -> float | None:
        value = self._get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(name, value, "a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self._wrong(name, value, "a finite number")
        return number

    def number(self, name: str) -> float:
        value = self.maybe(name)
        if value is None:
            raise self._wrong(name, value, "a number")
        return value

    def part(self, name: str) -> _Part | None:
        value = self._get(name)
        return None if value is None else _Part(value, f"{self._place}.{name}")

    def parts(self, name: str) -> list[_Part]:
        value = self._get(name)
        if not isinstance(value, list):
            raise self._wrong(name, value, "a list")
        values = cast("list[object]", value)
        return [_Part(each, f"{self._place}.{name}[{i}]") for i, each in enumerate(values)]

    def _get(self, name: str) -> object:
        if name not in self._fields:
            raise NotAStatusPageError(f"{self._place} has no {name}")
        return self._fields[name]

    def _wrong(self, name: str, value: object, wanted: str) -> NotAStatusPageError:
        return NotAStatusPageError(f"{self._place}.{name} is {_short(value)}; it must be {wanted}")


def _short(value: object) -> str:
    return "null" if value is None else shown(value)


def _balancer(part: _Part) -> BalancerTold:
    panic = part.part("panic")
    nodes = sorted(map(_node, part.parts("nodes")), key=_rank)
    return BalancerTold(
        part.text("name"),
        part.text("strategy"),
        "" if panic is None else panic.text("text"),
        part.text("error"),
        part.number("members"),
        part.number("available"),
        part.number("waiting"),
        part.maybe("picks_per_second"),
        tuple(nodes),
    )


def _rank(node: NodeTold) -> int:
    return SEVERITIES.index(node.severity)


def _node(part: _Part) -> NodeTold:
    state, severity = part.text("state"), part.text("severity")
    return NodeTold(
        part.text("id"),
        state,
        # One that a newer page has counts as the middle.
        severity if severity in SEVERITIES else "warning",
        part.text("why"),
        part.number("state_seconds") if state in _OF_HEALTH else None,
        part.maybe("picks_per_second"),
        part.number("in_flight"),
        part.maybe("limit"),
        part.maybe("latency"),
        part.number("recent_successes"),
        part.number("recent_failures"),
        part.number("picks"),
    )
