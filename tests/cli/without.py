"""Commands in a process where a module cannot be imported."""

from __future__ import annotations

import subprocess
import sys

__all__ = ["run_without"]


def run_without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command where a module cannot be imported."""
    code = (
        f"import sys; sys.modules[{module!r}] = None; sys.argv = {['loadwise', *arguments]!r}\n"
        f"from loadwise.cli import main; sys.exit(main())"
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
