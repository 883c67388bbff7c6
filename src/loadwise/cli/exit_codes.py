"""Exit codes of the commands, and the signals that end a command."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

__all__ = ["FAILED", "INTERRUPTED", "exit_codes", "interruptible"]

FAILED = 1
_USAGE = 2  # typer's own, for wrong options and arguments
INTERRUPTED = 130
_SOON = 0.01


def exit_codes(success: str, failure: str) -> str:
    """Return the section of a command's help that lists its exit codes.

    Args:
        success: Meaning of exit code 0.
        failure: Meaning of exit code 1.
    """
    meanings = {
        0: success,
        FAILED: failure,
        _USAGE: "An option or argument is wrong; nothing was done.",
        INTERRUPTED: "Stopped by Ctrl-C.",
    }
    rows = (f"[cyan]{code:>3}[/cyan]  {meaning}" for code, meaning in meanings.items())
    return "[bold]Exit codes[/bold]\n\n" + "\n".join(rows)


def _interrupt_again() -> None:
    # Not at once: it would strike where the first is being told of, and be lost as well.
    time.sleep(_SOON)
    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, signal.SIGINT)  # which ends a wait, too
    else:
        _thread.interrupt_main()


@contextmanager
def interruptible() -> Generator[None, None, None]:
    """Let Ctrl-C and a request to terminate both raise ``KeyboardInterrupt``.

    Python ignores what is raised in a finalizer, such as that of a lease. An interrupt that strikes
    there is sent again, until it strikes elsewhere.
    """
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.default_int_handler) for number in signals]
    ignored = sys.unraisablehook

    def notice(lost: UnraisableHookArgs) -> None:
        if lost.exc_type is KeyboardInterrupt:
            _thread.start_new_thread(_interrupt_again, ())
        else:
            ignored(lost)

    sys.unraisablehook = notice
    try:
        yield
    finally:
        sys.unraisablehook = ignored
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
