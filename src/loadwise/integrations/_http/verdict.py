"""What a response, or the lack of one, says about the node that was asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from loadwise._numbers import finite, shown
from loadwise.integrations._http.pauses import LONGEST_PAUSE, parse_retry_after
from loadwise.outcome import Outcome, check_outcome

__all__ = ["Verdict", "judge_status"]

_TOO_MANY_REQUESTS = 429
_PAUSING = frozenset({429, 503})
_REFUSALS = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an attempt says about its node, and whether another node might do better.

    Attributes:
        outcome: What to report of the node.
        retry: Whether another node is worth a try, if the request may be sent again.
        never_sent: Whether the request certainly never reached a server, so that even a request
            that must not be repeated may be sent again.
        retry_after: Seconds the node asks to be left alone; ``None`` if it does not say.
        reason: In words, for those who ask about the node; not compared.

    Raises:
        TypeError: ``outcome`` is no `Outcome`, or another attribute of the wrong type.
        ValueError: ``retry_after`` is negative, NaN or infinite.
    """

    outcome: Outcome
    retry: bool = False
    never_sent: bool = False
    retry_after: float | None = None
    reason: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        check_outcome(self.outcome)
        if not isinstance(self.reason, str | None):
            raise TypeError(f"reason is {shown(self.reason)}; it must be a str, or None")
        for name in ("retry", "never_sent"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise TypeError(f"{name} is {shown(value)}; it must be True or False")
        if self.retry_after is not None:
            pause = finite("retry_after", self.retry_after)
            if not pause >= 0:
                raise ValueError(
                    f"retry_after is {self.retry_after!r}; it must be a finite number of seconds, "
                    f"at least 0"
                )
            object.__setattr__(self, "retry_after", pause)


_FINE = Verdict(Outcome.SUCCESS)


def judge_status(
    status: int, headers: Mapping[str, str], longest: float = LONGEST_PAUSE
) -> Verdict:
    """Judge a response by its status code and ``Retry-After`` header.

    502, 503 and 504 are failures, and a 503 that says when to come back is a cooldown besides; 429
    is a rate limit; everything else is an answer from a node that works.

    Args:
        status: The status code.
        headers: The headers.
        longest: Seconds of the longest pause that the header is granted.
    """
    if status not in _REFUSALS:
        return _FINE
    return Verdict(
        Outcome.RATE_LIMITED if status == _TOO_MANY_REQUESTS else Outcome.FAILURE,
        retry=True,
        retry_after=(
            parse_retry_after(headers.get("retry-after"), longest) if status in _PAUSING else None
        ),
        reason=f"{status} from the server",
    )
