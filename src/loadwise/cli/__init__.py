"""The command line, for those who installed the extra ``cli``.

This module imports nothing of that extra before it is known that it is there.
"""

from __future__ import annotations

import sys

__all__ = ["main"]

_EXTRA = ("typer", "rich", "httpx2")


def main() -> int:
    """Run the command line on ``sys.argv`` and return the exit code."""
    try:
        return _run()
    except ModuleNotFoundError as error:  # at once, or from a command that imports what it needs
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        sys.stderr.write(f"the command line needs {missing}: pip install 'loadwise[cli]'\n")
        return 1


def _run() -> int:
    try:
        from loadwise.cli.app import app  # noqa: PLC0415 - needs the extra
    except KeyboardInterrupt:  # within the first second, while Python imports
        return 130
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        # A terminal that cannot show a character gets another one rather than an error.
        reconfigure(errors="replace")
    try:
        app(prog_name="loadwise")
    except OSError as error:  # such as a full disk below standard output
        sys.stderr.write(f"loadwise cannot go on: {error}\n")
        return 1
    return 0
