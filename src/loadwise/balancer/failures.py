"""Which exceptions are the fault of the node that was asked."""

from __future__ import annotations

import sys
from collections.abc import Callable
from inspect import iscoroutine
from typing import Final

from loadwise.outcome import Outcome

__all__ = ["ANY_EXCEPTION", "FailureRule", "Failures", "outcome_of"]

FailureRule = (
    type[BaseException] | tuple[type[BaseException], ...] | Callable[[Exception], Outcome | bool]
)
"""Exception types, or a function of an exception; a bool is FAILURE if true, else CANCELLED."""

ANY_EXCEPTION: Final[tuple[type[BaseException], ...]] = (Exception,)
"""The rule where none was given; a rule that was given is another object."""


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
