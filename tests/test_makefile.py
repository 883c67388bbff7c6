"""What make does where something is amiss, as far as it can be told without a network."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[1] / "Makefile"
# Debian's python3 without its package python3-venv: it leaves an interpreter without pip behind.
WITHOUT_PIP = """#!/bin/sh
if [ "$2" = venv ]; then
    mkdir -p "$3/bin" && ln -s "$0" "$3/bin/python"
    exit 1
fi
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make in an empty checkout."""
    (folder / "src").mkdir(exist_ok=True)
    (folder / "requirements").mkdir(exist_ok=True)
    for name in ("pyproject.toml", "requirements/dev.txt", "requirements/peers.txt"):
        (folder / name).touch()
    return subprocess.run(
        ["make", "--file", str(MAKEFILE), *arguments],  # noqa: S607 - as users call it
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_half_an_environment_is_not_kept(tmp_path: Path) -> None:
    """One without pip would fail each later call, after the cause is mended, too."""
    python = tmp_path / "python"
    python.write_text(WITHOUT_PIP)
    python.chmod(0o755)
    done = make(tmp_path, f"PYTHON={python}", ".venv/bin/python")
    assert done.returncode != 0
    assert not (tmp_path / ".venv").exists()


def test_peers_have_the_python_of_all_else(tmp_path: Path) -> None:
    """Whichever the first call was given: a later one need not say so again."""
    done = make(tmp_path, "--dry-run", "PYTHON=/not/this", "bench-peers")
    assert ".venv/bin/python -m venv .venv-peers" in done.stdout
