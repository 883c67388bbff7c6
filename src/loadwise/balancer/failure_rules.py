"""Rules of blame: the exceptions that are the fault of the node that was asked."""

from __future__ import annotations

import sys
from collections.abc import Callable
from inspect import iscoroutine
from typing import Final, Protocol

from loadwise._text import visible
from loadwise.outcome import Outcome

__all__ = ["ANY_EXCEPTION", "FailureRule", "Failures", "in_words", "outcome_of"]

_LONGEST_REASON: Final = 200

FailureRule = (
    type[BaseException] | tuple[type[BaseException], ...] | Callable[[Exception], Outcome | bool]
)
"""Exception types, or a function of an exception; a bool is FAILURE if true, else CANCELLED."""

ANY_EXCEPTION: Final[tuple[type[BaseException], ...]] = (Exception,)
"""The rule where none was given; a rule that was given is another object."""


class Endable(Protocol):
    """A lease, as far as it is ended by an exception. Each method is ignored after the first."""

    def success(self) -> bool:
        """End it as a success."""
        ...

    def failure(self, reason: str | BaseException | None = None) -> bool:
        """End it as a failure of the node."""
        ...

    def rate_limited(
        self, retry_after: float | None = None, reason: str | BaseException | None = None
    ) -> bool:
        """End it as refused by a rate limit."""
        ...

    def cancel(self) -> bool:
        """End it as given up; a failure if no answer came for too long."""
        ...

    def call_off(self) -> bool:
        """End it as cancelled, however long it took."""
        ...


class Failures:
    """Tells which exceptions of a lease's block are the node's.

    Args:
        rule: Exception types, or a function that is asked of each exception.

    Cancellations are nobody's failure, whatever the rule says; see `outcome_of`.

    Immutable, so as thread-safe as the function is.
    """

    __slots__ = ("_ask", "_kinds")

    def __init__(self, rule: FailureRule) -> None:
        self._kinds: tuple[type[BaseException], ...] = ()
        self._ask: Callable[[Exception], Outcome | bool] | None = None
        if isinstance(rule, tuple):
            self._kinds = rule
        elif isinstance(rule, type):
            self._kinds = (rule,)
        else:
            self._ask = rule

    def outcome(self, error: BaseException) -> Outcome:
        """Return how a request ended whose block was left by ``error``.

        Raises:
            TypeError: The function returned what is neither an outcome nor a bool.
        """
        if outcome_of(type(error)) is Outcome.CANCELLED or not isinstance(error, Exception):
            return Outcome.CANCELLED
        if self._ask is None:
            return Outcome.FAILURE if isinstance(error, self._kinds) else Outcome.CANCELLED
        answer: object = self._ask(error)
        if isinstance(answer, Outcome):
            return answer
        if isinstance(answer, bool):
            return Outcome.FAILURE if answer else Outcome.CANCELLED
        if iscoroutine(answer):
            answer.close()  # else Python warns that it was never awaited
        raise TypeError(
            f"failures returned {answer!r} for {error!r}; it must return an Outcome or a bool"
        ) from error

    def end(self, lease: Endable, error: BaseException) -> None:
        """End a lease as its block was left by ``error``."""
        try:
            outcome = self.outcome(error)
        except BaseException:
            lease.call_off()
            raise
        if outcome is Outcome.FAILURE:
            lease.failure(error)
        elif outcome is Outcome.SUCCESS:
            lease.success()
        elif outcome is Outcome.RATE_LIMITED:
            lease.rate_limited(reason=error)
        elif outcome_of(type(error)) is Outcome.CANCELLED:
            lease.cancel()
        else:
            # The caller's own mistake says nothing, however long the node had before it.
            lease.call_off()


def outcome_of(exc_type: type[BaseException]) -> Outcome:
    """Return what an exception says about the node that was asked.

    Cancellations (`asyncio.CancelledError`, `GeneratorExit`, `KeyboardInterrupt` and whatever
    else is not an `Exception`, and `concurrent.futures.CancelledError`) say nothing.
    """
    if not issubclass(exc_type, Exception):
        return Outcome.CANCELLED
    futures = sys.modules.get("concurrent.futures")
    if futures is not None and issubclass(exc_type, futures.CancelledError):
        return Outcome.CANCELLED
    return Outcome.FAILURE


def in_words(reason: object) -> str | None:
    """Return the reason for an outcome as text of at most 200 characters, safe to show."""
    if reason is None:
        return None
    try:
        text = str(reason)
    except Exception:  # noqa: BLE001 - an error of the user's own may be broken itself
        text = ""
    if isinstance(reason, BaseException):
        text = type(reason).__name__ + (f": {text}" if text else "")
    return visible(text[:_LONGEST_REASON])[:_LONGEST_REASON]
