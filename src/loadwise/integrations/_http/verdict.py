"""Verdicts: what a response, or the lack of one, says about the node that was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from loadwise._numbers import finite, shown
from loadwise.integrations._http.retry_after import EVER, LONGEST_COOLDOWN, parse_retry_after
from loadwise.outcome import Outcome, check_outcome

__all__ = [
    "BodyWatch",
    "OpeningWatch",
    "Verdict",
    "are_repeatable",
    "judge_status",
    "of_repeatable",
]

F = TypeVar("F", bound=Callable[..., object])

_MARK = "judges_repeatable"

_TOO_MANY_REQUESTS = 429
_WITH_RETRY_AFTER = frozenset({429, 503})
_REFUSALS = frozenset({429, 502, 503, 504})


class BodyWatch(Protocol):
    """Reads the body of a response that is a success so far, and has the last word on it.

    Each response needs one of its own.
    """

    def feed(self, chunk: bytes) -> None:
        """Take in a piece of the body, content encoding undone."""

    def verdict(self, *, complete: bool) -> Verdict | None:
        """Judge what has been read; ``None`` if there is nothing to object to.

        Args:
            complete: Whether the body has come to its end, and was not given up before.
        """
        ...


class OpeningWatch(BodyWatch, Protocol):
    """Reads the beginning of a body, which nobody has seen yet."""

    @property
    def has_begun(self) -> bool:
        """True if enough has been read to know that the answer has begun, or that it is none."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """Verdict on an attempt: its node's share, and whether another node might do better.

    Attributes:
        outcome: What to report of the node.
        retry: Whether another node is worth a try, if the request may be sent again.
        never_sent: Whether the request certainly never reached a server, so that even a request
            that must not be repeated may be sent again.
        retry_after: Seconds the node asks to be left alone; ``None`` if it does not say.
        reason: In words, for those who ask about the node; not compared.
        confirm: Whether the cooldown of a RATE_LIMITED begins only once another node has answered
            the same request well, so that the request was sound. Until then the node is not waited
            for.
        ceiling: Seconds to which ``retry_after`` is cut, where the client has no ``max_cooldown``,
            which else takes its place; ``None``: it is not cut, by ``max_cooldown`` neither.
        watch: Has the last word, once the body has been read, where ``outcome`` is SUCCESS; not
            compared. If it has an ``opening()``, that returns an `OpeningWatch`, by which httpx2
            and httpx read the body until it has begun, before the response is handed on: a request
            that may be repeated is retried then if its ``verdict`` says so.
        whole: Whether the body, up to 4 MiB of it, has to come before the response is handed on,
            where the request may be repeated: one that breaks off is retried then. It may take any
            time to begin, and a second from then on. For httpx2 and httpx.

    Raises:
        TypeError: ``outcome`` is no `Outcome`, or another attribute of the wrong type.
        ValueError: ``retry_after`` or ``ceiling`` is negative, NaN or infinite.
    """

    outcome: Outcome
    retry: bool = False
    never_sent: bool = False
    retry_after: float | None = None
    reason: str | None = field(default=None, compare=False)
    ceiling: float | None = None
    watch: BodyWatch | None = field(default=None, compare=False)
    confirm: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        check_outcome(self.outcome)
        if not isinstance(self.reason, str | None):
            raise TypeError(f"reason is {shown(self.reason)}; it must be a str, or None")
        for name in ("retry", "never_sent", "confirm", "whole"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise TypeError(f"{name} is {shown(value)}; it must be True or False")
        for name in ("retry_after", "ceiling"):
            value = getattr(self, name)
            if value is not None:
                seconds = finite(name, value)
                if not seconds >= 0:
                    raise ValueError(
                        f"{name} is {value!r}; it must be a finite number of seconds, at least 0"
                    )
                object.__setattr__(self, name, seconds)

    def cut(self, longest: float | None) -> Verdict:
        """Return it with a ``retry_after`` of at most its ceiling, or of the client's, if any."""
        if self.retry_after is None or self.ceiling is None:
            return self
        longest = self.ceiling if longest is None else longest
        return replace(self, retry_after=min(self.retry_after, longest), ceiling=None)


def of_repeatable(classify: F) -> F:
    """Mark a function that is for APIs whose requests may all be sent again.

    Functions that wrap it by ``functools.wraps`` are marked, too.
    """
    setattr(classify, _MARK, True)
    return classify


def are_repeatable(classify: object) -> bool:
    """Tell whether what a function judges may be sent again though a server has acted on it."""
    return getattr(classify, _MARK, False) is True


_FINE = Verdict(Outcome.SUCCESS)


def judge_status(status: int, headers: Mapping[str, str]) -> Verdict:
    """Judge a response by its status code and ``Retry-After`` header.

    502, 503 and 504 are failures, and a 503 that says when to come back is a cooldown besides; 429
    is a rate limit; everything else is an answer from a node that works.

    Args:
        status: The status code.
        headers: The headers.
    """
    if status not in _REFUSALS:
        return _FINE
    return Verdict(
        Outcome.RATE_LIMITED if status == _TOO_MANY_REQUESTS else Outcome.FAILURE,
        retry=True,
        retry_after=(
            parse_retry_after(headers.get("retry-after"), EVER)
            if status in _WITH_RETRY_AFTER
            else None
        ),
        reason=f"{status} from the server",
        ceiling=LONGEST_COOLDOWN,
    )
