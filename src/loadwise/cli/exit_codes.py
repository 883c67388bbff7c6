"""Exit codes of the commands, and the signals that end a command."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["FAILED", "INTERRUPTED", "exit_codes", "interruptible"]

FAILED = 1
_USAGE = 2  # typer's own, for wrong options and arguments
INTERRUPTED = 130


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


@contextmanager
def interruptible() -> Generator[None, None, None]:
    """Let Ctrl-C and a request to terminate both raise ``KeyboardInterrupt``."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.default_int_handler) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
