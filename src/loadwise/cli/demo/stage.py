"""What every run of the demo stands on: signals, errors, the file of figures, the exit code."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from loadwise.cli.demo.child import ChildError
from loadwise.cli.demo.plan import Plan

__all__ = ["Record", "staged"]

_INTERRUPTED = 130

Record = dict[str, object]


def staged(perform: Callable[[], tuple[bool, Record]], plan: Plan, json_file: Path | None) -> int:
    """Have a demo performed, and return the exit code.

    Args:
        perform: Runs it, and returns whether all went well, and the figures.
        plan: What it is to run, which is written with the figures.
        json_file: Where to write them.

    Returns:
        0 when all went well, 1 otherwise, 130 when interrupted.
    """
    # The demo shows what balancers tell; lines of the log would come in between.
    logging.getLogger("loadwise").addHandler(logging.NullHandler())
    try:
        with _interruptible():
            good, figures = perform()
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; all servers have been ended\n")
        return _INTERRUPTED
    except ChildError as error:
        sys.stderr.write(f"the demo cannot run: {error}\n")
        return 1
    if json_file is not None:
        try:
            json_file.write_text(json.dumps({**asdict(plan), **figures}, indent=2) + "\n")
        except OSError as error:
            sys.stderr.write(f"the figures were not written to --json {json_file}: {error}\n")
            return 1
    return 0 if good else 1


@contextmanager
def _interruptible() -> Generator[None, None, None]:
    """Let Ctrl-C and a request to terminate both raise ``KeyboardInterrupt``."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.default_int_handler) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
