"""Where trouble that must not stop a request is told.

The `logging` module is imported when there is something to tell: it would be a tenth of the time
that ``import loadwise`` takes.
"""

from __future__ import annotations

import sys

__all__ = ["log_exception", "log_warning"]


def log_exception(message: str, *arguments: object) -> None:
    """Log the exception being handled, to the logger ``loadwise``."""
    import logging  # noqa: PLC0415 - see above

    logging.getLogger("loadwise").error(message, *arguments, exc_info=sys.exception(), stacklevel=2)


def log_warning(message: str, *arguments: object) -> None:
    """Log a warning to the logger ``loadwise``."""
    import logging  # noqa: PLC0415 - see above

    logging.getLogger("loadwise").warning(message, *arguments, stacklevel=2)
