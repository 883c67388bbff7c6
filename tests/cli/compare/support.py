"""The command as its users run it, and what it prints in this process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from loadwise.cli.app import app

__all__ = ["Compare", "invoke", "start"]

DEADLINE = 60.0

Compare = subprocess.Popen[str]


def invoke(*arguments: str) -> tuple[int, str]:
    """Return the exit code and all output of ``compare``, without frames and line breaks."""
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["compare", *arguments])
    text = re.sub(r"\x1b\[[0-9;]*m", "", result.output)
    return result.exit_code, " ".join(re.sub(r"[│╭╮╰╯]|─{2,}", " ", text).split())


def start(folder: Path, *arguments: str, **environment: str) -> Compare:
    """Start ``compare`` in a session of its own, as a terminal does.

    Its processes inherit its standard error, so whoever has read that to the end knows that all
    of them are gone.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "loadwise", "compare", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,
        # A parent that ignores Ctrl-C would have its children ignore it, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - no threads here
        env={**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8", **environment},
    )
