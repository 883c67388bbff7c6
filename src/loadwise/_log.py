"""Log for trouble that must not stop a request.

The `logging` module is imported when there is something to tell: it would be a tenth of the time
that ``import loadwise`` takes.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["hushed", "log_exception", "log_warning"]

_hushed: ContextVar[bool] = ContextVar("hushed", default=False)


@contextmanager
def hushed() -> Generator[None, None, None]:
    """Keep warnings out of the log while the block runs, in this thread or task alone."""
    token = _hushed.set(True)
    try:
        yield
    finally:
        _hushed.reset(token)


def log_exception(message: str, *arguments: object) -> None:
    """Log the exception being handled, to the logger ``loadwise``."""
    import logging  # noqa: PLC0415 - see above

    logging.getLogger("loadwise").error(message, *arguments, exc_info=sys.exception(), stacklevel=2)


def log_warning(message: str, *arguments: object) -> None:
    """Log a warning to the logger ``loadwise``, unless it is `hushed`."""
    if _hushed.get():
        return
    import logging  # noqa: PLC0415 - see above

    logging.getLogger("loadwise").warning(message, *arguments, stacklevel=2)
