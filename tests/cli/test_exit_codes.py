"""Signals that end a command, wherever they strike."""

from __future__ import annotations

import signal
import sys
from threading import Event

import pytest

from loadwise.cli.exit_codes import interruptible


class Interrupted:
    """An object whose finalizer is interrupted by a signal."""

    def __init__(self, number: signal.Signals) -> None:
        self._number = number

    def __del__(self) -> None:
        signal.raise_signal(self._number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_finalizer_does_not_swallow_an_interrupt(number: signal.Signals) -> None:
    """Python ignores what is raised there; the interrupt comes again, outside."""

    def work() -> None:
        with interruptible():
            Interrupted(number)
            assert Event().wait(20.0), "nothing interrupts"

    with pytest.raises(KeyboardInterrupt):
        work()


def test_other_errors_of_finalizers_are_told_as_ever() -> None:
    """By the hook that was there before, which is there again afterwards."""
    told: list[object] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda lost: told.append(lost.exc_type)

    class Faulty:
        def __del__(self) -> None:
            raise ZeroDivisionError

    try:
        with interruptible():
            Faulty()
        assert told == [ZeroDivisionError]
        Faulty()
        assert told == [ZeroDivisionError] * 2
    finally:
        sys.unraisablehook = before
