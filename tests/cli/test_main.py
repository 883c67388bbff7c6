"""The entry point: what it says without its extra, and what importing it loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter of its own."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


def run_main_without(module: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command where a module cannot be imported."""
    return run_python(
        f"import sys; sys.modules[{module!r}] = None; sys.argv = ['loadwise', {command!r}]\n"
        f"from loadwise.cli import main; sys.exit(main())"
    )


@pytest.mark.parametrize(
    ("module", "command"), [("typer", "--version"), ("rich", "--version"), ("httpx2", "demo")]
)
def test_missing_extra_is_named(module: str, command: str) -> None:
    """Without one of its packages the command says what to install, and nothing else."""
    done = run_main_without(module, command)
    assert done.stderr == f"the command line needs {module}: pip install 'loadwise[cli]'\n"
    assert (done.stdout, done.returncode) == ("", 1)


def test_other_missing_modules_are_not_blamed_on_the_extra() -> None:
    """A module that is missing for another reason is reported as itself."""
    done = run_main_without("loadwise.cli.demo.server_program", "demo")
    assert done.returncode == 1
    assert "loadwise.cli.demo.server_program" in done.stderr
    assert "pip install" not in done.stderr


def test_an_interrupt_while_python_imports() -> None:
    """Ctrl-C in the first second ends the command as it does later: exit code 130, no traceback."""
    done = run_python(
        "import os, signal, sys\n"
        "from importlib.abc import MetaPathFinder\n"
        "class Interrupted(MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'typer':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from loadwise.cli import main; sys.exit(main())"
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_library_and_entry_point_import_without_the_extra() -> None:
    """Neither `import loadwise` nor `import loadwise.cli` loads any of that extra."""
    done = run_python(
        "import sys, loadwise.cli\n"
        "print([name for name in ('typer', 'rich', 'httpx2') if name in sys.modules])"
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
@pytest.mark.parametrize(
    "arguments", [["strategies"], ["strategies", "--json"], ["demo", "-s", "p2c"]]
)
def test_output_that_cannot_be_written(arguments: list[str]) -> None:
    """A full disk is reported in one line, with the exit code that the help lists for it."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "loadwise", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("loadwise cannot go on: [Errno 28]")
    assert done.stderr.count("\n") == 1


def test_module_runs_as_a_program() -> None:
    """``python -m loadwise`` is the command."""
    done = subprocess.run(
        [sys.executable, "-m", "loadwise", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout.startswith("loadwise ")
